"""How a segmenter does on whole images: classes of pixels, scores, and pictures of them.

Legend: B images, C channels, H x W pixels of an image as it is, h x w of one as the model sees it, K
classes.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from unmask.config.image import ImageSpec, PixelFormat
from unmask.config.plan import LoadingPlan
from unmask.core.spec import Size
from unmask.data.bad_images import BadImageLog, none_readable
from unmask.data.centre_crops import CentreCrops
from unmask.data.decode.pictures import BadImage, Picture
from unmask.data.dense import size_within, whole_image
from unmask.data.images import Images
from unmask.data.maps import LabelMaps, refuse_wrong_size
from unmask.data.placement import cut_image, placed_labels
from unmask.data.split import spread
from unmask.distributed.processes import ALONE, Processes
from unmask.evals.segmentation import SegmentationScores, pixel_confusion, segmentation_scores
from unmask.inference import evaluating, infer
from unmask.models.segmenter import Segmenter
from unmask.models.segmenter_spec import SegmenterSpec
from unmask.models.sliding import slide
from unmask.tasks.reconstruction import display_of
from unmask.viz.confusion import confusion_figure
from unmask.viz.segmentation import Scene, colours_of, segmentation_sheet
from unmask.viz.tiles import displayable

PICTURED = 8
STRIDE = 2 / 3
"""Stride as a share of a window's side: 341 of 512 pixels (Table 5's settings)."""
CLASSES_AT_ONCE = 16
"""Are enlarged to an image's size together: all of many would not fit into memory."""


class PixelScores(NamedTuple):
    """All scores, and what could not be read."""

    scores: SegmentationScores
    images: int
    """Readable ones."""
    unreadable: list[BadImage]


def sides_of(source: Size, sides: Size | None) -> Size:
    """The longer and the shorter side that an image stays within; its own if there are none."""
    return (max(source), min(source)) if sides is None else sides


def whole_images(
    images: Images,
    image: ImageSpec,
    sides: Size | None,
    loading: LoadingPlan,
    indices: Sequence[int] | None = None,
) -> CentreCrops:
    """Whole images, one at a time, resized to stay within `sides`."""
    wanted = image.pixels(loading.max_megapixels)
    return CentreCrops(
        images,
        image,
        max_megapixels=loading.max_megapixels,
        batch=1,
        workers=loading.workers,
        timeout=loading.timeout,
        indices=indices,
        cut=partial(_whole, wanted=wanted, sides=sides),
    )


def _whole(picture: Picture, *, wanted: PixelFormat, sides: Size | None) -> Tensor:
    size = size_within(picture.size, *sides_of(picture.size, sides))
    enough = min(1.0, max(size[0] / picture.size[0], size[1] / picture.size[1]))
    pixels = picture.pixels(wanted, enough)
    return cut_image(pixels, whole_image(picture.size, size))


def slid(model: Segmenter, images: Tensor, window: Size) -> Tensor:
    """float32 [B, K, h, w]: logits of normalised whole images, by windows that overlap by a third."""
    stride = max(1, round(STRIDE * window[0])), max(1, round(STRIDE * window[1]))
    return slide(lambda part: model(part).logits.float(), images, window=window, stride=stride)


def most_probable_classes(logits: Tensor, size: Size) -> Tensor:
    """int64 [B, H, W]: the classes with the highest logits [B, K, h, w], enlarged bilinearly."""
    best, chosen = logits.new_full((), -torch.inf), torch.zeros((), dtype=torch.int64)
    chosen = chosen.to(logits.device)
    for first in range(0, logits.shape[1], CLASSES_AT_ONCE):
        some = logits[:, first : first + CLASSES_AT_ONCE]
        if some.shape[2:] != size:
            some = F.interpolate(some, size=size, mode="bilinear", align_corners=False)
        values, classes = some.max(dim=1)
        higher = values > best
        best = torch.where(higher, values, best)
        chosen = torch.where(higher, classes + first, chosen)
    return chosen


