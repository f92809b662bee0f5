"""labelme's format: a JSON file of shapes for each image, found, read and drawn.

Shapes cover the pixels that labelme itself gives them, their outlines too: Pillow draws them.
"""

import base64
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from unmask.core.spec import Size
from unmask.data.annotations import LARGEST_SIDE, LEFT_OUT, is_size
from unmask.data.decode.files import SUFFIXES, open_file
from unmask.data.findings import Finding, found
from unmask.data.images import tried_again
from unmask.data.paths import files_below
from unmask.data.records import TRAINING, part_named
from unmask.data.sources.sizes import refuse_large
from unmask.errors import DataError
from unmask.storage import from_json, read_regular, start_of

IGNORED = "__ignore__"
"""labelme's word for pixels that are neither learnt nor counted."""
WITHOUT_AREA = ("point", "points", "line", "linestrip")
MASK_SHARE = 4
"""Pixels of a mask for each of its image: one may reach beyond it, and none of use is so large."""
SNIFFED = 4096
IMAGE_INSIDE = re.compile(rb'"imageData"\s*:\s*"[^"\\]+"')
"""A copy of the image, which is far longer than what is read."""
KEY, SHAPE = re.compile(rb'"(?:shapes|flags)"\s*:'), re.compile(rb'"shapes"\s*:\s*\[\s*\{')


@dataclass(frozen=True)
class Sheet:
    """What is needed of a file before its shapes are drawn."""

    file: str
    image: str
    size: Size
    labels: frozenset[str]
    """Those of shapes that have an area."""
    without_area: int


def labelme_files(folder: str) -> Iterator[str]:
    """The files in or below a folder that look like labelme's, sorted; none that cannot be read."""
    for file in sorted(files_below(folder, ".json")):
        if KEY.search(_start(file) or b""):
            yield file


def unreadable_files(folder: str) -> list[Finding]:
    """Those of which nobody can say whether they are labelme's: links to nothing, files of others."""
    files = sorted(files_below(folder, ".json"))
    return found(".json files that cannot be read", LEFT_OUT, [f for f in files if _start(f) is None])


def _start(file: str) -> bytes | None:
    try:
        return start_of(Path(file), SNIFFED)
    except OSError:
        return None


def has_shapes(word: str) -> bool:
    """Whether a word names a folder with shapes; labelme's files of flags alone classify images."""
    if not os.path.isdir(word):
        return False
    return any(SHAPE.search(_start(file) or b"") for file in sorted(files_below(word, ".json")))


def sheet_of(file: str, most: int) -> Sheet:
    """Raises DataError if it is not labelme's, its image is missing, unreadable or of more pixels."""
    content = _content(file)
    shapes = _with_area(content)
    image = _image_of(file, content)
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if isinstance(height, int) and isinstance(width, int) and is_size((height, width)):
        size = (height, width)
    else:
        try:
            with open_file(image) as picture:
                size = picture.size
        except Exception as error:  # broken files raise almost anything out of their decoders
            raise DataError(f"{image} cannot be read ({error}): get a fresh copy") from error
    refuse_large(f"the image of {file}", size, most)
    labels = frozenset(shape["label"] for shape in shapes)
    return Sheet(file, image, size, labels, len(content["shapes"]) - len(shapes))


def _image_of(file: str, content: dict[str, Any]) -> str:
    """The image that a file names, with the folders of the machine that wrote it or without.

    Or that is called like the file.
    """
    here, name = os.path.dirname(file), str(content.get("imagePath") or "").replace("\\", "/")
    stem = os.path.splitext(file)[0]
    base = os.path.join(here, name.rpartition("/")[2])
    places = (os.path.join(here, name), base, *(f"{stem}{suffix}" for suffix in SUFFIXES))
    image = next((place for place in places if os.path.isfile(place)), None)
    if image is not None:
        return os.path.normpath(image)
    is_inside = bool(content.get("imageData"))
    helps = (
        "write out the copy in the file with labelme_json_to_dataset" if is_inside else "put it there"
    )
    raise DataError(
        f"the image {places[0]} that {file} is about is not there: {helps}, or remove the file"
    )


