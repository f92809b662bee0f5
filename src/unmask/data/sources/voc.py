"""PASCAL VOC's format: an XML file of boxes for each image.

What is read: DATA/Annotations with DATA/JPEGImages and optionally DATA/ImageSets/Main; or XML files
beside their images or in a folder beside theirs, at any depth, or below train and val.
"""

import os
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from unmask.core.spec import Size
from unmask.data.annotated import AnnotatedParts
from unmask.data.annotations import LEFT_OUT, Annotations
from unmask.data.decode.files import SUFFIXES
from unmask.data.findings import found
from unmask.data.instances import Detections
from unmask.data.paths import files_below
from unmask.data.records import TEST, TRAINING, VALIDATION, in_order, part_named
from unmask.data.sources.lists import text_of
from unmask.data.sources.source import BoxSource, Options
from unmask.errors import DataError
from unmask.storage import read_regular, start_of

IMAGE_FOLDERS = ("JPEGImages", "images", "imgs")
SNIFFED = 4096
MOST_XML = 2**24
"""Bytes: as Python's objects they take up to 30 times as many."""
EDGES = ("xmin", "ymin", "xmax", "ymax")


class _Object(NamedTuple):
    name: str
    box: tuple[float, float, float, float]
    is_difficult: bool


class _Sheet(NamedTuple):
    """What one XML file says."""

    image: str
    size: Size | None
    objects: list[_Object]


def _matches(word: str) -> bool:
    return os.path.isdir(word) and any(map(_is_of_objects, files_below(word, ".xml")))


def _is_of_objects(file: str) -> bool:
    """By a look at its start; other programs keep their settings in .xml."""
    try:
        return b"<annotation" in start_of(Path(file), SNIFFED)
    except OSError:
        return False


def _read(word: str, options: Options) -> AnnotatedParts[Detections]:
    """The classes are those of all parts, sorted: VOC's files do not list them."""
    sheets, broken, folders = dict[str, _Sheet](), [], _Folders()
    for file in sorted(files_below(word, ".xml")):
        try:
            sheets[file] = _sheet(file, folders)
        except (ElementTree.ParseError, LookupError, ValueError, OSError) as error:
            broken.append(f"{file} ({error})")
    if not sheets:
        raise DataError(
            f"none of the {len(broken)} XML files in {word} is in PASCAL VOC's format, the first is "
            f"{broken[0]}: give a folder of such files"
        )
    classes = in_order(each.name for sheet in sheets.values() for each in sheet.objects)
    parts, all_findings = dict[str, Detections](), []
    listed = listed_parts(word, "Main")
    of_part = {file: _part_of(file, word, listed) for file in sheets}
    for part in (TRAINING, VALIDATION, TEST):
        chosen = [sheet for file, sheet in sheets.items() if of_part[file] == part]
        if chosen:
            parts[part], collected = _collected(word, chosen, classes)
            all_findings.append(collected.findings)
    unlisted = [file for file in sheets if of_part[file] is None]
    odd = [
        *found("annotation files that cannot be read", LEFT_OUT, broken),
        *found("annotation files that ImageSets/Main does not list", LEFT_OUT, unlisted),
    ]
    return AnnotatedParts.of(parts, [odd, *all_findings])


def _collected(
    folder: str, sheets: list[_Sheet], classes: tuple[str, ...]
) -> tuple[Detections, Annotations]:
    collected, places = Annotations(folder), {name: i for i, name in enumerate(classes)}
    for number, sheet in enumerate(sheets, 1):
        collected.add_image(sheet.image, sheet.image, sheet.size, number)
        for each in sheet.objects:
            label, crowd = places[each.name], each.is_difficult
            collected.add_object(sheet.image, each.box, label, crowd=crowd, mask=None)
    ids = range(1, len(classes) + 1)
    return collected.finished(Path(folder).resolve().stem, classes, ids), collected


def _sheet(file: str, folders: "_Folders") -> _Sheet:
    """Raises ValueError, or what the parser raises, if it is something else.

    LookupError for an encoding that Python does not know.
    """
    root = ElementTree.fromstring(read_regular(Path(file), MOST_XML))
    if root.tag != "annotation":
        raise ValueError(f"it holds <{root.tag}>, not <annotation>")
    # VOC itself counts pixels from 1 and its boxes hold their last pixel; other tools count from 0.
    first = 1.0 if "VOC" in (root.findtext("source/database") or "") else 0.0
    size = int(root.findtext("size/height") or 0), int(root.findtext("size/width") or 0)
    objects = [_object(node, first) for node in root.iter("object")]
    name = (root.findtext("filename") or "").strip()
    return _Sheet(folders.image_of(file, name), size if all(size) else None, objects)


def _object(node: ElementTree.Element, first: float) -> _Object:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    left, top, right, bottom = (float(node.findtext(f"bndbox/{edge}") or "nan") for edge in EDGES)
    is_difficult = (node.findtext("difficult") or "0").strip() == "1"
    return _Object(name, (left - first, top - first, right, bottom), is_difficult)


class _Folders:
    """The images of folders, each listed once."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, str]] = {}

    def image_of(self, file: str, name: str) -> str:
        """The image that a file names, or that is called like it: beside it or in a folder beside."""
        here = Path(file).parent
        places = [here, *(here.parent / folder for folder in IMAGE_FOLDERS)]
        above = (here.parent, here.parent.parent)
        places += [place / folder / here.name for place in above for folder in IMAGE_FOLDERS]
        for place in places:
            names = self._images_in(place)
            for wanted in (name, Path(name).name, Path(file).stem):
                if wanted in names:
                    return str(place / names[wanted])
        return str(here / (name or f"{Path(file).stem}.jpg"))

    def _images_in(self, folder: Path) -> dict[str, str]:
        """By their names, with suffix and without."""
        if folder not in self._known:
            names = sorted(os.listdir(folder)) if folder.is_dir() else []
            images = [name for name in names if name.lower().endswith(SUFFIXES)]
            without = {Path(name).stem: name for name in images}
            self._known[folder] = without | {name: name for name in images}
        return self._known[folder]


def listed_parts(folder: str, purpose: str) -> dict[str, str]:
    """The part of each image by its name without suffix, as the lists in ImageSets/PURPOSE say.

    Empty without such lists.
    """
    listed = dict[str, str]()
    for part, names in ((TEST, ("test",)), (VALIDATION, ("val",)), (TRAINING, ("train", "trainval"))):
        files = [Path(folder) / "ImageSets" / purpose / f"{name}.txt" for name in names]
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            words = (line.split() for line in text_of(str(file)).splitlines())
            listed.update((word[0], part) for word in words if word)
    return listed


def _part_of(file: str, folder: str, listed: dict[str, str]) -> str | None:
    if listed:
        return listed.get(Path(file).stem)
    return part_named(*Path(file).parent.relative_to(folder).parts) or TRAINING


SOURCE = BoxSource(matches=_matches, read=_read)
