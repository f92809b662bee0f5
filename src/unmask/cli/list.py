"""unmask list: the recipes, model sizes and built-in data sets."""

from rich.console import Console
from rich.table import Table

from unmask.tasks import TASKS


def main(argv: list[str]) -> None:
    """Prints what there is."""
    if "-h" in argv or "--help" in argv:
        print("usage: unmask list\n\nShows recipes, model sizes and built-in data sets.")
        return
    if argv:
        raise ValueError(f"list takes no arguments and got {' '.join(argv)}: write unmask list")

    from unmask.core.spec import SIZES
    from unmask.data.sources.registry import BUILT_IN

    console = Console(highlight=False)
    recipes = Table("command", "--recipe", "what it is", box=None)
    for command, entry in TASKS.items():
        for name, recipe in entry.known_recipes().items():
            recipes.add_row(command, name, (recipe.__doc__ or "").split("\n")[0])
    sizes = Table("--model.size", "width", "blocks", "heads", "patch", box=None)
    for name, size in SIZES.items():
        sizes.add_row(name, *(str(size[key]) for key in ("width", "depth", "heads", "patch")))
    console.print(recipes, "", sizes, "", f"built-in data sets: {', '.join(BUILT_IN)}")
