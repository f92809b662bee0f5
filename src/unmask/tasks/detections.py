"""What a detector finds in whole images, how well, and pictures of it.

Legend: B images of a batch, C channels, H x W pixels of an image.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from unmask.config.image import ImageSpec
from unmask.config.plan import LoadingPlan
from unmask.core.spec import Size
from unmask.data.bad_images import BadImageLog
from unmask.data.centre_crops import CentreCrops
from unmask.data.decode.pictures import BadImage, Picture
from unmask.data.images import Images
from unmask.data.instances import Detections, Instances
from unmask.data.normalize import normalize
from unmask.data.split import spread
from unmask.distributed.processes import ALONE, Processes
from unmask.evals.detection import Precision, average_precision, matches
from unmask.evals.objects import (
    Code,
    FoundObjects,
    TrueObjects,
    encode,
    found_objects,
    merge_tiles,
    tile_corners,
)
from unmask.inference import Rows, evaluating, infer
from unmask.models.detector import Detector
from unmask.tasks.objects import refuse_other_size
from unmask.tasks.reconstruction import display_of
from unmask.viz.detections import (
    SHOWN_SCORE,
    Case,
    beside_truth_sheet,
    objects_statistics_figure,
    precision_recall_figure,
    worst_cases_sheet,
)
from unmask.viz.tiles import displayable

PICTURED, WORST = 8, 8
TILE_OVERLAP = 0.25
"""Overlap of tiles as a share of their side: an object up to this size is whole in at least one tile."""

CAPTIONS: Mapping[str, str] = {
    "objects": "Ground truth and detections",
    "worst": "Missed objects and false positives",
    "precision-recall": "Precision-recall curve of boxes",
    "precision-recall-masks": "Precision-recall curve of masks",
    "statistics": "Objects of the training images",
}


class Finder:
    """Finds the objects of whole images of any size, one at a time."""

    def __init__(self, model: Detector, canvas: Size, *, tile: int | None = None):
        """`tile`: images that are larger are cut into overlapping squares of so many pixels."""
        self.model, self.canvas, self.tile = model, canvas, tile

    def __call__(self, images: Tensor) -> FoundObjects:
        """Takes [1, C, H, W], normalised, at the image's own size."""
        size = (images.shape[2], images.shape[3])
        if self.tile is None or max(size) <= self.tile:
            return self._whole(images)
        side = (min(self.tile, size[0]), min(self.tile, size[1]))
        corners = tile_corners(size, side, int(TILE_OVERLAP * min(side)))
        tiles = [self._whole(images[..., y : y + side[0], x : x + side[1]]) for y, x in corners]
        return merge_tiles(tiles, corners, size)

    def _whole(self, images: Tensor) -> FoundObjects:
        size = (images.shape[2], images.shape[3])
        seen = _fitted(size, self.canvas)
        if seen != size:
            images = F.interpolate(images, seen, mode="bilinear", antialias=True, align_corners=False)
        (detection,) = self.model(images, [seen])
        return found_objects(detection, seen=seen, size=size)


class Judged(NamedTuple):
    """What was found in images, beside what is there, and how precise it is."""

    truth: list[TrueObjects]
    rows: Rows
    boxes: Precision
    masks: Precision | None

    def named(self) -> Iterator[tuple[str, float]]:
        """The scores that can be told, as box_ap, box_ap50, box_small, ..., mask_ap, ..."""
        for kind, precision in (("box", self.boxes), ("mask", self.masks)):
            for name, value in precision.named() if precision else ():
                if not math.isnan(value):
                    yield f"{kind}_{name}", value


