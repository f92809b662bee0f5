"""unmask check DATA: look at a folder of images before training on it."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unmask.cli.arguments import parse, split_words, with_source
from unmask.config.schema import PretrainConfig

DESCRIPTION = (
    "Counts, sizes, formats, bad files, duplicates, mean and deviation of a folder of images, and a "
    "recipe that suits it."
)
SHOWN = 10


def main(argv: list[str]) -> None:
    """Prints what the API found."""
    words, flags = split_words(argv)
    config = parse(PretrainConfig(), flags, prog="unmask check DATA", description=DESCRIPTION)

    from unmask import api

    found = api.check(with_source(config, words))
    table = Table(show_header=False, box=None)
    for name, value in found.rows():
        table.add_row(name, Text(value))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for bad in found.inspection.bad[:SHOWN]:
        console.print(Text(f"bad: {bad.path!r}: {bad.reason}"))
    for group in found.inspection.duplicates[:SHOWN]:
        console.print(Text(f"the same content: {', '.join(map(repr, group[:4]))}"))
    console.print(Text(f"next: {found.command}"))
