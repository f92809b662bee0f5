"""unmask list: the recipes, model sizes and built-in data sets."""

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from unmask.cli.arguments import split_words
from unmask.recipes import FINETUNE, PRETRAIN, PROBE, SCRATCH


def main(argv: list[str]) -> None:
    """Prints what there is."""
    words, flags = split_words(argv)
    if "-h" in flags or "--help" in flags:
        print("usage: unmask list\n\nShows recipes, model sizes and built-in data sets.")
        return
    if words or flags:
        raise ValueError(f"list takes no arguments and got {' '.join(argv)}: write unmask list")

    from unmask.core.vit import SIZES
    from unmask.data.sources.find import BUILT_IN

    console = Console(highlight=False)
    recipes = Table("command", "--recipe", "what it is", box=None)
    commands: dict[str, Mapping[str, Callable[[], object]]] = {
        "pretrain": PRETRAIN,
        "finetune": FINETUNE,
        "probe": PROBE,
        "scratch": SCRATCH,
    }
    for command, known in commands.items():
        for name, recipe in known.items():
            recipes.add_row(command, name, (recipe.__doc__ or "").split("\n")[0])
    sizes = Table("--model.size", "width", "blocks", "heads", "patch", box=None)
    for name, size in SIZES.items():
        sizes.add_row(name, *(str(size[key]) for key in ("width", "depth", "heads", "patch")))
    console.print(recipes, "", sizes, "", f"built-in data sets: {', '.join(BUILT_IN)}")
