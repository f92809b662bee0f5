"""Lists of image files, with labels or without: .txt, .csv, .tsv and .jsonl."""

import codecs
import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.records import (
    PART_NAMES,
    TEST,
    TRAINING,
    VALIDATION,
    Named,
    Parts,
    class_name,
    refuse_contradictions,
    some,
)
from unmask.data.sources.source import Options, Source
from unmask.errors import DataError
from unmask.storage import LARGE_FILE, SMALL_FILE, from_json, open_text, read_regular, start_of

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
PATH_COLUMNS = ("path", "image_path", "file", "file_name", "filename", "image")
"""What a column of paths may be called."""
SPLIT_COLUMN = "split"
DELIMITERS = (",", ";", "\t")
LONGEST_LINE = 2**22
"""Characters of a row."""
SPACES = " \t\u00a0"
"""What people leave around the cells of a table by accident; the last is the no-break space."""


def paths_in_list(file: str) -> Iterator[str]:
    """The paths that a list names, in its order; relative ones start at the list's own folder.

    A .txt file has one path per line, unless it is a table; .csv, .tsv and .jsonl have a column of
    paths. Raises DataError if there is none.
    """
    folder = os.path.dirname(file)
    if _has_a_path_per_line(file):
        return (os.path.join(folder, line) for line in _lines(file) if line.strip())
    return (os.path.join(folder, path_in(file, row)) for row in rows_of(file))


def rows_of(file: str, known: Sequence[str] = PATH_COLUMNS) -> Iterator[dict[str, Any]]:
    """The rows of a .csv, .tsv or .jsonl file by the names of their columns.

    Of a table: columns may be parted by commas, semicolons or tabs, as its first row shows by one of
    the `known` names; spaces around names and rows without content are left out.
    """
    suffix = Path(file).suffix.lower()
    if suffix == ".jsonl":
        yield from _json_rows(file)
        return
    try:
        lines = _ended_lines(file, newline="")
        first = next(lines, "")
        if declared := re.match(r"sep=(.)\r?\n", first):  # in which Excel says so
            delimiter, first = declared[1], next(lines, "")
        else:
            delimiter = _delimiter(first, "," if suffix == ".csv" else "\t", known)
        rows = csv.reader(chain([first], lines), delimiter=delimiter)  # a field may hold ends of lines
        names = [name.strip(SPACES) for name in next(rows, [])]
        for number, cells in enumerate(rows, 2):
            if not any(cell.strip(SPACES) for cell in cells):
                continue
            if len(cells) < len(names) or any(cells[len(names) :]):
                raise DataError(
                    f"{file}, row {number}, has not as many columns as its first row: correct it"
                )
            yield dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise DataError(f"{file} cannot be read as {suffix} ({error}): close its quotes") from error


def _delimiter(first: str, usual: str, known: Sequence[str]) -> str:
    """The character between columns: the one by which the first row has a column of a known name."""
    for delimiter in (usual, *DELIMITERS):
        names = next(csv.reader([first.rstrip("\r\n")], delimiter=delimiter), [])
        if first_column(dict.fromkeys(name.strip(SPACES) for name in names), known):
            return delimiter
    return usual


def _has_a_path_per_line(file: str) -> bool:
    """Lines of a .txt file; spreadsheets give tables with tabs that suffix as well."""
    if Path(file).suffix.lower() != ".txt":
        return False
    names = next(_lines(file), "").split("\t")
    return len(names) == 1 or not first_column({n.strip(SPACES): "" for n in names}, PATH_COLUMNS)


def column(row: Mapping[str, Any], wanted: str) -> str | None:
    """The name of a column as the row has it, in any case of its letters; None if there is none."""
    if wanted in row:
        return wanted
    return next((name for name in row if name.casefold() == wanted.casefold()), None)


def first_column(row: Mapping[str, Any], known: Sequence[str]) -> str | None:
    """The row's name for the first of the known columns that it has; None if it has none of them."""
    return next((found for each in known if (found := column(row, each)) is not None), None)


def path_in(file: str, row: Mapping[str, Any]) -> str:
    """The path in a row of a list, without spaces around it unless the file's own name has them.

    Raises DataError if the list has no column of paths.
    """
    name = first_column(row, PATH_COLUMNS)
    if name is None:
        raise DataError(
            f"{file} has no column of paths among {', '.join(map(str, row)) or 'its columns'}: call one "
            f"of them {PATH_COLUMNS[0]}"
        )
    path = str(row[name])
    bare = path.strip(SPACES)
    if not bare:
        raise DataError(f"{file} has a row without a path: write one, or remove the row")
    as_written = bare != path and os.path.exists(os.path.join(os.path.dirname(file), path))
    return path if as_written else bare


