"""YOLO's format: a text file for each image, with a line for each object.

A line is a class, counted from 0, and a box (its centre and extent) or the corners of an outline, as
shares of the image's width and height. What is read: text files beside their images, or in folders
`labels` in place of `images`; train, val and test as `yolo_lists` or the folders' names say.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unmask.core.spec import Size
from unmask.data.annotated import AnnotatedParts
from unmask.data.annotations import LEFT_OUT, Annotations, size_of
from unmask.data.findings import Finding, Tally, found
from unmask.data.instances import Detections
from unmask.data.masks import Mask, Polygons, extent_of
from unmask.data.records import TEST, TRAINING, VALIDATION, part_named
from unmask.data.sources.folder import images_below
from unmask.data.sources.source import BoxSource, Options
from unmask.data.sources.yolo_lists import (
    Listed,
    Places,
    lines_of,
    list_in,
    lists_in,
    names_classes,
    read_list,
)
from unmask.errors import DataError
from unmask.storage import start_of

IMAGES, LABELS = "images", "labels"
PARTS = (TRAINING, VALIDATION, TEST)
BOX, BOX_WITH_CONFIDENCE, LEAST_OUTLINE = 5, 6, 7
"""Values on a line."""
MOST = 2.0
"""A share of the image's size is at most that: larger ones are pixels, or something else."""
SNIFFED = 4096
LONGEST_LINE = 2**22
"""Characters: an outline of 100,000 corners has half of them."""


class _Object(NamedTuple):
    label: int
    box: tuple[float, float, float, float]
    mask: Mask | None


@dataclass
class _Odd:
    """Lines that are read otherwise, or not at all."""

    unreadable: Tally = field(default_factory=Tally)
    confident: Tally = field(default_factory=Tally)

    def findings(self) -> list[Finding]:
        what = "lines that are neither a box nor an outline, in shares of the image's size"
        return [
            *self.unreadable.findings(what, LEFT_OUT),
            *self.confident.findings("boxes with a confidence, as a model writes them", "read as boxes"),
        ]


def _matches(word: str) -> bool:
    """A .yaml that names classes; or a folder with such a list and a label of an image."""
    if not os.path.isdir(word):
        return os.path.isfile(word) and names_classes(word)
    if not lists_in(word):
        return False
    labels = (_label_file(image, word) for image in images_below(word))
    return any(_is_of_labels(file) for file in labels if file is not None)


def _read(word: str, options: Options) -> AnnotatedParts[Detections]:
    file = list_in(word) if os.path.isdir(word) else word
    listed = read_list(file)
    here = word if os.path.isdir(word) else os.path.dirname(word) or "."
    root = os.path.join(here, listed.path)
    places = Places((here, root) if os.path.isdir(word) else (root, here))
    images, unlisted = _images_by_part(here, listed, places)
    parts, odd, all_findings = dict[str, Detections](), _Odd(), []
    for part in (part for part in PARTS if images[part]):
        collected = Annotations(word)
        for number, image in enumerate(images[part], 1):
            _add(collected, image, here, number, listed, odd)
        ids = range(1, len(listed.names) + 1)
        parts[part] = collected.finished(Path(here).resolve().stem, listed.names, ids)
        all_findings.append(collected.findings)
    of_lists = [
        *places.missing.findings(f"places that {file} names and that are not there", LEFT_OUT),
        *found(f"images of no part that {file} names", LEFT_OUT, unlisted),
    ]
    return AnnotatedParts.of(parts, [of_lists, odd.findings(), *all_findings])


def _images_by_part(
    folder: str, listed: Listed, places: Places
) -> tuple[dict[str, list[str]], list[str]]:
    """The images as the list or else the folders' names divide them; then those that the list does not.

    An image of two parts is for training.
    """
    images: dict[str, list[str]] = {part: [] for part in PARTS}
    if not listed.parts:
        for image in images_below(folder):
            inside = Path(os.path.relpath(image, folder)).parent.parts
            images[part_named(*inside) or TRAINING].append(image)
        return images, []
    seen = set[str]()
    for part in PARTS:
        for image in places.images(listed, part):
            if (path := os.path.realpath(image)) not in seen:
                seen.add(path)
                images[part].append(image)
    return images, [image for image in images_below(folder) if os.path.realpath(image) not in seen]


def _add(
    collected: Annotations, image: str, folder: str, number: int, listed: Listed, odd: _Odd
) -> None:
    labels = _label_file(image, folder)
    size = None if labels is None else size_of(image)
    collected.add_image(image, image, size, number)
    if labels is None or size is None:  # a broken image: training skips and lists it
        return
    for line, text in enumerate(lines_of(labels), 1):
        words = text.split() if len(text) <= LONGEST_LINE else ["too long"]
        one = _object(words, size, listed.has_keypoints) if words else None
        if one is None:
            if words:
                odd.unreadable.add(f"{labels}, line {line}")
            continue
        if len(words) == BOX_WITH_CONFIDENCE:
            odd.confident.add(labels)
        if one.label >= len(listed.names):
            raise DataError(
                f"{labels}, line {line}, has the class {one.label}, and {listed.file} names "
                f"{len(listed.names)} from 0: add its name there"
            )
        collected.add_object(image, one.box, one.label, crowd=False, mask=one.mask)


def _is_of_labels(file: str) -> bool:
    """Whether its first line could be an object's."""
    try:
        line = start_of(Path(file), SNIFFED).decode("utf-8-sig", errors="replace").partition("\n")[0]
    except OSError:
        return False
    return _object(line.split(), (1, 1), has_keypoints=True) is not None


def _label_file(image: str, folder: str) -> str | None:
    """In `labels` for the last `images` of the path, or beside the image; None without one."""
    beside = os.path.splitext(image)[0] + ".txt"
    inside = os.path.relpath(beside, folder)
    start, path = ("", beside) if inside.startswith(os.pardir) else (folder, inside)
    steps = list(Path(path).parts)
    places = [beside]
    if IMAGES in steps[:-1]:
        last = len(steps) - 1 - steps[::-1].index(IMAGES)
        places.insert(0, os.path.join(start, *steps[:last], LABELS, *steps[last + 1 :]))
    return next((place for place in places if os.path.isfile(place)), None)


def _object(words: list[str], size: Size, has_keypoints: bool) -> _Object | None:
    """None if the line is neither a box nor an outline."""
    try:
        label, *values = map(float, words)
    except ValueError:
        return None
    if not label.is_integer() or label < 0:
        return None
    is_box = has_keypoints or len(words) in (BOX, BOX_WITH_CONFIDENCE)
    shares = np.array(values[: BOX - 1] if is_box else values, dtype=np.float64)
    if len(shares) < BOX - 1 or not (np.abs(shares) <= MOST).all():
        return None
    extent = np.array([size[1], size[0]], dtype=np.float64)
    if is_box:
        centre, half = shares[:2] * extent, shares[2:] * extent / 2
        left, top = (centre - half).tolist()
        right, bottom = (centre + half).tolist()
        return _Object(int(label), (left, top, right, bottom), None)
    if len(words) < LEAST_OUTLINE or len(shares) % 2:
        return None
    mask = Polygons(rings=((shares.reshape(-1, 2) * extent).astype(np.float32),))
    return _Object(int(label), extent_of(mask), mask)


SOURCE = BoxSource(matches=_matches, read=_read)
