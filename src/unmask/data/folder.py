"""Finds image files in nested folders."""

import os
from collections.abc import Iterator

from unmask.data.files import SUFFIXES
from unmask.errors import DataError


def images_below(folder: str) -> Iterator[str]:
    """Every image file in or below a folder, hidden ones left out; raises DataError."""
    return _walk(folder, seen=set())


def _walk(folder: str, seen: set[str]) -> Iterator[str]:
    """Follows links, but enters no folder twice."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be read ({error.strerror}): change its permissions, or "
            f"leave it out"
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, seen)
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry.path
