"""What the commands that measure print: facts, tables that fit a terminal, and where the rest is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unmask.viz.words import escaped

if TYPE_CHECKING:
    from unmask.data.decode.pictures import BadImage
    from unmask.tasks.results import Result

SHOWN = 10
ROWS = 20
WIDTH_OF_FILES = 120


def show_result(result: "Result") -> None:
    """Prints a measurement."""
    console = _console()
    show_notes(result.notes)
    show_table(("", ""), result.facts)
    for table in [*([result.summary] if result.summary else []), *result.tables]:
        if table.rows:
            console.print(f"\n{table.caption}", style="bold", markup=False)
            show_table(table.header, table.rows)
    show_bad(result.bad)
    print(f"\nreport: {escaped(str(result.path / 'report.html'))}")


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints the first rows; a header of empty words is left out."""
    table = Table(box=None, pad_edge=False, show_header=any(header))
    for i, name in enumerate(header):
        table.add_column(Text(name), justify="right" if i and any(header) else "left")
    for row in rows[:ROWS]:
        table.add_row(*(Text(escaped(word)) for word in row))
    console = _console()
    console.print(table)
    if len(rows) > ROWS:
        console.print(f"... and {len(rows) - ROWS} more", markup=False)


def show_notes(notes: Sequence[str]) -> None:
    """Prints what was decided or assumed."""
    for note in notes:
        print(f"note: {escaped(note)}")


def show_bad(bad: "Sequence[BadImage]") -> None:
    """Prints the first images that could not be read."""
    for image in bad[:SHOWN]:
        print(f"left out: {image.path!r}: {image.reason!r}")
    if len(bad) > SHOWN:
        print(f"... and {len(bad) - SHOWN} more")


def _console() -> Console:
    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        return console
    return Console(highlight=False, soft_wrap=True, width=WIDTH_OF_FILES)
