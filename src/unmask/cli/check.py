"""unmask check DATA: look at images before training on them."""

from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unmask.cli.arguments import parse, split_words, take_value, with_source
from unmask.config.schema import PretrainConfig
from unmask.recipes import pretrain_recipe

DESCRIPTION = (
    "Counts, sizes, kinds, bad files, duplicates, mean and deviation of images; what a model would see "
    "of them, as a picture in --out; time and memory of a run with --recipe, or with the one that suits."
)
SHOWN = 10


def main(argv: list[str]) -> None:
    """Prints what the API found."""
    words, flags = split_words(argv)
    name = take_value(flags, "--recipe")
    base = replace(pretrain_recipe(name), recipe=name) if name else PretrainConfig()
    config = parse(base, flags, prog="unmask check DATA", description=DESCRIPTION)

    from unmask import api

    found = api.check(with_source(config, words))
    table = Table(show_header=False, box=None)
    for title, value in found.rows():
        table.add_row(title, Text(value))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for bad in found.inspection.bad[:SHOWN]:
        console.print(Text(f"bad: {bad.path!r}: {bad.reason}"))
    for group in found.inspection.duplicates[:SHOWN]:
        console.print(Text(f"the same content: {', '.join(map(repr, group[:4]))}"))
    picture = found.folder / "samples.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    found.samples.save(picture)
    console.print(Text(f"what the model will see: {picture}"))
    console.print(Text(f"next: {found.command}"))
