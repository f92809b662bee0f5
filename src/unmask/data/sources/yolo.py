"""YOLO's format: a text file for each image, with a line for each object.

A line is a class, counted from 0, and a box (its centre and extent) or the corners of an outline, as
shares of the image's width and height. What is read: text files beside their images, or in folders
`labels` in place of `images`; train, val and test as data.yaml or the folders' names say. The names of
the classes stand in data.yaml, classes.txt or obj.names.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from unmask.core.spec import Size
from unmask.data.annotated import AnnotatedParts
from unmask.data.annotations import LEFT_OUT, Annotations
from unmask.data.decode.files import open_file
from unmask.data.findings import Finding, found
from unmask.data.instances import Detections
from unmask.data.masks import Mask, Polygons, extent_of
from unmask.data.paths import files_below
from unmask.data.records import PART_NAMES, TEST, TRAINING, VALIDATION, part_named
from unmask.data.sources.class_lists import class_list
from unmask.data.sources.folder import images_below
from unmask.data.sources.source import BoxSource, Options
from unmask.errors import DataError
from unmask.storage import read_regular, start_of

YAML = (".yaml", ".yml")
NAMES = ("classes.txt", "obj.names")
"""Lists of classes, as labelImg, Label Studio and CVAT write them."""
IMAGES, LABELS = "images", "labels"
SNIFFED = 4096
PARTS = (TRAINING, VALIDATION, TEST)
BOX, BOX_WITH_CONFIDENCE, LEAST_OUTLINE = 5, 6, 7
"""Values on a line."""


class _Object(NamedTuple):
    label: int
    box: tuple[float, float, float, float]
    mask: Mask | None


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """What data.yaml, or a list of classes, says."""

    file: str
    folder: str
    """Where the images lie."""
    names: tuple[str, ...]
    of_parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Folders of images, or lists of images, of each part."""
    has_keypoints: bool = False


@dataclass
class _Odd:
    """Lines that are read otherwise, or not at all."""

    unreadable: list[str] = field(default_factory=list)
    confident: list[str] = field(default_factory=list)

    def findings(self) -> list[Finding]:
        return [
            *found("lines that are neither a box nor an outline", LEFT_OUT, self.unreadable),
            *found("boxes with a confidence, as a model writes them", "read as boxes", self.confident),
        ]


def _matches(word: str) -> bool:
    if os.path.isfile(word):
        return _describes(word)
    if not os.path.isdir(word):
        return False
    if _list_in(word) is None:
        files = (file for folder in _label_folders(word) for file in files_below(folder, ".txt"))
    else:
        files = (file for image in images_below(word) if (file := _label_file(image)))
    return any(map(_is_of_labels, files))


def _read(word: str, options: Options) -> AnnotatedParts[Detections]:
    file = word if os.path.isfile(word) else _list_in(word)
    if file is None:
        raise DataError(
            f"{word} has labels in YOLO's format and no names of classes: write them into classes.txt "
            f"there, one on each line"
        )
    listed = _listed(file)
    folder = word if os.path.isdir(word) else listed.folder
    images, odd = _images_by_part(folder, listed), _Odd()
    parts, all_findings = dict[str, Detections](), []
    for part in (part for part in PARTS if images[part]):
        collected = Annotations(folder)
        for number, image in enumerate(images[part], 1):
            _add(collected, image, number, listed, odd)
        ids = range(1, len(listed.names) + 1)
        parts[part] = collected.finished(Path(folder).resolve().stem, listed.names, ids)
        all_findings.append(collected.findings)
    return AnnotatedParts.of(parts, [odd.findings(), *all_findings])


def _list_in(folder: str) -> str | None:
    """The file that names the classes: a .yaml with names, or else a list."""
    files = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    lists = (os.path.join(folder, name) for name in NAMES)
    return next(filter(_describes, files), None) or next(filter(os.path.isfile, lists), None)


def _describes(file: str) -> bool:
    if not file.lower().endswith(YAML):
        return False
    with suppress(DataError):  # a .yaml of somebody else
        return bool(_content(file).get("names"))
    return False


def _content(file: str) -> dict[Any, Any]:
    """What a .yaml holds; empty if that is no mapping. Raises DataError if it cannot be read."""
    try:
        content = yaml.safe_load(read_regular(Path(file)))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{file} cannot be read ({error}): correct it, or move it away") from error
    return content if isinstance(content, dict) and isinstance(content.get("names"), list | dict) else {}


def _listed(file: str) -> _Listed:
    """Raises DataError if it names no classes, or cannot be read."""
    here = os.path.dirname(file) or "."
    if not file.lower().endswith(YAML):
        return _Listed(file=file, folder=here, names=class_list(file).names)
    content = _content(file)
    root = os.path.join(here, str(content.get("path") or ""))
    return _Listed(
        file=file,
        folder=root if os.path.isdir(root) else here,
        names=_in_order(file, content["names"]),
        of_parts={
            part: _texts(value)
            for key, value in content.items()
            if (part := PART_NAMES.get(str(key).lower())) and value
        },
        has_keypoints="kpt_shape" in content,
    )


