"""Scores against scikit-learn, and against their definitions where it has none."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics

from unmask.evals.classification import (
    Calibration,
    calibration,
    classification_scores,
    largest_confusions,
)

NAN = float("nan")


def outputs(images: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Better than chance, unbalanced, with a class that has no images where there are many."""
    made = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=made)
    labels = labels.minimum(torch.randint(classes, (images,), generator=made)).clamp(
        max=max(1, classes - 2)
    )
    logits = torch.randn(images, classes, generator=made) * 2
    return logits.scatter_add(1, labels[:, None], torch.full((images, 1), 1.5)), labels


@pytest.mark.parametrize("classes", [2, 4, 12, 50])
def test_equals_scikit_learn(classes):
    logits, labels = outputs(300, classes)
    scores = classification_scores(logits, labels)
    true, predicted = labels.numpy(), logits.argmax(1).numpy()
    every = np.arange(classes)
    probabilities = logits.double().softmax(1).numpy()
    present = np.unique(true)
    assert scores.images == 300
    assert scores.top1 == pytest.approx(metrics.accuracy_score(true, predicted))
    assert scores.balanced_accuracy == pytest.approx(
        metrics.recall_score(true, predicted, labels=present, average="macro")
    )
    assert scores.nll == pytest.approx(metrics.log_loss(true, probabilities, labels=every), rel=1e-5)
    assert (scores.confusion.numpy() == metrics.confusion_matrix(true, predicted, labels=every)).all()
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        true, predicted, labels=every, zero_division=np.nan
    )
    np.testing.assert_allclose(scores.recall, recall)
    np.testing.assert_allclose(scores.precision, precision)
    np.testing.assert_allclose(scores.f1, f1)
    if classes > 5:
        expected = metrics.top_k_accuracy_score(true, probabilities, k=5, labels=every)
        assert scores.top5 == pytest.approx(expected)
    else:
        assert scores.top5 == 1


def test_calibration_is_its_definition():
    logits, labels = outputs(500, 6)
    probabilities = logits.softmax(1)
    confidence, predicted = probabilities.double().max(1)
    error = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            right = (predicted == labels)[inside].double().mean()
            error += (right - confidence[inside].mean()).abs().item() * inside.double().mean().item()
    assert calibration(probabilities, labels).error == pytest.approx(error, abs=1e-6)
    assert error > 0.05
    assert classification_scores(logits, labels).calibration_error == pytest.approx(error, abs=1e-6)


def test_bins_of_certain_and_of_uniform_predictions():
    """Rows: certain and right, certain and wrong, undecided between two."""
    probabilities = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    result = calibration(probabilities, torch.tensor([0, 1, 0]), bins=4)
    assert result.count.tolist() == [0, 1, 0, 2]
    assert result.accuracy.nan_to_num(-1).tolist() == [-1, 1, -1, 0.5]
    assert result.confidence.nan_to_num(-1).tolist() == [-1, 0.5, -1, 1]
    assert result.error == pytest.approx((1 * 0.5 + 2 * 0.5) / 3)
    assert Calibration(torch.tensor([2]), torch.tensor([0.5]), torch.tensor([0.5])).error == 0


def test_classes_without_images_or_predictions():
    scores = classification_scores(torch.tensor([[9.0, 0, 0], [9.0, 0, 0]]), torch.tensor([0, 1]))
    assert scores.recall.tolist() == pytest.approx([1, 0, NAN], nan_ok=True)
    assert scores.precision.tolist() == pytest.approx([0.5, NAN, NAN], nan_ok=True)
    assert scores.f1.tolist() == pytest.approx([2 / 3, 0, NAN], nan_ok=True)
    assert scores.balanced_accuracy == 0.5
    assert dict(scores.named()).keys() == {
        "top1", "top5", "balanced_accuracy", "nll", "calibration_error"
    }  # fmt: skip
    assert all(math.isfinite(value) for _, value in scores.named())


def test_logarithms_of_probabilities_are_logits():
    logits, labels = outputs(50, 7)
    one = classification_scores(logits, labels)
    other = classification_scores(logits.softmax(1).log(), labels)
    assert dict(one.named()) == pytest.approx(dict(other.named()), abs=1e-6)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], []])
def test_labels_have_to_be_classes(labels):
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        classification_scores(torch.zeros(len(labels), 3), torch.tensor(labels, dtype=torch.int64))


def test_largest_confusions():
    counts = torch.tensor([[9, 2, 0], [5, 9, 0], [0, 1, 3]])
    assert largest_confusions(counts, 2) == [(1, 0, 5), (0, 1, 2)]
    assert largest_confusions(counts, 9) == [(1, 0, 5), (0, 1, 2), (2, 1, 1)]
    assert counts.diagonal().tolist() == [9, 9, 3]
