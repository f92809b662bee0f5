"""How a classifier does on labelled images: scores, and pictures of them.

Legend: n images, K classes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor

from unmask.config.plan import DataPlan, PixelFormat
from unmask.core.patches import Size
from unmask.data.bad_images import BadImageLog, none_readable
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.kept import KeptCrops
from unmask.data.labels import Labelled
from unmask.data.loader import CentreCrops, CropBatch
from unmask.data.normalize import normalize
from unmask.evals.classification import Scores, calibration, classification_scores
from unmask.models.classifier import Classifier
from unmask.viz.confusion import confusion_picture
from unmask.viz.predictions import mistakes_sheet, worst_mistakes
from unmask.viz.reliability import reliability_picture
from unmask.viz.tiles import Display, displayable

BATCH = 64
"""Fixed, so that an evaluation gives the same numbers wherever it is asked for."""
PICTURED_MISTAKES = 24

Watch = Callable[[Iterable[CropBatch], int], Iterable[CropBatch]]
"""Hands on all batches, of which there are so many: a progress bar, perhaps."""


def unwatched(batches: Iterable[CropBatch], total: int) -> Iterable[CropBatch]:
    """Nobody looks."""
    return batches


@dataclass(frozen=True, kw_only=True)
class View:
    """How evaluation looks at images."""

    size: Size
    pixels: PixelFormat
    mean: tuple[float, ...]
    std: tuple[float, ...]
    eval_crop: float
    workers: int
    display: tuple[int, ...] | None = None

    @classmethod
    def of(cls, plan: DataPlan) -> "View":
        """The one that a run plans."""
        return cls(
            size=plan.image_size,
            pixels=plan.pixels,
            mean=plan.mean,
            std=plan.std,
            eval_crop=plan.eval_crop,
            workers=plan.workers,
            display=plan.display,
        )

    def shown(self) -> Display:
        """How its images are drawn."""
        stretch = self.pixels.pixel_type == "float32"
        return Display(self.mean, self.std, self.display, stretch=stretch)


class Predicted(NamedTuple):
    """Logits [n, K] of the readable images, whose numbers in the data are `numbers`."""

    logits: Tensor
    numbers: list[int]
    bad: list[BadImage]


class Predictions:
    """Logits of images in their order; small data sets are decoded once."""

    def __init__(self, images: Images, view: View, *, watch: Watch = unwatched):
        """`watch` sees every batch go by, and is told how many there are."""
        self.images, self.view, self.watch = images, view, watch
        self.batches = KeptCrops(self._centre_crops(images), batch=BATCH, workers=view.workers)

    def of(self, model: Classifier) -> Predicted:
        """What the model says of every readable image."""
        parts = list(self.each(model))
        return Predicted(
            torch.cat([part.logits for part in parts]),
            [number for part in parts for number in part.numbers],
            [bad for part in parts for bad in part.bad],
        )

    @torch.inference_mode()
    def each(self, model: Classifier) -> Iterator[Predicted]:
        """The same, batch by batch."""
        device, trained = next(model.parameters()).device, model.training
        model.eval()
        for batch in self.watch(self.batches, -(-len(self.images) // BATCH)):
            logits = torch.empty(0, model.head.out_features)
            if batch.numbers:
                crops = batch.images.to(device, non_blocking=True)
                normal = normalize(crops, self.view.mean, self.view.std)
                logits = model(normal).float().cpu()
            yield Predicted(logits, batch.numbers, batch.bad)
        model.train(trained)

    def crops(self, numbers: list[int]) -> Tensor:
        """Some images as the model takes them, normalised."""
        view, some = self.view, self._centre_crops(self.images.subset(numbers))
        parts = [normalize(batch.images, view.mean, view.std) for batch in some.batches(BATCH)]
        return torch.cat([torch.empty(0, view.pixels.channels, *view.size), *parts])

    def _centre_crops(self, images: Images) -> CentreCrops:
        view = self.view
        return CentreCrops(images, size=view.size, wanted=view.pixels, share=view.eval_crop)


class Validation:
    """Scores on labelled images that were not trained on."""

    def __init__(
        self,
        labelled: Labelled,
        view: View,
        *,
        watch: Watch = unwatched,
        bad_images: BadImageLog | None = None,
    ):
        """`bad_images`: where `scores` writes down what it cannot read."""
        self.labelled, self.bad_images = labelled, bad_images
        self.predictions = Predictions(labelled.images, view, watch=watch)

    def run(self, model: Classifier) -> Iterator[tuple[str, float]]:
        """Yields the numbers, as val/NAME."""
        scores, predicted = self.scores(model)
        yield "val/unreadable", len(predicted.bad)
        for name, value in scores.named():
            yield f"val/{name}", value

    def scores(self, model: Classifier) -> tuple[Scores, Predicted]:
        """All scores, and what they are of.

        Raises DataError where no image can be read, or fewer than the log allows.
        """
        predicted = self.predictions.of(model)
        if not predicted.numbers:
            raise none_readable(predicted.bad)
        if self.bad_images is not None:
            self.bad_images.add(predicted.bad)
        return classification_scores(predicted.logits, self.labels(predicted)), predicted

    def labels(self, predicted: Predicted) -> Tensor:
        """Of the readable images."""
        return torch.from_numpy(self.labelled.labels[predicted.numbers])

    def pictures(self, scores: Scores, predicted: Predicted) -> Iterator[tuple[str, Image]]:
        """Confusion matrix, worst mistakes and calibration."""
        probabilities, labels = predicted.logits.softmax(dim=1), self.labels(predicted)
        names = self.labelled.classes
        yield "confusion", confusion_picture(scores.confusion, names)
        worst = worst_mistakes(probabilities, labels, PICTURED_MISTAKES)
        crops = self.predictions.crops([predicted.numbers[i] for i in worst.tolist()])
        shown = displayable(crops, self.predictions.view.shown())
        yield "mistakes", mistakes_sheet(shown, probabilities[worst], labels[worst], names)
        yield "calibration", reliability_picture(calibration(probabilities, labels))


class ValidationPictures:
    """The pictures of a validation, as an evaluator of their own, since they are drawn less often."""

    def __init__(self, validation: Validation):
        self.validation = validation

    def run(self, model: Classifier) -> Iterator[tuple[str, Image]]:
        """Draws what the model at hand does."""
        yield from self.validation.pictures(*self.validation.scores(model))
