"""COCO's format: a JSON file of images, objects and categories beside a folder of images.

What is read: DATA/annotations/instances_train2017.json with DATA/train2017, DATA/train/*.json with the
images beside it, DATA/*.json with DATA/images, one file; train, val and test stand in the names.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from unmask.core.spec import Size
from unmask.data.annotated import AnnotatedParts
from unmask.data.annotations import LARGEST_SIDE, Annotations
from unmask.data.findings import SHOWN, found
from unmask.data.instances import Detections
from unmask.data.masks import Mask, Polygons, RunLengths, extent_of, run_lengths_of_text
from unmask.data.records import TRAINING, part_named, some
from unmask.data.sources.json_members import members
from unmask.data.sources.source import BoxSource, Options
from unmask.errors import DataError
from unmask.storage import LARGE_FILE, open_text, start_of

OTHER_KINDS = ("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_")
"""What COCO's own files for other uses begin with."""
LARGEST_ID = 2**63 - 1
SNIFFED = 65_536
COCO_KEY = re.compile(rb'"(?:images|annotations|categories)"\s*:')
OWN_KEY = re.compile(rb'"(?:images|annotations)"\s*:')
LABELME_KEY = re.compile(rb'"shapes"\s*:')


def coco_files(folder: str) -> list[str]:
    """The annotation files of a folder, sorted; at most one folder deep."""
    places = [Path(folder), *sorted(p for p in Path(folder).iterdir() if p.is_dir())]
    files = [str(f) for place in places for f in sorted(place.glob("*.json")) if _is_coco(str(f))]
    instances = [file for file in files if Path(file).name.startswith("instances_")]
    return instances or [file for file in files if not Path(file).name.startswith(OTHER_KINDS)]


def _is_coco(file: str) -> bool:
    try:
        start = start_of(Path(file), SNIFFED)
    except OSError:
        return False
    if LABELME_KEY.search(start):
        return False
    is_whole = len(start) < SNIFFED  # images or annotations may stand behind many categories
    return (OWN_KEY if is_whole else COCO_KEY).search(start) is not None


def read_coco(file: str, name: str) -> tuple[Detections, Annotations]:
    """The images and objects of one file, and what was found odd; raises DataError if it is not COCO."""
    collected, categories, images, bad_masks = Annotations(file), dict[int, str](), list[Any](), 0
    for section, entry in _entries(file):
        try:
            if section == "images":
                hash(entry["id"])  # TypeError for a list
                images.append((entry["id"], str(entry["file_name"]), _size(entry)))
            elif section == "categories":
                categories[_number_of(entry["id"])] = str(entry["name"])
            elif section == "annotations":
                bad_masks += _add(collected, entry)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise DataError(
                f"{file} is not in COCO's format: one of its {section} is {_short(entry)} "
                f"({type(error).__name__}: {error}); write it again with the tool that made it"
            ) from error
    if not images or not categories:
        raise DataError(
            f"{file} has {len(images)} images and {len(categories)} categories: give COCO's annotations "
            f"of objects, a file with images, annotations and categories"
        )
    place = _place_of_images(file, [file_name for _, file_name, _ in images])
    for key, file_name, size in images:
        image_id = key if isinstance(key, int) and abs(key) <= LARGEST_ID else len(collected)
        collected.add_image(key, place(file_name), size, image_id)
    classes = tuple(dict.fromkeys(categories[i] for i in sorted(categories)))
    _number(file, collected, categories, classes)
    collected.findings += found(
        "masks that cannot be read", "left out, their boxes are learnt", [file] * SHOWN, bad_masks
    )
    ids = {categories[i]: i for i in sorted(categories, reverse=True)}
    return collected.finished(name, classes, [ids[each] for each in classes]), collected


def _number(
    file: str, collected: Annotations, categories: Mapping[int, str], classes: tuple[str, ...]
) -> None:
    """Labels instead of category ids; two categories of one name are one class."""
    places = {each: i for i, each in enumerate(classes)}
    unknown = collected.renumber({i: places[each] for i, each in categories.items()})
    if unknown:
        raise DataError(
            f"objects in {file} have the category {unknown[0]}, which is not among its categories "
            f"({some(classes)}): add it, or remove those objects"
        )
    ids = sorted(categories)
    gaps = [f"{b} follows {a}" for a, b in pairwise(ids) if b != a + 1]
    collected.findings += found(
        "gaps in the category ids", "classes are numbered without them", gaps, of_classes=True
    )
    names = [categories[i] for i in ids]
    twice = [each for i, each in enumerate(names) if each in names[:i]]
    collected.findings += found("categories of one name", "treated as one class", twice, of_classes=True)


def _add(collected: Annotations, entry: Mapping[str, Any]) -> int:
    """One object; 1 if it has a mask that cannot be read."""
    mask, is_bad = _mask(entry.get("segmentation"))
    given = entry.get("bbox")
    if given:
        left, top, width, height = map(float, given)
        box = (left, top, left + width, top + height)
    else:
        box = (0.0, 0.0, 0.0, 0.0) if mask is None else extent_of(mask)
    crowd = bool(entry.get("iscrowd", 0))
    category = _number_of(entry["category_id"])
    collected.add_object(entry["image_id"], box, category, crowd=crowd, mask=mask)
    return is_bad


