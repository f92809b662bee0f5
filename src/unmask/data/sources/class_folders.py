"""Folders of images at any depth, also in a folder for each class, or below train and val."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unmask.data.decode.files import SUFFIXES
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.records import PART_NAMES, TEST, TRAINING, VALIDATION, Named, Parts, some
from unmask.data.sources.folder import images_below
from unmask.data.sources.source import Options, Source
from unmask.errors import DataError


class _Row(NamedTuple):
    """One image; `key` is its path within its part of the folder."""

    path: str
    label: str
    key: str
    part: str


def _images(word: str, options: Options) -> Images:
    return Images(Path(word).resolve().stem, images_below(word))


def _labelled(word: str, options: Options) -> Parts:
    """The class of an image is the folder, directly below the source or its part, that holds it."""
    rows, notes = _rows(word)
    name = Path(word).resolve().stem

    def part(which: str) -> Named:
        chosen = [row for row in rows if row.part == which]
        images = Images(name, PathList(row.path for row in chosen))
        return Named(images, [row.label for row in chosen], [row.key for row in chosen])

    validation, test = (part(which) or None for which in (VALIDATION, TEST))
    return Parts(training=part(TRAINING), validation=validation, test=test, notes=tuple(notes))


def _rows(folder: str) -> tuple[list[_Row], list[str]]:
    """The images in folders of classes, and sentences on what is left out."""
    paths = images_below(folder)
    if not paths:
        raise DataError(f"no images in {folder}: sought {' '.join(SUFFIXES)} at any depth")
    inside = len(os.path.join(folder, ""))
    parts = _parts_among(
        {path[inside:].partition(os.sep)[0] for path in paths if os.sep in path[inside:]}
    )
    rows, loose = list[_Row](), 0
    for path in paths:
        key, part = path[inside:], TRAINING
        if parts:
            top, _, key = key.partition(os.sep)
            if top not in parts:
                continue
            part = parts[top]
        label, below, _ = key.partition(os.sep)
        if below:
            rows.append(_Row(path, sys.intern(label), key, part))
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
    """Which folder is which part of the data; none if they are classes.

    A class may be called train. It is a part if there is one to validate on, or nothing beside it.
    """
    parts = {name: PART_NAMES[name.lower()] for name in folders if name.lower() in PART_NAMES}
    kinds = set(parts.values())
    return parts if TRAINING in kinds and (len(kinds) > 1 or len(folders) == 1) else {}


def _folders_left_out(folder: str, parts: dict[str, str], rows: list[_Row]) -> Iterator[str]:
    if parts and (others := _folders_in(folder) - set(parts)):
        yield f"folders of {folder} that are no part of it are left out: {some(sorted(others))}"
    for name, part in parts.items() or [("", TRAINING)]:
        place = os.path.join(folder, name)
        if empty := _folders_in(place) - {row.label for row in rows if row.part == part}:
            yield f"folders of {place} without images are left out: {some(sorted(empty))}"


def _folders_in(folder: str) -> set[str]:
    return {e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith(".")}


SOURCE = Source(matches=os.path.isdir, images=_images, labelled=_labelled, alone=False)
