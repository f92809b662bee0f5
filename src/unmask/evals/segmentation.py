"""What a label map of pixels is worth: intersection over union and accuracy, from counts of pixels.

The counts of images, and of processes, are summed; every score follows from the sum.

Legend: B images, H x W pixels, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from unmask.evals.classification import confusion_matrix

IGNORE_INDEX = 255


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """Scores of one evaluation; NaN if there is nothing to divide by."""

    pixels: int
    """Labelled ones."""
    mean_iou: float
    """Mean intersection over union (Table 5), over classes that are labelled or predicted somewhere."""
    mean_accuracy: float
    """Mean share of a class's pixels that are right, over classes that have pixels."""
    pixel_accuracy: float
    """Share of all labelled pixels that are right."""
    iou: Float[Tensor, "K"]
    """NaN for a class that is neither labelled nor predicted anywhere."""
    accuracy: Float[Tensor, "K"]
    """NaN for a class without pixels."""
    confusion: Int[Tensor, "K K"]
    """Pixels by true class (row) and predicted class (column)."""

    def named(self) -> Iterator[tuple[str, float]]:
        """The numbers that fit into a line of metrics."""
        yield "mean_iou", self.mean_iou
        yield "mean_accuracy", self.mean_accuracy
        yield "pixel_accuracy", self.pixel_accuracy


def pixel_confusion(
    predicted: Int[Tensor, "*B H W"],
    labels: Int[Tensor, "*B H W"],
    classes: int,
    ignore_index: int = IGNORE_INDEX,
) -> Int[Tensor, "{classes} {classes}"]:
    """Pixels by true class (row) and predicted class (column), without those of the ignore index.

    Sum these int64 counts over images and processes. Raises ValueError for a label that is no class.
    """
    counted = labels != ignore_index
    taken, true = predicted[counted].long(), labels[counted].long()
    if len(true) and not 0 <= int(true.min()) <= int(true.max()) < classes:
        raise ValueError(
            f"a label map holds {int(true.min())} to {int(true.max())} and there are {classes} "
            f"classes: labels go from 0 to {classes - 1}, and {ignore_index} is ignored"
        )
    return confusion_matrix(taken, true, classes)


def segmentation_scores(confusion: Int[Tensor, "K K"]) -> SegmentationScores:
    """All scores, from counts of pixels by true class (row) and predicted class (column)."""
    confusion = confusion.cpu()
    right, true, predicted = confusion.diagonal().double(), confusion.sum(1), confusion.sum(0)
    iou, accuracy = right / (true + predicted - right), right / true
    return SegmentationScores(
        pixels=int(confusion.sum()),
        mean_iou=iou.nanmean().item(),
        mean_accuracy=accuracy.nanmean().item(),
        pixel_accuracy=(right.sum() / confusion.sum()).item(),
        iou=iou,
        accuracy=accuracy,
        confusion=confusion,
    )
