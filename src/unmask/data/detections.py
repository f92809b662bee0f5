"""Images with objects: found, and divided into training and validation."""

from dataclasses import replace
from functools import partial

import numpy as np

from unmask.data.annotated import AnnotatedParts, AnnotatedSplit, divided
from unmask.data.findings import found
from unmask.data.instances import Detections
from unmask.data.sources import boxes_csv, coco, labelme_objects, voc, yolo
from unmask.data.sources.sizes import USUAL_MEGAPIXELS
from unmask.data.sources.source import BoxSource, Options
from unmask.errors import DataError
from unmask.units import counted

SOURCES: tuple[BoxSource, ...] = (
    coco.SOURCE,
    voc.SOURCE,
    boxes_csv.SOURCE,
    labelme_objects.SOURCE,
    yolo.SOURCE,
)


def find_detections(
    sources: tuple[str, ...],
    *,
    val: tuple[str, ...] = (),
    val_share: float | None = None,
    label_column: str = "label",
    single_class: str | None = None,
    max_megapixels: float = USUAL_MEGAPIXELS,
) -> AnnotatedSplit[Detections]:
    """The objects in images, in COCO's, VOC's, labelme's or YOLO's format, or of a table of boxes.

    `divided` says which are for validation; `single_class` names the one class that all objects are
    then of, whatever the annotations call them. Raises DataError, which says how to correct it, if there
    are no objects to train on.
    """
    find = partial(
        find_boxes,
        label_column=label_column,
        single_class=single_class,
        max_megapixels=max_megapixels,
    )
    parts, given = find(sources), find(val) if val else None
    split = divided(sources[0], parts, given, val_share)
    if not (~split.training.instances.crowd).any():
        raise DataError(
            f"none of the {len(split.training)} training images of {sources[0]} has an object: give "
            f"annotations with boxes"
        )
    table, classes = split.training.instances, split.training.classes
    present = {classes[i] for i in np.unique(table.labels[~table.crowd]).tolist()}
    absent = [name for name in classes if name not in present]
    findings = found("classes without objects to train on", "kept", absent)
    training, validation = (counted(int((~one.instances.crowd).sum()), "object") for one in split[:2])
    notes = (*split.notes, f"{training} for training and {validation} for validation")
    return split._replace(findings=(*split.findings, *findings), notes=notes)


def find_boxes(
    sources: tuple[str, ...],
    *,
    label_column: str | None = None,
    single_class: str | None = None,
    max_megapixels: float = USUAL_MEGAPIXELS,
) -> AnnotatedParts[Detections]:
    """What one source holds, divided as it divides itself; raises DataError if it holds no boxes."""
    if len(sources) != 1:
        raise DataError(
            f"detection takes one folder or file of annotations and got {', '.join(sources) or 'none'}: "
            f"give a folder in COCO's, PASCAL VOC's, labelme's or YOLO's format, or a .csv of boxes"
        )
    for source in SOURCES:
        if source.matches(sources[0]):
            column = label_column or "label"
            options = Options(root="", label_column=column, max_megapixels=max_megapixels)
            parts = source.read(sources[0], options)
            return parts if single_class is None else _of_one_class(parts, single_class)
    raise DataError(
        f"{sources[0]} has no boxes: give a folder with COCO's or labelme's annotations (.json), PASCAL "
        f"VOC's (.xml) or YOLO's (.txt, with the classes in data.yaml or classes.txt), or a .csv with "
        f"the columns path, xmin, ymin, xmax, ymax and label"
    )


def has_boxes(source: str) -> bool:
    """Whether a source looks like one of objects in images."""
    return any(one.matches(source) for one in SOURCES)


def _of_one_class(parts: AnnotatedParts[Detections], name: str) -> AnnotatedParts[Detections]:
    training, validation, test = (
        part and part.of_one_class(name) for part in (parts.training, parts.validation, parts.test)
    )
    return replace(parts, training=training, validation=validation, test=test)
