"""Boxes in a table: a row for each object with path, xmin, ymin, xmax, ymax and label.

Like lists of labelled images it may be what a spreadsheet writes, and have a column split. A row whose
cells are empty but for the path is an image without objects.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from unmask.data.annotated import AnnotatedParts
from unmask.data.annotations import Annotations
from unmask.data.instances import Detections
from unmask.data.records import PART_NAMES, TEST, TRAINING, VALIDATION, class_name, in_order
from unmask.data.sources.lists import LIST_SUFFIXES, SPACES, SPLIT_COLUMN, column, path_in, rows_of
from unmask.data.sources.source import BoxSource, Options
from unmask.errors import DataError

EDGES = ("xmin", "ymin", "xmax", "ymax")


class _Row(NamedTuple):
    path: str
    part: str
    label: str | None
    """None for an image without objects."""
    box: tuple[float, ...]


def _matches(word: str) -> bool:
    if not (word.lower().endswith(LIST_SUFFIXES) and os.path.isfile(word)) or word.endswith(".txt"):
        return False
    first = next(rows_of(word), {})
    return all(column(first, edge) is not None for edge in EDGES)


def _read(word: str, options: Options) -> AnnotatedParts[Detections]:
    """The classes are those of all parts, sorted; integers by their value."""
    rows = [_row(word, number, row, options.label_column) for number, row in enumerate(rows_of(word), 2)]
    classes = in_order(row.label for row in rows if row.label is not None)
    places = {name: i for i, name in enumerate(classes)}
    parts, all_findings = {}, []
    for part in (TRAINING, VALIDATION, TEST):
        chosen = [row for row in rows if row.part == part]
        if not chosen:
            continue
        collected = Annotations(word)
        for number, path in enumerate(dict.fromkeys(row.path for row in chosen), 1):
            collected.add_image(path, path, None, number)
        for row in chosen:
            if row.label is not None:
                collected.add_object(row.path, row.box, places[row.label], crowd=False, mask=None)
        ids = range(1, len(classes) + 1)
        parts[part] = collected.finished(Path(word).resolve().stem, classes, ids)
        all_findings.append(collected.findings)
    return AnnotatedParts.of(parts, all_findings)


def _row(file: str, number: int, row: dict[str, Any], label_column: str) -> _Row:
    path, part = os.path.join(os.path.dirname(file), path_in(file, row)), TRAINING
    splits = column(row, SPLIT_COLUMN)
    if splits is not None:
        part = PART_NAMES.get(str(row[splits]).strip().lower(), "")
        if not part:
            raise DataError(
                f"{file}, row {number}, has the split {row[splits]!r}: write {TRAINING}, {VALIDATION} "
                f"or {TEST}, or remove the column"
            )
    cells = [_cell(row, edge) for edge in EDGES]
    if not any(cells):
        return _Row(path, part, None, ())
    labels = column(row, label_column)
    if labels is None:
        raise DataError(
            f"{file} has no column {label_column!r} among {', '.join(map(str, row))}: name that of the "
            f"classes with --data.label-column"
        )
    label = class_name(row[labels])
    if label is None:
        raise DataError(f"{file}, row {number}, has a box and no class: write one, or remove the row")
    try:
        box = tuple(map(float, cells))
    except ValueError as error:
        raise DataError(
            f"{file}, row {number}, has no box ({error}): write {', '.join(EDGES)} in pixels"
        ) from error
    return _Row(path, part, label.strip(SPACES), box)


def _cell(row: dict[str, Any], name: str) -> str:
    found = column(row, name)
    value = None if found is None else row[found]
    return "" if value is None else str(value).strip(SPACES)


SOURCE = BoxSource(matches=_matches, read=_read)
