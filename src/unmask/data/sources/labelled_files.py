"""Labelled files: folders with a folder per class, and lists with a column of labels."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from unmask.data.decode.files import SUFFIXES
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.sources.find import check_it_exists
from unmask.data.sources.folder import images_below
from unmask.data.sources.lists import LIST_SUFFIXES, path_column, rows_of
from unmask.data.sources.named import Named, Parts, class_name, in_order, some
from unmask.errors import DataError

TRAINING, VALIDATION, TEST = "train", "val", "test"
PART_NAMES = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""What a folder, or the column split of a list, calls a part of the data, in any letters' case."""
SPLIT_COLUMN = "split"


class Row(NamedTuple):
    """One image; `key` is its path within its source, `part` is None where the source has none."""

    path: str
    label: str
    key: str
    part: str | None


def labelled_files(sources: tuple[str, ...], label_column: str) -> Parts:
    """The images of folders and lists, with their labels.

    Where there is no part for validation, the one for testing is taken. What belongs to no part is
    for training.
    """
    rows, notes = list[Row](), list[str]()
    for source in sources:
        check_it_exists(source)
        if os.path.isdir(source):
            found, said = _folder(source)
            notes.extend(said)
        else:
            found = _list(source, label_column)
        rows.extend(found)
    folders = all(map(os.path.isdir, sources))
    if not folders:
        _refuse_contradictions(rows)
    name = "-".join(Path(source).resolve().stem for source in sources)

    def part(*parts: str | None) -> Named:
        chosen = [row for row in rows if row.part in parts]
        names = [row.label for row in chosen]
        paths = PathList(row.path for row in chosen)
        classes = in_order(names) if folders else None
        return Named(Images(name, paths), names, [row.key for row in chosen], classes)

    training, validation, test = part(TRAINING, None), part(VALIDATION), part(TEST)
    if len(validation) and len(test):
        notes.append(f"{len(test)} images of the test part are left out")
    elif len(test):
        notes.append(f"{len(test)} images of the test part are for validation")
    validation = validation if len(validation) else test
    return Parts(training, validation if len(validation) else None, tuple(notes))


def _folder(folder: str) -> tuple[list[Row], list[str]]:
    """Images at any depth below folders that are called by their class, perhaps below train and val.

    Also sentences on what is left out.
    """
    paths = images_below(folder)
    if not paths:
        raise DataError(f"no images in {folder}: sought {' '.join(SUFFIXES)} at any depth")
    inside = len(os.path.join(folder, ""))
    parts = _parts_among(
        {path[inside:].partition(os.sep)[0] for path in paths if os.sep in path[inside:]}
    )
    rows, loose = list[Row](), 0
    for path in paths:
        key, part = path[inside:], None
        if parts:
            top, _, key = key.partition(os.sep)
            if top not in parts:
                continue
            part = parts[top]
        label, below, _ = key.partition(os.sep)
        if below:
            rows.append(Row(path, sys.intern(label), key, part))
        loose += not below
    if not rows:
        raise DataError(
            f"{folder} has no folder for each class: put the images of each class into a folder of its "
            f"name, or give a .csv with the columns path and label"
        )
    left_out = [*_folders_left_out(folder, parts, rows)]
    if loose:
        left_out.append(f"{loose} images of {folder} are left out: they are in no folder of a class")
    return rows, left_out


def _parts_among(folders: set[str]) -> dict[str, str]:
    """Which folder is which part of the data; none where they are classes.

    A class may be called train. It is a part if there is one to validate on, or nothing beside it.
    """
    parts = {name: PART_NAMES[name.lower()] for name in folders if name.lower() in PART_NAMES}
    kinds = set(parts.values())
    return parts if TRAINING in kinds and (len(kinds) > 1 or len(folders) == 1) else {}


def _folders_left_out(folder: str, parts: dict[str, str], rows: list[Row]) -> Iterator[str]:
    if parts and (others := _folders_in(folder) - set(parts)):
        yield f"folders of {folder} that are no part of it are left out: {some(sorted(others))}"
    for name, part in parts.items() or [("", None)]:
        place = os.path.join(folder, name)
        if empty := _folders_in(place) - {row.label for row in rows if row.part == part}:
            yield f"folders of {place} without images are left out: {some(sorted(empty))}"


def _folders_in(folder: str) -> set[str]:
    return {e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith(".")}


def _list(file: str, label_column: str) -> list[Row]:
    if not file.lower().endswith(LIST_SUFFIXES) or file.lower().endswith(".txt"):
        raise DataError(
            f"{file} has no labels: give a folder with a folder per class, or a .csv, .tsv or .jsonl "
            f"with the columns path and label"
        )
    rows = [_row(file, row, label_column) for row in rows_of(file)]
    if not rows:
        raise DataError(f"{file} has no rows: write one for each image below the names of the columns")
    return rows


def _row(file: str, row: dict[str, Any], label_column: str) -> Row:
    folder, path = os.path.dirname(file), str(row[path_column(file, row)])
    if label_column not in row:
        raise DataError(
            f"{file} has no column {label_column!r} among {', '.join(map(str, row))}: name that of the "
            f"labels with --data.label-column"
        )
    label = class_name(row[label_column])
    if label is None:
        raise DataError(
            f"{path!r} in {file} has no class in the column {label_column} but {row[label_column]!r}: "
            f"write one, or remove the row"
        )
    part = None
    if SPLIT_COLUMN in row:
        part = PART_NAMES.get(str(row[SPLIT_COLUMN]).strip().lower())
        if part is None:
            raise DataError(
                f"{path!r} in {file} has the split {row[SPLIT_COLUMN]!r}: write {TRAINING}, "
                f"{VALIDATION} or {TEST}, or remove the column"
            )
    key = path.removeprefix(os.path.join(os.path.abspath(folder), ""))
    return Row(os.path.join(folder, path), label, key, part)


def _refuse_contradictions(rows: Iterable[Row]) -> None:
    """An image may be named twice, but not with two labels or in two parts."""
    seen: dict[str, Row] = {}
    for row in rows:
        other = seen.setdefault(row.path, row)
        for mine, its in ((row.label, other.label), (row.part, other.part)):
            if mine != its:
                raise DataError(f"{row.path} stands twice, as {its!r} and {mine!r}: keep one of them")
