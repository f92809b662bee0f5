"""Files that list the classes of label maps, with colours or without."""

import os
import re
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from unmask.data.sources.lists import SPACES, column, first_column, rows_of, text_of
from unmask.errors import DataError

USUAL = (
    *(
        "classes.txt",
        "class_names.txt",
        "labels.txt",
        "labelmap.txt",
        "classes.csv",
        "class_dict.csv",
        "palette.csv",
        "_classes.csv",
    ),
    "objectInfo150.txt",
)
"""What a list of classes beside the maps may be called; the last two are Roboflow's and ADE20K's."""
MOST_TEXT = 2**24
"""Bytes: a million classes take fewer."""
BACKGROUND = "background"
NAME_COLUMNS = ("name", "class", "label")
VALUE_COLUMNS = ("value", "pixel value")
COLOURS = ("r", "g", "b"), ("red", "green", "blue")


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """Classes in the order of their labels."""

    names: tuple[str, ...]
    palette: np.ndarray | None = None
    """uint8 [K, 3]: their colours, by which maps in colour show them."""
    values: tuple[int, ...] | None = None
    """Their values in maps, between which others are ignored. Default: one after the other."""
    source: str = ""
    """The published data set whose classes they are."""


def class_list_in(*folders: str) -> ClassList | None:
    """The list beside the maps, in the first of the folders that has one; None if none has."""
    files = (os.path.join(folder, name) for folder in folders for name in USUAL)
    file = next((file for file in files if os.path.isfile(file)), None)
    return None if file is None else class_list(file)


def class_list(file: str) -> ClassList:
    """Reads a name per line, or ADE20K's objectInfo150.txt, or a table of names and optionally colours.

    Raises DataError if it cannot be read, is empty, or lists a name or a colour twice.
    """
    if file.lower().endswith((".csv", ".tsv", ".jsonl")):
        listed = _table(file)
    else:
        listed = _listed(file, _lines(file))
    if not listed.names:
        raise DataError(f"{file} lists no classes: write a name on each line")
    twice = [name for i, name in enumerate(listed.names) if name in listed.names[:i]]
    if twice:
        raise DataError(f"{file} lists the class {twice[0]!r} twice: remove one")
    if listed.palette is not None and len(np.unique(listed.palette, axis=0)) < len(listed.names):
        raise DataError(f"two classes in {file} have the same colour: give each its own")
    return listed


def _lines(file: str) -> list[str]:
    """Those that are not empty."""
    lines = text_of(file, MOST_TEXT).splitlines()
    return [line.strip(SPACES) for line in lines if line.strip(SPACES)]


def _listed(file: str, lines: list[str]) -> ClassList:
    """From ADE20K's table, or lines as CVAT writes them, 'name:r,g,b:parts:actions', or plain names."""
    if lines and re.match(r"Idx\tRatio\tTrain\tVal\t", lines[0]):
        return ClassList(names=tuple(line.split("\t")[4].split(",")[0].strip() for line in lines[1:]))
    if lines and lines[0].startswith("# label:color_rgb"):
        rows = [line.rsplit(":", 3) for line in lines[1:]]
        if any(len(row) != 4 for row in rows):
            raise DataError(f"{file} has a line that is not name:r,g,b:parts:actions: export it again")
        colours = [row[1].split(",") for row in rows]
        return ClassList(names=tuple(row[0] for row in rows), palette=_colours(file, colours))
    return ClassList(names=tuple(line for line in lines if line != "__ignore__"))  # labelme's no class


def _table(file: str) -> ClassList:
    """In the order of the column of values, if there is one."""
    rows = list(rows_of(file, (*NAME_COLUMNS, *VALUE_COLUMNS)))
    by_value = first_column(rows[0], VALUE_COLUMNS) if rows else None
    values = None if by_value is None else _values(file, [row[by_value] for row in rows])
    if values:
        values, rows = zip(*sorted(zip(values, rows, strict=True), key=itemgetter(0)), strict=True)
    names, colours = [], []
    for row in rows:
        by = first_column(row, NAME_COLUMNS)
        if by is None:
            raise DataError(
                f"{file} has no column {NAME_COLUMNS[0]} among {', '.join(map(str, row))}: call that of "
                f"the classes so"
            )
        names.append(str(row[by]).strip(SPACES))
        channels = next((c for c in COLOURS if all(column(row, each) for each in c)), None)
        if channels is not None:
            colours.append([row[column(row, each) or each] for each in channels])
    palette = _colours(file, colours) if colours else None
    return ClassList(names=tuple(names), palette=palette, values=values)


def _values(file: str, cells: list[Any]) -> tuple[int, ...]:
    """Raises DataError if one is no value of a label map, or is there twice."""
    try:
        values = tuple(int(cell) for cell in cells)
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{file} has a value that is no integer ({error}): correct it") from error
    if min(values) < 0 or len(set(values)) < len(values):
        raise DataError(f"{file} has a value below 0, or one twice: give each class its own")
    return values


def _colours(file: str, rows: list[list[Any]]) -> np.ndarray:
    """uint8 [K, 3]; raises DataError if one of them is no colour."""
    try:
        palette = np.array(rows, dtype=np.int64).reshape(-1, 3)
        if not ((palette >= 0) & (palette <= 255)).all():
            raise ValueError("a value is not between 0 and 255")
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{file} has a colour that is none ({error}): write r, g and b") from error
    return palette.astype(np.uint8)


def with_background(names: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """The classes, 'background' put before them unless one is called so, and the background's place."""
    known = next((i for i, name in enumerate(names) if name.strip("_") == BACKGROUND), None)
    return (names, known) if known is not None else ((BACKGROUND, *names), 0)