def find_all(
    finder: Finder,
    images: Images,
    image: ImageSpec,
    loading: LoadingPlan,
    device: torch.device,
    *,
    processes: Processes = ALONE,
    title: str = "",
) -> Iterator[Rows]:
    """What is found in this process's share of the images, image by image: a FoundObjects each."""
    pixels = image.pixels(loading.max_megapixels)
    crops = CentreCrops(
        images,
        image,
        max_megapixels=loading.max_megapixels,
        batch=1,
        workers=loading.workers,
        timeout=loading.timeout,
        indices=processes.share(len(images)),
        cut=lambda picture: picture.pixels(pixels),
    )
    return infer(finder, crops, device, title=title)


def judge(
    model: Detector,
    data: Detections,
    image: ImageSpec,
    loading: LoadingPlan,
    *,
    processes: Processes = ALONE,
    tile: int | None = None,
    title: str = "",
) -> Judged | None:
    """How well a detector finds the objects of images; only the main process is told.

    Each process looks at its share. Raises DataError, on all, if no image can be read.
    """
    found, bad = list[tuple[int, FoundObjects]](), list[BadImage]()
    with evaluating(model) as device:
        finder = Finder(model, image.size, tile=tile)
        for rows in find_all(
            finder, data.images, image, loading, device, processes=processes, title=title
        ):
            bad += rows.unreadable
            for index in rows.indices:
                try:
                    refuse_other_size(data, index, rows.output.size)
                    found.append((index, rows.output))
                except ValueError as error:
                    bad.append(BadImage(data.images.paths[index], str(error)))
    parts = processes.gather((found, bad))
    everything = sorted((row for part, _ in parts for row in part), key=lambda row: row[0])
    unreadable = [one for _, part in parts for one in part]
    indices = [index for index, _ in everything]
    rows = Rows([one for _, one in everything], indices, unreadable).checked()
    if not processes.is_main:
        return None
    return score(data, rows, masks=model.spec.masks)


def score(data: Detections, rows: Rows, *, masks: bool) -> Judged:
    """The precision of what `rows` found; of masks only if the detector and the data have them."""
    with_masks = masks and data.instances.has_masks
    truth = [
        true_objects(data.instances[index], found.size, masks=with_masks)
        for index, found in zip(rows.indices, rows.output, strict=True)
    ]
    by_kind = [
        average_precision(truth, rows.output, data.classes, kind)
        for kind in (("boxes", "masks") if with_masks else ("boxes",))
    ]
    return Judged(truth, rows, by_kind[0], by_kind[1] if with_masks else None)


def true_objects(instances: Instances, size: Size, *, masks: bool) -> TrueObjects:
    """An image's objects as evaluation takes them; without `masks` areas are those of the boxes.

    An object without a mask counts as if it filled its box.
    """
    boxes = torch.from_numpy(instances.boxes).float()
    areas, codes = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1), list[Code]()
    for i in range(len(boxes) if masks else 0):
        covered = torch.from_numpy(instances.pixels(i, size))
        if not covered.any():
            left, top, right, bottom = boxes[i].round().int().tolist()
            covered[top:bottom, left:right] = True
        areas[i] = covered.sum()
        codes += encode(covered[None])
    return TrueObjects(
        size=size,
        boxes=boxes,
        labels=torch.from_numpy(instances.labels),
        crowd=torch.from_numpy(instances.crowd),
        areas=areas,
        masks=tuple(codes) if masks else None,
    )


class Validation:
    """Average precision on images that were not trained on, as an evaluator of a run."""

    def __init__(
        self,
        data: Detections,
        image: ImageSpec,
        loading: LoadingPlan,
        *,
        bad_images: BadImageLog | None = None,
    ):
        """`bad_images`: where the main process writes down what cannot be read."""
        self.data, self.image, self.loading, self.bad_images = data, image, loading, bad_images

    def run(self, model: Detector, processes: Processes) -> Iterator[tuple[str, float]]:
        """Yields detection/box_ap and the like, and that of each class."""
        judged = self.judge(model, processes)
        if judged is None:
            return
        yield "detection/unreadable", len(judged.rows.unreadable)
        for name, value in judged.named():
            yield f"detection/{name}", value
        for name, value in judged.boxes.per_class.items():
            if not math.isnan(value):
                yield f"detection/box_ap of {name}", value

    def judge(self, model: Detector, processes: Processes) -> Judged | None:
        """See `judge`; what cannot be read is written down."""
        judged = judge(model, self.data, self.image, self.loading, processes=processes)
        if judged and self.bad_images is not None:
            self.bad_images.add(judged.rows.unreadable)
        return judged


