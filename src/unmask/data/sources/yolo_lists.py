"""What names the classes, and perhaps the parts, of a data set in YOLO's format.

data.yaml (Ultralytics, Roboflow), classes.txt (labelImg, Label Studio), or obj.names with obj.data
(Darknet, CVAT).
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unmask.data.findings import Tally
from unmask.data.records import PART_NAMES, TRAINING
from unmask.data.sources.folder import images_below
from unmask.data.sources.lists import text_of
from unmask.errors import DataError
from unmask.storage import read_regular

YAML = (".yaml", ".yml")
USUAL_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LISTS = ("classes.txt", "obj.names")
PLACES = ("", "labels", "data")
"""Where a list of classes lies in a data set."""
NAMES_KEY = re.compile(rb"^[\"']?names[\"']?\s*:", re.MULTILINE)
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")
MOST_YAML = 2**20
"""Bytes; a thousand classes take 40 kB."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The classes in the order of their numbers, and where the parts are."""

    file: str
    names: tuple[str, ...]
    path: str = ""
    """Where the parts lie, relative to the file; or where they lay when it was written."""
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Folders, or lists of images, of each part."""
    has_keypoints: bool = False


def lists_in(folder: str) -> list[str]:
    """The files that name the classes of a folder: data.yaml, or all other .yaml that do, or a list."""
    files = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    described = [file for file in files if names_classes(file)]
    usual = [file for file in described if os.path.basename(file).lower() in USUAL_YAML]
    lists = (os.path.join(folder, place, name) for place in PLACES for name in LISTS)
    return usual[:1] or described or list(filter(os.path.isfile, lists))[:1]


def list_in(folder: str) -> str:
    """The one that counts. Raises DataError if that is not clear."""
    first, *others = lists_in(folder)
    if others:
        raise DataError(
            f"{first} and {others[0]} both name classes: give the right one in place of the folder"
        )
    return first


def names_classes(file: str) -> bool:
    """Whether a file is a .yaml with names, by a look at its text."""
    if not file.lower().endswith(YAML):
        return False
    try:
        return NAMES_KEY.search(read_regular(Path(file), MOST_YAML)) is not None
    except OSError:
        return False


def read_list(file: str) -> Listed:
    """Raises DataError if it cannot be read, or names no classes."""
    if file.lower().endswith(YAML):
        return _described(file)
    lines = text_of(file).rstrip().split("\n")
    names = tuple(line.strip() for line in lines)
    if not all(names):
        raise DataError(f"line {names.index('') + 1} of {file} is empty: write a class on each line")
    parts = dict(_of_darknet(os.path.join(os.path.dirname(file), "obj.data")))
    return Listed(file=file, names=_once(file, names), parts=parts)


def _of_darknet(file: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The lists of images that obj.data names, if there is one."""
    for line in text_of(file).splitlines() if os.path.isfile(file) else ():
        key, _, value = (word.strip() for word in line.partition("="))
        if (part := PART_NAMES.get(key.lower())) and value:
            yield part, (value,)


def _described(file: str) -> Listed:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(read_regular(Path(file), MOST_YAML), loader)
    except Exception as error:  # wrong YAML raises almost anything
        raise DataError(f"{file} cannot be read as YAML ({_short(error)}): correct it") from error
    names = content.get("names") if isinstance(content, dict) else None
    path = content.get("path") if isinstance(content, dict) else None
    return Listed(
        file=file,
        names=_once(file, _in_order(file, names)),
        path=path if isinstance(path, str) else "",
        parts={
            part: _texts(file, str(key), value)
            for key, value in content.items()
            if (part := PART_NAMES.get(str(key)[:20].lower())) and value
        },
        has_keypoints="kpt_shape" in content,
    )


def _in_order(file: str, names: Any) -> tuple[str, ...]:
    """A list, or a mapping from the numbers of the classes."""
    found = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(found, dict) or not all(
        isinstance(each, str | int | float) for each in found.values()
    ):
        raise DataError(f"{file} has no names of classes: write them as in 'names: [cat, dog]'")
    by_number = {int(key) if str(key)[:20].isdecimal() else key: name for key, name in found.items()}
    if set(by_number) != set(range(len(found))) or not found:
        raise DataError(f"the names in {file} are not numbered 0, 1, 2 and so on: number them so")
    return tuple(str(by_number[i]) for i in range(len(found)))


def _once(file: str, names: tuple[str, ...]) -> tuple[str, ...]:
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise DataError(f"{file} lists the class {name!r} twice: rename one")
    return names


def _texts(file: str, key: str, value: Any) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{file} has no folder for {key}: write one, as in '{key}: images/{key}'")
    return tuple(texts)


@dataclass
class Places:
    """Finds what a list names, wherever the data set stood when that was written."""

    folders: tuple[str, ...]
    """Where it is now; the first that fits counts."""
    missing: Tally = field(default_factory=Tally)
    """What was not found."""

    def images(self, listed: Listed, part: str) -> list[str]:
        """Those of a part. Raises DataError if that is for training and not there."""
        images = list[str]()
        for name in listed.parts.get(part, ()):
            place = self._find(name)
            if place is not None:
                images += images_below(place) if os.path.isdir(place) else self._of_lines(place)
            elif part == TRAINING:
                raise DataError(
                    f"{listed.file} says that the training images are {name!r}, which is not there: "
                    f"correct it, or remove the line, and put train and val into the folders' names"
                )
            else:
                self.missing.add(f"{part}: {name}")
        return images

    def _of_lines(self, file: str) -> Iterator[str]:
        for line in filter(None, map(str.strip, lines_of(file))):
            place = self._find(line)
            if place is None or not os.path.isfile(place):
                self.missing.add(line)
            else:
                yield place

    def _find(self, name: str) -> str | None:
        """Inside the data set, however much of the path is of another machine, or else as written."""
        written = name.replace("\\", "/")
        steps = [step for step in Path(written).parts if step not in ("..", "/")]
        inside = (os.path.join(folder, *steps[i:]) for folder in self.folders for i in range(len(steps)))
        outside = (os.path.join(folder, written) for folder in self.folders if steps)
        places = [*inside, *outside] if steps or name.startswith("/") else list(self.folders)
        return next((os.path.normpath(place) for place in places if os.path.exists(place)), None)


def lines_of(file: str) -> Iterator[str]:
    """One at a time: all of them take many times the file. Raises DataError if it cannot be read."""
    yield from (line[0] for line in LINE.finditer(text_of(file)))


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
