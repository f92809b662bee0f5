"""Lists of image files: .txt, .csv and .jsonl."""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unmask.errors import DataError

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
PATH_COLUMNS = ("path", "image_path", "file", "file_name", "filename", "image")
"""What a column of paths may be called."""


def paths_in_list(file: str) -> list[str]:
    """The paths that a list names, in its order; relative ones start at the list's own folder.

    A .txt file has one path per line; .csv, .tsv and .jsonl have a column of paths.
    Raises DataError where there is none.
    """
    folder = os.path.dirname(file)
    if Path(file).suffix.lower() == ".txt":
        return [os.path.join(folder, line) for line in _lines(file) if line.strip()]
    return [os.path.join(folder, str(row[path_column(file, row)])) for row in rows_of(file)]


def rows_of(file: str) -> Iterator[dict[str, Any]]:
    """The rows of a .csv, .tsv or .jsonl file by the names of their columns."""
    suffix = Path(file).suffix.lower()
    if suffix == ".jsonl":
        yield from _json_rows(file)
        return
    delimiter = "\t" if suffix == ".tsv" else ","
    lines = io.StringIO(_text(file), newline="")  # a quoted field may hold ends of lines
    try:
        for number, row in enumerate(csv.DictReader(lines, delimiter=delimiter), 2):
            if None in row or None in row.values():
                raise DataError(
                    f"{file}, row {number}, has not as many columns as its first row: mend it"
                )
            yield row
    except csv.Error as error:
        raise DataError(f"{file} cannot be read as {suffix} ({error}): close its quotes") from error


def path_column(file: str, row: dict[str, Any]) -> str:
    """The name of the column that holds paths."""
    for name in PATH_COLUMNS:
        if name in row:
            return name
    raise DataError(
        f"{file} has no column of paths among {', '.join(map(str, row)) or 'its columns'}: call one of "
        f"them {PATH_COLUMNS[0]}"
    )


def _json_rows(file: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{file}, line {number}, is not JSON ({error}): mend it") from error
        if not isinstance(row, dict):
            raise DataError(f'{file}, line {number}, is no object: write {{"path": "..."}} per line')
        yield row


def _lines(file: str) -> list[str]:
    """Ended by line feeds alone: a name may hold what else Unicode calls an end of line."""
    return [line.removesuffix("\r") for line in _text(file).split("\n")]


def _text(file: str) -> str:
    try:
        return Path(file).read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"the list {file} cannot be read: {error.strerror}") from error