def score_pixels(
    model: Segmenter,
    maps: LabelMaps,
    image: ImageSpec,
    loading: LoadingPlan,
    *,
    processes: Processes = ALONE,
    title: str = "",
) -> PixelScores:
    """Scores on whole images at their own size, on every process, each of which looks at its share.

    Raises DataError, with the file's name, if a label map is bad, or if no image can be read.
    """
    spec, bad, readable = model.spec, list[BadImage](), 0
    confusion = torch.zeros(len(spec.classes), len(spec.classes), dtype=torch.int64)
    with evaluating(model) as device:
        mine = processes.share(len(maps))
        crops = whole_images(maps.images, image, spec.sides, loading, mine)
        for rows in infer(partial(slid, model, window=image.size), crops, device, title=title):
            bad += rows.unreadable
            for index in rows.indices:
                labels = maps.labels(index)
                refuse_wrong_size(maps, index, labels)
                true = torch.from_numpy(labels)[None].to(device)
                predicted = most_probable_classes(rows.output, (labels.shape[0], labels.shape[1]))
                confusion += pixel_confusion(predicted, true, len(spec.classes), maps.ignore_index).cpu()
                readable += 1
        confusion = processes.sum(confusion.to(device)).cpu()
    found = processes.gather((readable, bad))
    readable, bad = sum(count for count, _ in found), [one for _, part in found for one in part]
    if not readable:
        raise none_readable(bad)
    return PixelScores(segmentation_scores(confusion), readable, bad)


class PixelValidation:
    """Scores on validation images, as an evaluator of a run."""

    def __init__(self, maps: LabelMaps, image: ImageSpec, loading: LoadingPlan, bad_images: BadImageLog):
        """`bad_images`: where the main process writes down what cannot be read."""
        self.maps, self.image, self.loading, self.bad_images = maps, image, loading, bad_images

    def run(self, model: Segmenter, processes: Processes) -> Iterator[tuple[str, float]]:
        """Yields val/mean_iou and its like, and val/iou/CLASS for each class."""
        found = self.score(model, processes)
        yield "val/unreadable", len(found.unreadable)
        for name, value in found.scores.named():
            yield f"val/{name}", value
        for name, value in zip(self.maps.classes, found.scores.iou.tolist(), strict=True):
            yield f"val/iou/{name}", value

    def score(self, model: Segmenter, processes: Processes) -> PixelScores:
        """All scores; raises DataError if fewer images can be read than the log allows."""
        found = score_pixels(model, self.maps, self.image, self.loading, processes=processes)
        if processes.is_main:
            self.bad_images.add(found.unreadable)
        return found


class PixelFigures:
    """The pictures of a validation, as an evaluator of their own, since they are drawn less often."""

    def __init__(self, validation: PixelValidation):
        self.validation = validation

    def run(self, model: Segmenter, processes: Processes) -> Iterator[tuple[str, Image]]:
        """Draws what the model at hand does."""
        v = self.validation
        found = v.score(model, processes)
        if processes.is_main:
            yield from pixel_figures(model, v.maps, v.image, v.loading, found.scores.confusion)


def pixel_figures(
    model: Segmenter, maps: LabelMaps, image: ImageSpec, loading: LoadingPlan, confusion: Tensor
) -> Iterator[tuple[str, Any]]:
    """Some images with truth, prediction and errors; and the confusion matrix, counted in pixels."""
    chosen = spread(maps.images, PICTURED)
    scenes = list(scenes_of(model, maps.images.subset(chosen), image, loading, maps.subset(chosen)))
    if scenes:
        colours = colours_of(model.spec)
        sheet = segmentation_sheet(scenes, maps.classes, colours, ignore_index=maps.ignore_index)
        yield "segmentation", sheet
    yield "confusion", confusion_figure(confusion, maps.classes, counted="pixels")


def scenes_of(
    model: Segmenter,
    images: Images,
    image: ImageSpec,
    loading: LoadingPlan,
    maps: LabelMaps | None = None,
) -> Iterator[Scene]:
    """The readable images as the model sees them, with what it says of each pixel, and the truth."""
    display = display_of(image)

    def seen(normal: Tensor) -> tuple[np.ndarray, np.ndarray]:
        logits = slid(model, normal, image.size)
        predicted = most_probable_classes(logits, (logits.shape[2], logits.shape[3]))
        return displayable(normal, display)[0], predicted[0].cpu().numpy()

    with evaluating(model) as device:
        crops = whole_images(images, image, model.spec.sides, loading)
        for rows in infer(seen, crops, device):
            for index in rows.indices:
                picture, predicted = rows.output
                truth = None if maps is None else _truth(maps, index, picture.shape[:2])
                yield Scene(picture, predicted, truth)


def _truth(maps: LabelMaps, index: int, size: Size) -> np.ndarray:
    labels = maps.labels(index)
    placement = whole_image((labels.shape[0], labels.shape[1]), (size[0], size[1]))
    return placed_labels(torch.from_numpy(labels), placement, maps.ignore_index).numpy()


def model_spec(model: Any) -> SegmenterSpec:
    """The spec of a plan's or a description's model, which is a segmenter's."""
    assert isinstance(model, SegmenterSpec)
    return model