def _in_order(file: str, names: list[Any] | dict[Any, Any]) -> tuple[str, ...]:
    by_number = dict(enumerate(names)) if isinstance(names, list) else names
    if sorted(by_number, key=str) != sorted(range(len(by_number)), key=str):
        raise DataError(f"the names in {file} are not numbered 0, 1, 2 and so on: number them so")
    ordered = tuple(str(by_number[i]) for i in range(len(by_number)))
    twice = [name for i, name in enumerate(ordered) if name in ordered[:i]]
    if twice:
        raise DataError(f"{file} lists the class {twice[0]!r} twice: rename one")
    return ordered


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


def _label_folders(folder: str) -> list[str]:
    """`labels` in a folder, or in its parts."""
    places = [Path(folder), *(place for place in Path(folder).iterdir() if place.is_dir())]
    return [str(place / LABELS) for place in places if (place / LABELS).is_dir()]


def _images_by_part(folder: str, listed: _Listed) -> dict[str, list[str]]:
    """The images below a folder; of none of the listed folders: as the names of their folders say."""
    of = {
        os.path.normpath(image): part
        for part in reversed(PARTS)  # an image of two parts is for training
        for name in listed.of_parts.get(part, ())
        for image in _images_of(folder, name)
    }
    images: dict[str, list[str]] = {part: [] for part in PARTS}
    for image in map(os.path.normpath, images_below(folder)):
        inside = Path(os.path.relpath(image, folder)).parent.parts
        part = of.get(image) if of else part_named(*inside) or TRAINING
        if part:
            images[part].append(image)
    return images


def _images_of(folder: str, name: str) -> Iterable[str]:
    """The images of what a .yaml names for a part, wherever the folder stood when it was written."""
    steps = Path(name.replace("\\", "/")).parts
    places = (os.path.join(folder, *steps[i:]) for i in range(len(steps)))
    place = next((place for place in places if os.path.exists(place)), None)
    if place is None:
        return ()
    return images_below(place) if os.path.isdir(place) else _lines_of(place, folder)


def _lines_of(file: str, folder: str) -> Iterator[str]:
    """The images that a list names, relative to the folder or with folders of another machine."""
    for line in _text(file).splitlines():
        if line.strip():
            steps = Path(line.strip().replace("\\", "/")).parts
            places = (os.path.join(folder, *steps[i:]) for i in range(len(steps)))
            yield next((place for place in places if os.path.isfile(place)), line.strip())


def _add(collected: Annotations, image: str, number: int, listed: _Listed, odd: _Odd) -> None:
    labels = _label_file(image)
    size = None if labels is None else _size_of(image)
    collected.add_image(image, image, size, number)
    if labels is None or size is None:  # a broken image: training skips and lists it
        return
    for line, text in enumerate(_text(labels).splitlines(), 1):
        if not text.strip():
            continue
        one = _object(text.split(), size, listed.has_keypoints)
        if one is None:
            odd.unreadable.append(f"{labels}, line {line}")
            continue
        if len(text.split()) == BOX_WITH_CONFIDENCE:
            odd.confident.append(labels)
        if one.label >= len(listed.names):
            raise DataError(
                f"{labels}, line {line}, has the class {one.label}, and {listed.file} names "
                f"{len(listed.names)} from 0: add its name there"
            )
        collected.add_object(image, one.box, one.label, crowd=False, mask=one.mask)


def _is_of_labels(file: str) -> bool:
    """Whether its first line could be an object's."""
    try:
        lines = start_of(Path(file), SNIFFED).decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError):
        return False
    return _object(lines[0].split(), (1, 1), has_keypoints=True) is not None


def _label_file(image: str) -> str | None:
    """In `labels` for the last `images` of the path, or beside the image; None without one."""
    steps = list(Path(image).with_suffix(".txt").parts)
    places = [os.path.join(*steps)]
    if IMAGES in steps[:-1]:
        last = len(steps) - 1 - steps[::-1].index(IMAGES)
        places.insert(0, os.path.join(*steps[:last], LABELS, *steps[last + 1 :]))
    return next((place for place in places if os.path.isfile(place)), None)


def _size_of(image: str) -> Size | None:
    try:
        with open_file(image) as picture:
            return picture.size
    except Exception:  # broken files raise almost anything out of their decoders
        return None


def _text(file: str) -> str:
    try:
        return read_regular(Path(file)).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}): save it as UTF-8") from error


def _object(words: list[str], size: Size, has_keypoints: bool) -> _Object | None:
    """None if the line is neither a box nor an outline."""
    try:
        label, values = int(words[0]), np.array(words[1:], dtype=np.float64)
    except (ValueError, IndexError):
        return None
    if label < 0 or not np.isfinite(values).all():
        return None
    extent = np.array([size[1], size[0]], dtype=np.float64)
    if has_keypoints or len(words) in (BOX, BOX_WITH_CONFIDENCE):
        if len(words) < BOX:
            return None
        centre, sides = values[:2] * extent, values[2:4] * extent
        left, top = (centre - sides / 2).tolist()
        right, bottom = (centre + sides / 2).tolist()
        return _Object(label, (left, top, right, bottom), None)
    if len(words) < LEAST_OUTLINE or len(words) % 2 == 0:
        return None
    mask = Polygons(rings=((values.reshape(-1, 2) * extent).astype(np.float32),))
    return _Object(label, extent_of(mask), mask)


SOURCE = BoxSource(matches=_matches, read=_read)
