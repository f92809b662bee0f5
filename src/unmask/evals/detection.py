"""Average precision, as COCO defines it, and which objects were found.

Legend: N images, K classes, T thresholds of overlap, R levels of recall, G objects, n detections.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_area, box_iou

from unmask.evals.objects import FoundObjects, TrueObjects, coco_masks, coco_results

Kind = Literal["boxes", "masks"]

COCO_OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).tolist())
MOST_DETECTIONS = 100
"""At most so many detections of an image count in COCO's average precision."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Average precision over overlaps of 0.5 to 0.95, and parts of it; NaN without such objects."""

    ap: float
    ap50: float
    ap75: float
    small: float
    """AP of objects below 32 x 32 pixels; medium ones are up to 96 x 96."""
    medium: float
    large: float
    recall: float
    """The highest, mean over overlaps and classes."""
    per_class: dict[str, float]
    per_class50: dict[str, float]
    curves: Float[Tensor, "T R K"]
    """Precision at 101 levels of recall from 0 to 1; NaN for classes without objects."""

    def named(self) -> Iterator[tuple[str, float]]:
        """The numbers that fit into a line of metrics."""
        for name in ("ap", "ap50", "ap75", "small", "medium", "large", "recall"):
            yield name, getattr(self, name)


def average_precision(
    truth: Sequence[TrueObjects], found: Sequence[FoundObjects], classes: Sequence[str], kind: Kind
) -> Precision:
    """COCO's average precision of boxes or masks over images, in order in both lists.

    Raises DataError if faster-coco-eval is not installed.
    """
    precision, recall = _evaluated(truth, found, len(classes), kind, COCO_OVERLAPS)
    everything = precision[..., 0]
    return Precision(
        ap=_mean(everything),
        ap50=_mean(everything[0]),
        ap75=_mean(everything[5]),
        small=_mean(precision[..., 1]),
        medium=_mean(precision[..., 2]),
        large=_mean(precision[..., 3]),
        recall=_mean(recall[..., 0]),
        per_class={name: _mean(everything[..., k]) for k, name in enumerate(classes)},
        per_class50={name: _mean(everything[0, :, k]) for k, name in enumerate(classes)},
        curves=torch.from_numpy(np.where(everything < 0, np.nan, everything)).float(),
    )


def recall_at(
    truth: Sequence[TrueObjects],
    found: Sequence[FoundObjects],
    classes: Sequence[str],
    kind: Kind,
    overlap: float,
) -> float:
    """The share of objects found with this overlap, mean over classes; NaN without objects."""
    _, recall = _evaluated(truth, found, len(classes), kind, (overlap,))
    return _mean(recall[..., 0])


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Which of an image's detections are which objects.

    `object_of` is an object's index, -1 for one that is not there, -2 for one that lies in a crowd.
    """

    object_of: Int[Tensor, "n"]
    missed: Bool[Tensor, "G"]


def matches(truth: TrueObjects, found: FoundObjects, *, overlap: float = 0.5) -> Matches:
    """Pairs boxes of one class, best scores first, each with the free object that it overlaps most."""
    overlaps = box_iou(found.boxes, truth.boxes)
    overlaps = overlaps * (found.labels[:, None] == truth.labels)
    object_of = torch.full((len(found.boxes),), -1)
    missed = ~truth.crowd
    for i in found.scores.argsort(descending=True, stable=True).tolist():
        free = overlaps[i] * missed
        if len(free) and free.max() >= overlap:
            object_of[i] = int(free.argmax())
            missed[object_of[i]] = False
        elif _within_crowd(truth, found, i, overlap):
            object_of[i] = -2
    return Matches(object_of=object_of, missed=missed)


def _within_crowd(truth: TrueObjects, found: FoundObjects, i: int, overlap: float) -> bool:
    """A crowd's overlap counts by the detection's area alone."""
    crowds = truth.boxes[truth.crowd & (truth.labels == found.labels[i])]
    box = found.boxes[i]
    low, high = torch.maximum(crowds[:, :2], box[:2]), torch.minimum(crowds[:, 2:], box[2:])
    common = (high - low).clamp(min=0).prod(dim=1)
    return bool((common >= overlap * box_area(box[None])).any())


def _evaluated(
    truth: Sequence[TrueObjects],
    found: Sequence[FoundObjects],
    classes: int,
    kind: Kind,
    overlaps: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Precision [T, R, K, areas] and recall [T, K, areas], -1 for nothing to find.

    The areas are all, small, medium, large.
    """
    coco_masks()  # says what to install
    from faster_coco_eval import COCO, COCOeval_faster

    expected, results = coco_truth(truth, classes), coco_found(found)
    with contextlib.redirect_stdout(io.StringIO()):
        there = COCO(expected)
        seen = there.loadRes(results) if results else COCO({**expected, "annotations": []})
        run = COCOeval_faster(there, seen, "bbox" if kind == "boxes" else "segm")
        run.params.iouThrs = np.asarray(overlaps)
        run.params.maxDets = [1, 10, MOST_DETECTIONS]
        run.evaluate()
        run.accumulate()
    shape = (len(overlaps), -1, classes, 4, 3)
    precision = np.asarray(run.eval["precision"]).reshape(shape)
    return precision[..., -1], np.asarray(run.eval["recall"]).reshape(len(overlaps), classes, 4, 3)[
        ..., -1
    ]


def coco_truth(truth: Sequence[TrueObjects], classes: int) -> dict[str, Any]:
    """Annotations as COCO's file has them; images and classes are numbered from 1."""
    annotations: list[dict[str, Any]] = []
    for image, objects in enumerate(truth, start=1):
        for i, (left, top, right, bottom) in enumerate(objects.boxes.tolist()):
            row = {
                "id": len(annotations) + 1,  # from 1: 0 would count as no match
                "image_id": image,
                "category_id": int(objects.labels[i]) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": float(objects.areas[i]),
                "iscrowd": int(objects.crowd[i]),
            }
            segmentation = {} if objects.masks is None else {"segmentation": objects.masks[i]}
            annotations.append({**row, **segmentation})
    return {
        "info": {},
        "images": [
            {"id": i, "height": objects.size[0], "width": objects.size[1]}
            for i, objects in enumerate(truth, start=1)
        ],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
        "annotations": annotations,
    }


def coco_found(found: Sequence[FoundObjects]) -> list[dict[str, Any]]:
    """Results as COCO's file has them, for `coco_truth` of the same images."""
    labels = 1 + max([0, *(int(f.labels.max()) for f in found if len(f.labels))])
    ids = range(1, labels + 1)
    return [
        row
        for image, objects in enumerate(found, start=1)
        for row in coco_results(objects, image_id=image, category_ids=ids)
    ]


def _mean(values: np.ndarray) -> float:
    there = values[values > -1]
    return float(there.mean()) if there.size else float("nan")
