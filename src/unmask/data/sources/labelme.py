"""labelme's format, drawn as label maps: a JSON file of shapes for each image.

Shapes are drawn in the order of the file, a later one over an earlier one, as labelme itself does.
"""

import base64
import binascii
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unmask.config.annotations import MapOptions
from unmask.core.spec import Size
from unmask.data.annotated import AnnotatedParts
from unmask.data.decode.files import open_file
from unmask.data.findings import found
from unmask.data.images import Images
from unmask.data.maps import IGNORE_INDEX, LabelMaps
from unmask.data.masks import Polygons, pixels_of
from unmask.data.paths import PathList, files_below
from unmask.data.records import TEST, TRAINING, VALIDATION, in_order, part_named
from unmask.data.sources.class_lists import class_list, class_list_in, with_background
from unmask.data.sources.source import MapSource
from unmask.errors import DataError
from unmask.storage import read_regular, start_of

IGNORED = "__ignore__"
"""labelme's word for pixels that are neither learnt nor counted."""
WITHOUT_AREA = ("point", "points", "line", "linestrip")
SNIFFED = 4096
KEY = re.compile(rb'"(?:shapes|flags)"\s*:')


@dataclass(frozen=True, kw_only=True)
class LabelmeMaps:
    """Draws label maps from files of shapes."""

    paths: PathList
    """The JSON files."""
    labels: dict[str, int]
    """Value of each class; shapes of others are left out."""
    background: int
    sizes: np.ndarray
    """int32 [images, 2]"""

    def __call__(self, index: int) -> np.ndarray:
        """int64 [H, W]; DataError if the file is no longer what it was."""
        drawn = np.full(tuple(self.sizes[index].tolist()), self.background, dtype=np.int64)
        for shape in _content(self.paths[index])["shapes"]:
            if shape.get("shape_type") in WITHOUT_AREA:
                continue
            label = IGNORE_INDEX if shape["label"] == IGNORED else self.labels[shape["label"]]
            drawn[_covered(self.paths[index], shape, drawn.shape)] = label
        return drawn

    def name(self, index: int) -> str:
        """The file that holds it."""
        return self.paths[index]

    def subset(self, indices: np.ndarray) -> "LabelmeMaps":
        """Some of the maps, in the order given."""
        return replace(self, paths=self.paths.take(indices), sizes=self.sizes[indices])

    def relabelled(self, indices: np.ndarray) -> "LabelmeMaps":
        """The same maps with `indices[label]` in place of each label."""
        labels = {name: int(indices[label]) for name, label in self.labels.items()}
        return replace(self, labels=labels, background=int(indices[self.background]))


def _covered(file: str, shape: dict[str, Any], size: tuple[int, ...]) -> np.ndarray:
    """bool [H, W]: the pixels of a polygon, rectangle, circle or mask; DataError if it is none."""
    height, width = size
    try:
        points = np.array(shape["points"], dtype=np.float32).reshape(-1, 2)
        kind = shape.get("shape_type") or "polygon"
        if kind == "polygon" and len(points) >= 3:
            return pixels_of(Polygons(rings=(points,)), (height, width))
        if kind == "rectangle" and len(points) == 2:
            (left, top), (right, bottom) = points.min(0), points.max(0)
            corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
            return pixels_of(Polygons(rings=(corners,)), (height, width))
        if kind == "circle" and len(points) == 2:
            y, x = np.mgrid[:height, :width] + 0.5
            radius = np.hypot(*(points[1] - points[0]))
            return (x - points[0, 0]) ** 2 + (y - points[0, 1]) ** 2 <= radius**2
        if kind == "mask":
            return _stored(shape["mask"], points, (height, width))
    except (KeyError, TypeError, ValueError, binascii.Error, OSError) as error:
        raise DataError(f"{file} has a shape that cannot be drawn ({error}): draw it again") from error
    raise DataError(
        f"{file} has a shape of the type {kind!r} with {len(points)} points: draw polygons, rectangles "
        f"or circles"
    )


