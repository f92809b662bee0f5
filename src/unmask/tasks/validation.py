"""How a classifier does on labelled images: scores, and pictures of them.

Legend: n images, B images of a batch, C channels, H x W pixels, K classes.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor

from unmask.config.image import ImageSpec
from unmask.config.plan import LoadingPlan
from unmask.data.bad_images import BadImageLog
from unmask.data.centre_crops import load_centre_crops
from unmask.data.normalize import normalize
from unmask.data.records import Labelled
from unmask.distributed.processes import Processes
from unmask.evals.classification import Scores, calibration, classification_scores
from unmask.inference import Rows, SharedCrops
from unmask.models.classifier import Classifier
from unmask.tasks.reconstruction import display_of
from unmask.viz.confusion import confusion_figure
from unmask.viz.predictions import mistakes_sheet, worst_mistakes
from unmask.viz.reliability import reliability_figure
from unmask.viz.tiles import displayable

PICTURED_MISTAKES = 24


class Scored(NamedTuple):
    """All scores, and the logits [n, K] that they are of."""

    scores: Scores
    predicted: Rows


class Validation:
    """Scores on labelled images that were not trained on, as an evaluator of a run."""

    def __init__(
        self,
        labelled: Labelled,
        image: ImageSpec,
        loading: LoadingPlan,
        *,
        bad_images: BadImageLog | None = None,
    ):
        """`bad_images`: where the main process writes down what cannot be read."""
        self.labelled, self.image, self.bad_images = labelled, image, bad_images
        self.crops = SharedCrops(labelled.images, image, loading)

    def run(self, model: Classifier, processes: Processes) -> Iterator[tuple[str, float]]:
        """Yields the scores, as val/NAME."""
        scores, predicted = self.score(model, processes)
        yield "val/unreadable", len(predicted.unreadable)
        yield "val/images", scores.images
        yield "val/commonest_class", scores.commonest_class
        for name, value in scores.named():
            yield f"val/{name}", value

    def score(self, model: Classifier, processes: Processes) -> Scored:
        """All scores, on every process.

        Raises DataError if no image can be read, or fewer than the log allows.
        """
        predicted = self.crops.rows(model, model, processes).checked()
        if self.bad_images is not None:
            self.bad_images.add(predicted.unreadable)
        labels = labels_of(self.labelled, predicted.indices)
        return Scored(classification_scores(predicted.output, labels), predicted)


class ValidationFigures:
    """The pictures of a validation, as an evaluator of their own, since they are drawn less often."""

    def __init__(self, validation: Validation):
        self.validation = validation

    def run(self, model: Classifier, processes: Processes) -> Iterator[tuple[str, Image]]:
        """Draws what the model at hand does."""
        scored = self.validation.score(model, processes)
        if processes.is_main:
            yield from pictures(self.validation.labelled, self.validation.image, scored)


def pictures(labelled: Labelled, image: ImageSpec, scored: Scored) -> Iterator[tuple[str, Any]]:
    """Confusion matrix, most confident errors and calibration."""
    scores, predicted = scored
    probabilities, labels = predicted.output.softmax(dim=1), labels_of(labelled, predicted.indices)
    yield "confusion", confusion_figure(scores.confusion, labelled.classes)
    worst = worst_mistakes(probabilities, labels, PICTURED_MISTAKES)
    crops = torch.empty(0, image.channels, *image.size)
    chosen = labelled.images.subset([predicted.indices[i] for i in worst.tolist()])
    if len(worst):
        crops = normalize(load_centre_crops(chosen, image), image.mean, image.std)
    shown = displayable(crops, display_of(image))
    of_worst = probabilities[worst], labels[worst], labelled.classes, chosen.paths
    yield "mistakes", mistakes_sheet(shown, *of_worst)
    yield "calibration", reliability_figure(calibration(probabilities, labels))


def labels_of(labelled: Labelled, indices: list[int]) -> Tensor:
    """int64 [n]: the classes of some images."""
    return torch.from_numpy(labelled.labels[indices])
