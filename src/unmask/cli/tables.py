"""What the commands print of their results: facts, tables that fit a terminal, and where the rest is."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unmask.config.output import claim_output
from unmask.data.decode.pictures import BadImage
from unmask.engine.locks import only_writer_in
from unmask.storage import written_aside
from unmask.units import counted
from unmask.use.check_report import LIST, Check
from unmask.use.detect import Detected
from unmask.use.embed import Embedded
from unmask.use.predict import Classified
from unmask.use.results import Result
from unmask.use.segment import Segmented
from unmask.viz.saving import save_picture
from unmask.viz.words import escaped

SHOWN = 10
ROWS = 20
WIDTH_OF_FILES = 120


def show_evaluate(result: Result) -> None:
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


show_knn = show_evaluate


def show_check(found: Check) -> None:
    """Prints what was found, saves the picture, and says what to type next."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table(show_header=False, box=None)
    for title, value in found.rows():
        table.add_row(title, Text(value))
    console.print(table)
    for bad in found.inspection.bad[:SHOWN]:
        console.print(Text(f"bad: {bad.path!r}: {bad.reason}"))
    if len(found.inspection.bad) > SHOWN:
        console.print(f"... and {len(found.inspection.bad) - SHOWN} more, all of them with --json")
    for problem in (problem for one in found.annotations for problem in one.problems[:SHOWN]):
        console.print(Text(f"bad: {problem}"))
    for group in found.inspection.duplicates[:SHOWN]:
        console.print(Text(f"the same content: {', '.join(map(repr, group[:4]))}"))
    for note in found.notes:
        console.print(Text(f"note: {escaped(note)}"))
    claim_output(found.folder)
    with only_writer_in(found.folder):
        _save_pictures(found, console)
        _save_list(found, console)
    for command in found.commands:
        console.print(Text(f"next: {escaped(command)}"))


def _save_pictures(found: Check, console: Console) -> None:
    picture = found.folder / "samples.png"
    save_picture(found.samples, picture)
    console.print(Text(f"what the model will see: {escaped(str(picture))}"))
    for drawn in (one.picture for one in found.annotations if one.picture):
        place = found.folder / "objects.png"
        save_picture(drawn, place)
        console.print(Text(f"what is annotated: {escaped(str(place))}"))


def _save_list(found: Check, console: Console) -> None:
    if not found.listed:
        return
    file = found.folder / LIST
    with written_aside(file) as aside, aside.open("w", encoding="utf-8") as lines:
        lines.writelines(
            json.dumps({"path": os.path.abspath(path)}) + "\n" for path in sorted(found.listed)
        )
    console.print(Text(f"the images without the label maps beside them: {escaped(str(file))}"))


def show_json(record: dict[str, Any]) -> None:
    """Prints one JSON object, in ASCII, and nothing else."""
    print(json.dumps(record, indent=2))


def show_predict(done: Classified | Detected | Segmented) -> None:
    """Prints what was predicted in sum."""
    show_notes(done.notes)
    if done.rows:
        show_table(done.header, done.rows)
    else:
        print(f"no {done.header[-1]}")
    show_bad(done.bad)
    where = escaped(str(done.path))
    images = counted(done.images, "image")
    print(f"wrote predictions of {images} to {where}, {len(done.bad)} left out")
    if done.sheet:
        what = "pictures" if done.sheet.is_dir() else "contact sheet"
        print(f"{what}: {escaped(str(done.sheet))}")


def show_reconstruct(paths: list[Path]) -> None:
    """Says where the pictures are."""
    for path in paths:
        print(escaped(str(path)))


def show_embed(written: Embedded) -> None:
    """Says what was written."""
    show_notes(written.notes)
    show_bad(written.bad)
    where, images = escaped(str(written.path)), counted(written.images, "image")
    print(f"wrote features of {images} to {where}, {len(written.bad)} left out")


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


def show_bad(bad: Sequence[BadImage]) -> None:
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