class DetectionFigures:
    """The pictures of a validation, as an evaluator of their own, since they are drawn less often."""

    def __init__(self, validation: Validation, training: Detections):
        self.validation, self.training = validation, training
        self._described = False

    def run(self, model: Detector, processes: Processes) -> Iterator[tuple[str, Image]]:
        """Draws what the model at hand finds, and once the statistics of the training images."""
        judged = self.validation.judge(model, processes)
        if judged is None:
            return
        yield from pictures(self.validation.data, self.validation.image, judged)
        if not self._described:
            self._described = True
            yield "statistics", statistics_figure(self.training)


def statistics_figure(data: Detections) -> Image:
    """How many objects each class has, how large their boxes are, and how many an image holds."""
    size = (0, 0)  # boxes alone need none
    truth = [true_objects(one, size, masks=False) for one in data.instances]
    return objects_statistics_figure(truth, data.classes)


def pictures(data: Detections, image: ImageSpec, judged: Judged) -> Iterator[tuple[str, Any]]:
    """Truth beside detections, the worst cases, and precision by recall."""
    readable = data.images.subset(judged.rows.indices)
    few = _cases(data, image, judged, spread(readable, PICTURED).tolist())
    yield "objects", beside_truth_sheet(few, data.classes)
    chosen, counts = _worst(judged)
    worst = _cases(data, image, judged, chosen)
    yield "worst", worst_cases_sheet(worst, data.classes, count=WORST, counts=counts)
    yield "precision-recall", precision_recall_figure(judged.boxes, data.classes)
    if judged.masks:
        yield "precision-recall-masks", precision_recall_figure(judged.masks, data.classes)


def shown(images: Images, index: int, image: ImageSpec) -> np.ndarray:
    """One whole image as a screen shows it, uint8 [H, W, 3]."""
    wanted = image.pixels()

    def whole(picture: Picture) -> Tensor:
        return picture.pixels(wanted)

    pixels = images.take(index, wanted, whole)
    assert isinstance(pixels, Tensor), "it could be read before"
    return displayable(normalize(pixels[None], image.mean, image.std), display_of(image))[0]


def _cases(data: Detections, image: ImageSpec, judged: Judged, places: list[int]) -> list[Case]:
    rows = judged.rows
    return [
        Case(
            picture=shown(data.images, rows.indices[i], image),
            truth=judged.truth[i],
            found=rows.output[i],
        )
        for i in places
    ]


def _worst(judged: Judged) -> tuple[list[int], tuple[int, int]]:
    """Places of the images that hold the worst cases, and how many are missed and invented in all."""
    missed, invented = list[tuple[float, int]](), list[tuple[float, int]]()
    for i, (truth, found) in enumerate(zip(judged.truth, judged.rows.output, strict=True)):
        confident = found.select(torch.nonzero(found.scores >= SHOWN_SCORE)[:, 0])
        matched = matches(truth, confident)
        missed += [(float(area), i) for area in truth.areas[matched.missed]]
        invented += [(float(score), i) for score in confident.scores[matched.object_of == -1]]
    worst = [*sorted(missed)[-WORST:], *sorted(invented)[-WORST:]]
    return sorted({i for _, i in worst}), (len(missed), len(invented))


def _fitted(size: Size, canvas: Size) -> Size:
    """The size at which a whole image just fits on the canvas."""
    factor = min(canvas[0] / size[0], canvas[1] / size[1])
    return max(1, round(factor * size[0])), max(1, round(factor * size[1]))