def _number_of(given: Any) -> int:
    if abs(number := int(given)) > LARGEST_ID:
        raise ValueError(f"an id above {LARGEST_ID}")
    return number


def _mask(given: Any) -> tuple[Mask | None, bool]:
    """The mask, and whether one was given that cannot be read."""
    if not given:
        return None, False
    try:
        if isinstance(given, Mapping):
            height, width = map(int, given["size"])
            counts = given["counts"]
            if isinstance(counts, str):
                lengths = run_lengths_of_text(counts, (height, width))
            else:
                array = np.array(counts, dtype=np.uint32)
                lengths = RunLengths(counts=array, size=(height, width))
            covered = int(lengths.counts.sum(dtype=np.int64))
            is_whole = min(height, width) > 0 and covered == height * width
            return (lengths, False) if is_whole else (None, True)
        rings = [np.array(ring, dtype=np.float32) for ring in given]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None, True
    rings = [r.reshape(-1, 2) for r in rings if r.ndim == 1 and len(r) >= 6 and len(r) % 2 == 0]
    rings = [ring for ring in rings if (np.abs(ring) <= LARGEST_SIDE).all()]
    return (Polygons(rings=tuple(rings)), False) if rings else (None, True)


def _size(entry: Mapping[str, Any]) -> Size | None:
    size = int(entry.get("height") or 0), int(entry.get("width") or 0)
    return size if all(size) else None


def _place_of_images(file: str, names: list[str]) -> Callable[[str], str]:
    """From the name of an image to where it is.

    Beside the file, or in a folder that is called like its part; called as it is written, or with
    slashes for Windows' backslashes, or without the folders of the machine that wrote it.
    """
    here = Path(file).resolve().parent
    stem = Path(file).stem
    called = ["", "images", stem.partition("_")[2], stem, _part_of(file, str(here.parent)), "JPEGImages"]
    inner = [f"images/{name}" for name in called[2:5] if name]
    folders = [str(base / name) for base in (here, here.parent) for name in (*called, *inner)]
    are_distinct = len(set(map(_base_name, names))) == len(set(names))
    spellings = (str, _with_slashes, _base_name) if are_distinct else (str, _with_slashes)

    def there(place: tuple[Callable[[str], str], str]) -> int:
        spelled, folder = place
        return sum(os.path.isfile(os.path.join(folder, spelled(name))) for name in names[:20])

    # The first of those that are as good.
    spelled, folder = max(((s, folder) for s in spellings for folder in folders), key=there)
    shown = _as_written(file, folder)
    return lambda name: os.path.join(shown, spelled(name))


def _with_slashes(name: str) -> str:
    return name.replace("\\", "/")


def _base_name(name: str) -> str:
    return _with_slashes(name).rpartition("/")[2]


def _as_written(file: str, place: str) -> str:
    """Relative as the user's own path was, so that messages and names stay short."""
    folder = os.path.dirname(file)
    return os.path.normpath(os.path.join(folder, os.path.relpath(place, Path(file).resolve().parent)))


def _part_of(file: str, root: str) -> str:
    """train, val or test, as its own name or its folder's says; train if neither does."""
    above = Path(file).parent
    return part_named(Path(file).stem, above.name if above != Path(root) else "") or TRAINING


def _entries(file: str) -> Iterator[tuple[str, Any]]:
    """Each member of each array at the top, one at a time: all at once would take ten times the file."""
    try:
        with open_text(Path(file), LARGE_FILE, "utf-8-sig") as text:
            yield from members(text)
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror}: get a fresh copy, or divide it"
        ) from error
    except (ValueError, RecursionError) as error:  # among them those of wrong UTF-8
        raise DataError(f"{file} is not JSON, or not whole ({error}): get a fresh copy") from error


def _short(entry: Any) -> str:
    text = json.dumps(entry)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _matches(word: str) -> bool:
    if os.path.isdir(word):
        return bool(coco_files(word))
    return word.lower().endswith(".json") and os.path.isfile(word) and _is_coco(word)


def _read(word: str, options: Options) -> AnnotatedParts[Detections]:
    is_folder = os.path.isdir(word)
    parts, all_findings = dict[str, Detections](), []
    files = dict[str, str]()
    for file in coco_files(word) if is_folder else [word]:
        part = _part_of(file, word) if is_folder else TRAINING
        if part in files:
            raise DataError(
                f"{files[part]} and {file} are both for {part}: give one of them, or put "
                f"train and val into their names"
            )
        files[part] = file
        parts[part], collected = read_coco(file, Path(word).resolve().stem)
        all_findings.append(collected.findings)
    return AnnotatedParts.of(parts, all_findings)


SOURCE = BoxSource(matches=_matches, read=_read)