def _json_rows(file: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            row = from_json(line)
        except ValueError as error:
            raise DataError(f"{file}, line {number}, is not JSON ({error}): correct it") from error
        if not isinstance(row, dict):
            raise DataError(f'{file}, line {number}, is no object: write {{"path": "..."}} per line')
        yield row


def _lines(file: str) -> Iterator[str]:
    """Ended by line feeds alone: a name may hold what else Unicode calls an end of line."""
    return (line.removesuffix("\n").removesuffix("\r") for line in _ended_lines(file, newline="\n"))


def _ended_lines(file: str, newline: str) -> Iterator[str]:
    """One at a time, ended as `open` says.

    They are UTF-8, or UTF-16 if the first bytes say so, as spreadsheets write it.
    """
    try:
        start = start_of(Path(file), 2)
        wide = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding, errors = ("utf-16", "strict") if wide else ("utf-8-sig", "surrogateescape")
        with open_text(Path(file), LARGE_FILE, encoding, errors, newline) as text:
            while line := text.readline(LONGEST_LINE + 1):
                if len(line) > LONGEST_LINE:
                    raise DataError(f"the list {file} has a line of more than {LONGEST_LINE} characters")
                yield line
    except OSError as error:
        raise DataError(
            f"the list {file} cannot be read: {error.strerror}: correct or divide it"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"the list {file} is not whole UTF-16 ({error.reason}): save it as UTF-8"
        ) from error


def text_of(file: str, most: int = SMALL_FILE) -> str:
    """A short UTF-8 text as a whole, without its mark. Raises DataError if it cannot be read."""
    try:
        return read_regular(Path(file), most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} cannot be read ({error}): save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): get a fresh copy") from error


def no_labels(file: str) -> DataError:
    """The error for a file that names images, or is one, without their classes."""
    return DataError(
        f"{file} has no labels: give a folder with a folder per class, or a .csv, .tsv or .jsonl "
        f"with the columns path and label"
    )


class _Row(NamedTuple):
    """One image; `key` is its path within its source, `part` is train, val or test."""

    path: str
    label: str
    key: str
    part: str


def _matches(word: str) -> bool:
    return os.path.isfile(word) and word.lower().endswith(LIST_SUFFIXES)


def _images(word: str, options: Options) -> Images:
    return Images(Path(word).resolve().stem, PathList(paths_in_list(word)))


def _labelled(word: str, options: Options) -> Parts:
    """Rows are for training if there is no column split."""
    if _has_a_path_per_line(word):
        raise no_labels(word)
    rows = [_row(word, row, options.label_column) for row in rows_of(word)]
    if not rows:
        raise DataError(f"{word} has no rows: write one for each image below the names of the columns")
    rows, notes = _without_spaces(word, rows)
    name = Path(word).resolve().stem

    def part(which: str) -> Named:
        chosen = [row for row in rows if row.part == which]
        images = Images(name, PathList(row.path for row in chosen))
        return Named(images, [row.label for row in chosen], [row.key for row in chosen])

    parts = {which: part(which) for which in (TRAINING, VALIDATION, TEST)}
    refuse_contradictions(parts)
    validation, test = (parts[which] or None for which in (VALIDATION, TEST))
    return Parts(training=parts[TRAINING], validation=validation, test=test, notes=notes)


def _row(file: str, row: dict[str, Any], label_column: str) -> _Row:
    folder, path = os.path.dirname(file), path_in(file, row)
    labels = column(row, label_column)
    if labels is None:
        raise DataError(
            f"{file} has no column {label_column!r} among {', '.join(map(str, row))}: name that of the "
            f"labels with --data.label-column"
        )
    label = class_name(row[labels])
    if label is None:
        raise DataError(
            f"{path!r} in {file} has no class in the column {labels} but {row[labels]!r}: write one, or "
            f"remove the row"
        )
    splits = column(row, SPLIT_COLUMN)
    part = TRAINING if splits is None else PART_NAMES.get(str(row[splits]).strip().lower())
    if part is None:
        raise DataError(
            f"{path!r} in {file} has the split {row[splits or SPLIT_COLUMN]!r}: write {TRAINING}, "
            f"{VALIDATION} or {TEST}, or remove the column"
        )
    key = path.removeprefix(os.path.join(os.path.abspath(folder), ""))
    return _Row(os.path.join(folder, path), label, key, part)


def _without_spaces(file: str, rows: list[_Row]) -> tuple[list[_Row], tuple[str, ...]]:
    """The rows without spaces around their classes, and a note if that made several into one."""
    bare = {label: label.strip(SPACES) for label in {row.label for row in rows}}
    times = Counter(bare.values())
    merged = sorted(label for label in times if times[label] > 1)
    note = f"classes in {file} that differ only in spaces around them are one class: {some(merged)}"
    return [row._replace(label=bare[row.label]) for row in rows], (note,) if merged else ()


SOURCE = Source(matches=_matches, images=_images, labelled=_labelled, alone=False)
