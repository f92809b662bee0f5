"""Shapes of labelme's files as objects: boxes, and masks of all but rectangles.

Shapes of one label and one group number are one object, as labelme's own converters take them.
"""

import math
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unmask.core.spec import Size
from unmask.data.annotated import AnnotatedParts
from unmask.data.annotations import LEFT_OUT, Annotations
from unmask.data.findings import Finding, found
from unmask.data.instances import Detections
from unmask.data.masks import Mask, Polygons, extent_of, run_lengths_of
from unmask.data.records import TEST, TRAINING, VALIDATION, in_order
from unmask.data.sources.class_lists import class_list_in, with_background
from unmask.data.sources.labelme import (
    IGNORED,
    Sheet,
    covered,
    has_shapes,
    kind_of,
    labelme_files,
    part_of,
    points_of,
    shapes_of,
    sheet_of,
    stranger,
    unreadable_files,
)
from unmask.data.sources.sizes import pixels_in
from unmask.data.sources.source import BoxSource, Options
from unmask.errors import DataError

CORNERS_OF_CIRCLES = 64
Shape = dict[str, Any]


def _read(word: str, options: Options) -> AnnotatedParts[Detections]:
    """The classes are those of labels.txt, or else all that occur, but for the background."""
    sheets = [sheet_of(file, pixels_in(options.max_megapixels)) for file in labelme_files(word)]
    present = {label for sheet in sheets for label in sheet.labels} - {IGNORED}
    known = class_list_in(word)
    listed, background = with_background(in_order(present) if known is None else known.names)
    if strangers := sorted(present - set(listed)):
        raise stranger(strangers[0], sheets)
    classes = tuple(name for i, name in enumerate(listed) if i != background)
    parts, all_findings = dict[str, Detections](), list[Sequence[Finding]]([unreadable_files(word)])
    for part in (TRAINING, VALIDATION, TEST):
        chosen = [sheet for sheet in sheets if part_of(sheet.file, word) == part]
        if chosen:
            parts[part], findings = _collected(word, chosen, classes)
            all_findings.append(findings)
    return AnnotatedParts.of(parts, all_findings)


def _collected(
    word: str, sheets: list[Sheet], classes: tuple[str, ...]
) -> tuple[Detections, list[Finding]]:
    collected, places = Annotations(word), {name: i for i, name in enumerate(classes)}
    ignored, bad, without_area = list[str](), list[str](), list[str]()
    for number, sheet in enumerate(sheets, 1):
        collected.add_image(sheet.image, sheet.image, sheet.size, number)
        without_area += [sheet.file] * sheet.without_area
        for label, shapes in _objects(sheet.file):
            try:
                box, mask = _box_and_mask(sheet, shapes)
            except DataError as error:
                bad.append(str(error))
                continue
            # What is ignored may be of any class.
            of = classes if label == IGNORED else (label,) if label in places else ()
            for name in of:
                collected.add_object(sheet.image, box, places[name], crowd=label == IGNORED, mask=mask)
            if label == IGNORED:
                ignored.append(sheet.file)
    ids = range(1, len(classes) + 1)
    data = collected.finished(Path(word).resolve().stem, classes, ids)
    findings = [
        *found("points and lines, which have no area", LEFT_OUT, without_area),
        *found("shapes that cannot be drawn", LEFT_OUT, bad),
        *found(f"regions of {IGNORED}", "neither learnt nor counted as background", ignored),
        *(one for one in collected.findings if one.what != "regions of crowds"),
    ]
    return data, findings


def _objects(file: str) -> list[tuple[str, list[Shape]]]:
    """Label and shapes of each object, in the order of the file."""
    objects = dict[tuple[str, Hashable], list[Shape]]()
    for i, shape in enumerate(shapes_of(file)):
        group = shape.get("group_id")
        key = ("alone", i) if group is None or shape["label"] == IGNORED else ("group", str(group))
        objects.setdefault((shape["label"], key), []).append(shape)
    return [(label, shapes) for (label, _), shapes in objects.items()]


def _box_and_mask(
    sheet: Sheet, shapes: list[Shape]
) -> tuple[tuple[float, float, float, float], Mask | None]:
    """Left, top, right and bottom of an object, and its mask unless it is a rectangle."""
    outlines = [_outline(sheet.file, shape) for shape in shapes]
    rings = [ring for ring in outlines if ring is not None]
    if len(rings) == len(shapes):
        mask: Mask = Polygons(rings=tuple(rings))
    else:
        mask = _drawn(sheet.file, shapes, sheet.size)
    is_box = all(kind_of(shape) == "rectangle" for shape in shapes)
    return extent_of(mask), None if is_box else mask


def _outline(file: str, shape: Shape) -> np.ndarray | None:
    """float32 [P, 2]: the corners of a shape; None for a mask."""
    kind, points = kind_of(shape), points_of(file, shape)
    if kind == "mask":
        return None
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(0), points.max(0)
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    elif kind == "circle":
        angles = np.arange(CORNERS_OF_CIRCLES) * (2 * math.pi / CORNERS_OF_CIRCLES)
        radius = np.hypot(*(points[1] - points[0]))
        points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return points.astype(np.float32)


def _drawn(file: str, shapes: list[Shape], size: Size) -> Mask:
    pixels = np.logical_or.reduce([covered(file, shape, size) for shape in shapes])
    return run_lengths_of(pixels)


SOURCE = BoxSource(matches=has_shapes, read=_read)
