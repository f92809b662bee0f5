"""What a classifier's outputs are worth.

Legend: N images, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Scores:
    """Numbers of one evaluation. NaN if a class has no images, or none were predicted as it."""

    images: int
    top1: float
    top5: float
    """True class among the five most probable, or among all of fewer classes."""
    balanced_accuracy: float
    """Mean recall of the classes that have images."""
    nll: float
    """Mean negative log-likelihood, in nats."""
    calibration_error: float
    recall: Float[Tensor, "K"]
    precision: Float[Tensor, "K"]
    f1: Float[Tensor, "K"]
    confusion: Int[Tensor, "K K"]
    """Images by true class (row) and predicted class (column)."""

    @property
    def commonest_class(self) -> float:
        """The share of the images that are of the largest class: what always saying it scores."""
        return self.confusion.sum(1).max().item() / self.images

    def named(self) -> Iterator[tuple[str, float]]:
        """The numbers that fit into a line of metrics."""
        yield "top1", self.top1
        yield "top5", self.top5
        yield "balanced_accuracy", self.balanced_accuracy
        yield "nll", self.nll
        yield "calibration_error", self.calibration_error


def classification_scores(logits: Float[Tensor, "N K"], labels: Int[Tensor, "N"]) -> Scores:
    """All scores at once, on the CPU. Probabilities will do as logits if one takes their logarithm.

    Raises ValueError if there are no images, or labels that are no class.
    """
    N, K = logits.shape
    if not N or not 0 <= int(labels.min()) <= int(labels.max()) < K:
        raise ValueError(
            f"{N} predictions over {K} classes cannot be scored against {len(labels)} labels: give at "
            f"least one image, and labels from 0 to {K - 1}"
        )
    logits, labels = logits.detach().float().cpu(), labels.cpu()
    log_probabilities = logits.log_softmax(dim=1)
    confusion = confusion_matrix(logits.argmax(dim=1), labels, K)
    recall, precision, f1 = per_class(confusion)
    return Scores(
        images=N,
        top1=confusion.diagonal().sum().item() / N,
        top5=top_k_accuracy(logits, labels, 5),
        balanced_accuracy=recall.nanmean().item(),
        nll=-log_probabilities.gather(1, labels[:, None]).double().mean().item(),
        calibration_error=calibration(log_probabilities.exp(), labels).error,
        recall=recall,
        precision=precision,
        f1=f1,
        confusion=confusion,
    )


def confusion_matrix(
    predicted: Int[Tensor, "N"], labels: Int[Tensor, "N"], classes: int
) -> Int[Tensor, "{classes} {classes}"]:
    """Counts by true class (row) and predicted class (column)."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def largest_confusions(confusion: Int[Tensor, "K K"], most: int) -> list[tuple[int, int, int]]:
    """(true class, predicted class, images), the most frequent mistakes first."""
    counts = confusion.clone().fill_diagonal_(0)
    found = counts.flatten().argsort(descending=True, stable=True)[:most]
    cells = [divmod(int(i), len(counts)) for i in found]
    return [(true, wrong, int(counts[true, wrong])) for true, wrong in cells if counts[true, wrong]]


def per_class(
    confusion: Int[Tensor, "K K"],
) -> tuple[Float[Tensor, "K"], Float[Tensor, "K"], Float[Tensor, "K"]]:
    """Recall, precision and F1 of each class; NaN if they would divide by zero."""
    right = confusion.diagonal().double()
    images, taken = confusion.sum(1), confusion.sum(0)
    return right / images, right / taken, 2 * right / (images + taken)


def top_k_accuracy(logits: Float[Tensor, "N K"], labels: Int[Tensor, "N"], k: int) -> float:
    """Share of images whose class is among the k most probable."""
    most_probable_classes = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (most_probable_classes == labels[:, None]).sum().item() / len(labels)


@dataclass(frozen=True)
class Calibration:
    """Images by the probability of their predicted class, in equally wide bins from 0 to 1."""

    count: Int[Tensor, "bins"]
    confidence: Float[Tensor, "bins"]
    """Mean probability of the predicted class; NaN in an empty bin."""
    accuracy: Float[Tensor, "bins"]
    """Share of right predictions; NaN in an empty bin."""

    @property
    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017): the mean gap, weighted by images."""
        gaps = (self.accuracy - self.confidence).abs().nan_to_num(0.0)
        return ((gaps * self.count).sum() / self.count.sum()).item()


def calibration(
    probabilities: Float[Tensor, "N K"], labels: Int[Tensor, "N"], bins: int = CALIBRATION_BINS
) -> Calibration:
    """How often predictions of some confidence are right; a bin holds its upper bound."""
    confidence, predicted = probabilities.cpu().max(dim=1)
    bin_of = (confidence.double() * bins).ceil().long().sub(1).clamp(0, bins - 1)
    count = torch.bincount(bin_of, minlength=bins)

    def mean(values: Tensor) -> Tensor:
        return torch.bincount(bin_of, weights=values.double(), minlength=bins) / count

    return Calibration(count, mean(confidence), mean(predicted == labels.cpu()))