def _stored(text: str, points: np.ndarray, size: Size) -> np.ndarray:
    """A picture of an object, which lies at the first point."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
        inside = np.asarray(image.convert("L")) > 0
    left, top = points.min(0).astype(int).tolist()
    covered = np.zeros(size, dtype=bool)
    part = covered[top : top + inside.shape[0], left : left + inside.shape[1]]
    part |= inside[: part.shape[0], : part.shape[1]]
    return covered


def _content(file: str) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(Path(file)))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): get a fresh copy") from error
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(
        isinstance(shape, dict) and isinstance(shape.get("label"), str) for shape in shapes
    ):
        raise DataError(f"{file} is not in labelme's format: it needs a list of shapes with labels")
    return content


def _files(folder: str) -> Iterator[str]:
    for path in map(Path, sorted(files_below(folder, ".json"))):
        if KEY.search(start_of(path, SNIFFED)):
            yield str(path)


def _matches(word: str) -> bool:
    return os.path.isdir(word) and any(_files(word))


def _read(word: str, options: MapOptions) -> AnnotatedParts[LabelMaps]:
    """The classes are those of labels.txt, or else all that occur; the background is one of them."""
    contents = [(file, _facts(file)) for file in _files(word)]
    present = {label for _, facts in contents for label in facts.labels} - {IGNORED}
    known = class_list(options.classes) if options.classes else class_list_in(word)
    classes, background = with_background(in_order(present) if known is None else known.names)
    if strangers := sorted(present - set(classes)):
        file = next(file for file, facts in contents if strangers[0] in facts.labels)
        raise DataError(
            f"{file} has the label {strangers[0]!r}, which is not in the list of classes: add it there, "
            f"or correct the label"
        )
    without_area = [file for file, facts in contents for _ in range(facts.without_area)]
    findings = found("points and lines, which have no area", "left out", without_area)
    labels = {name: i for i, name in enumerate(classes)}
    name = Path(word).resolve().stem

    def made(part: str) -> LabelMaps | None:
        chosen = [(file, facts) for file, facts in contents if _part_of(file, word) == part]
        if not chosen:
            return None
        sizes = np.array([facts.size for _, facts in chosen], dtype=np.int32)
        files = PathList(file for file, _ in chosen)
        return LabelMaps(
            images=Images(name, PathList(facts.image for _, facts in chosen)),
            maps=LabelmeMaps(paths=files, labels=labels, background=background, sizes=sizes),
            classes=classes,
        )

    return AnnotatedParts(
        training=made(TRAINING),
        validation=made(VALIDATION),
        test=made(TEST),
        findings=tuple(findings),
        notes=(f"pixels without a shape are the class {classes[background]!r}",),
    )


@dataclass(frozen=True)
class _Facts:
    """What is needed of a file before its map is drawn."""

    image: str
    size: Size
    labels: frozenset[str]
    without_area: int


def _facts(file: str) -> _Facts:
    content = _content(file)
    shapes = [shape for shape in content["shapes"] if shape.get("shape_type") not in WITHOUT_AREA]
    image = os.path.join(os.path.dirname(file), str(content.get("imagePath", "")).replace("\\", "/"))
    if not os.path.isfile(image):
        raise DataError(
            f"the image {image} that {file} is about is not there: put it there, or remove the file"
        )
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
        size = (height, width)
    else:
        try:
            with open_file(image) as picture:
                size = picture.size
        except Exception as error:  # broken files raise almost anything out of their decoders
            raise DataError(f"{image} cannot be read ({error}): get a fresh copy") from error
    labels = frozenset(shape["label"] for shape in shapes)
    return _Facts(os.path.normpath(image), size, labels, len(content["shapes"]) - len(shapes))


def _part_of(file: str, folder: str) -> str:
    return part_named(*Path(file).parent.relative_to(folder).parts) or TRAINING


SOURCE = MapSource(matches=_matches, read=_read)