def shapes_of(file: str) -> list[dict[str, Any]]:
    """The shapes that have an area, in the order of the file; DataError if it is not labelme's."""
    return _with_area(_content(file))


def _with_area(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [shape for shape in content["shapes"] if shape.get("shape_type") not in WITHOUT_AREA]


def _content(file: str) -> dict[str, Any]:
    try:
        text = tried_again(lambda: read_regular(Path(file)))
        content = from_json(IMAGE_INSIDE.sub(b'"imageData": "left out"', text))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): get a fresh copy") from error
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(
        isinstance(shape, dict) and isinstance(shape.get("label"), str) for shape in shapes
    ):
        raise DataError(f"{file} is not in labelme's format: it needs a list of shapes with labels")
    return content


def kind_of(shape: dict[str, Any]) -> str:
    """polygon, rectangle, circle or mask, or what else it says; a polygon if it says nothing."""
    return str(shape.get("shape_type") or "polygon")


def points_of(file: str, shape: dict[str, Any]) -> np.ndarray:
    """float64 [P, 2]: x and y in pixels; DataError if they are none, or not as many as it takes."""
    kind = kind_of(shape)
    try:
        points = np.array(shape["points"], dtype=np.float64).reshape(-1, 2)
        if not (np.abs(points) <= LARGEST_SIDE).all():
            raise ValueError("a point lies beyond all images")
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise _not_drawn(file, error) from error
    least, most = {"polygon": (3, np.inf), "mask": (1, 2)}.get(kind, (2, 2))
    if kind not in ("polygon", "rectangle", "circle", "mask") or not least <= len(points) <= most:
        raise DataError(
            f"{file} has a shape of the type {kind!r} with {len(points)} points: draw polygons, "
            f"rectangles or circles"
        )
    return points


def covered(file: str, shape: dict[str, Any], size: Size) -> np.ndarray:
    """bool [H, W]: the pixels of a polygon, rectangle, circle or mask; DataError if it is none."""
    points, kind = points_of(file, shape), kind_of(shape)
    if kind == "mask":
        return _stored(file, shape, points, size)
    image = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(image)
    if kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        draw.ellipse([*(points[0] - radius), *(points[0] + radius)], fill=1, outline=1)
    elif kind == "rectangle":
        draw.rectangle([*points.min(0), *points.max(0)], fill=1, outline=1)
    else:
        draw.polygon([(float(x), float(y)) for x, y in points], fill=1, outline=1)
    return np.array(image, dtype=bool)


def _stored(file: str, shape: dict[str, Any], points: np.ndarray, size: Size) -> np.ndarray:
    """A picture of an object, which lies at the first point; what is outside of the image is cut."""
    try:
        png = base64.b64decode(shape["mask"])
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            if image.width * image.height > MASK_SHARE * size[0] * size[1]:
                raise ValueError(
                    f"its mask has {image.width} x {image.height} pixels and its image "
                    f"{size[1]} x {size[0]}"
                )
            inside = np.asarray(image.convert("L")) > 0
    except Exception as error:  # broken files raise almost anything out of their decoders
        raise _not_drawn(file, error) from error
    left, top = points.min(0).astype(int).tolist()
    pixels = np.zeros(size, dtype=bool)
    inside = inside[max(0, -top) :, max(0, -left) :]
    part = pixels[max(0, top) :, max(0, left) :][: inside.shape[0], : inside.shape[1]]
    part |= inside[: part.shape[0], : part.shape[1]]
    return pixels


def _not_drawn(file: str, error: Exception) -> DataError:
    return DataError(f"{file} has a shape that cannot be drawn ({error}): draw it again")


def part_of(file: str, folder: str) -> str:
    """train, val or test, as the folders below say; train if none does."""
    return part_named(*Path(file).parent.relative_to(folder).parts) or TRAINING


def stranger(label: str, sheets: list[Sheet]) -> DataError:
    """The error for a label that is not in the list of classes."""
    file = next(sheet.file for sheet in sheets if label in sheet.labels)
    return DataError(
        f"{file} has the label {label!r}, which is not in the list of classes: add it there, or correct "
        f"the label"
    )
