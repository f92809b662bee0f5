"""Scores of label maps, against torchmetrics."""

import math

import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)

from unmask.evals.segmentation import IGNORE_INDEX, pixel_confusion, segmentation_scores


def random_maps(seed: int, K: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    labels = torch.randint(K, (3, 16, 20), generator=made)
    wrong = torch.rand(labels.shape, generator=made) < 0.4
    predicted = torch.where(wrong, torch.randint(K, labels.shape, generator=made), labels)
    ignored = torch.rand(labels.shape, generator=made) < 0.2
    return predicted, torch.where(ignored, IGNORE_INDEX, labels)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_torchmetrics(seed):
    predicted, labels = random_maps(seed)
    asked = {"num_classes": 6, "ignore_index": IGNORE_INDEX}
    scores = segmentation_scores(pixel_confusion(predicted, labels, 6))
    assert torch.equal(scores.confusion, multiclass_confusion_matrix(predicted, labels, **asked))
    for ours, theirs, average in [
        (scores.iou, multiclass_jaccard_index, "none"),
        (scores.accuracy, multiclass_accuracy, "none"),
        (scores.mean_iou, multiclass_jaccard_index, "macro"),
        (scores.mean_accuracy, multiclass_accuracy, "macro"),
        (scores.pixel_accuracy, multiclass_accuracy, "micro"),
    ]:
        expected = theirs(predicted, labels, average=average, **asked)
        torch.testing.assert_close(torch.as_tensor(ours).float(), expected)
    assert scores.pixels == (labels != IGNORE_INDEX).sum()


def test_counts_are_summed_over_images_of_other_sizes():
    predicted, labels = random_maps(0)
    parts = sum(pixel_confusion(p[:9], t[:9].byte(), 6) for p, t in zip(predicted, labels, strict=True))
    assert parts.dtype == torch.int64
    assert torch.equal(parts, pixel_confusion(predicted[:, :9], labels[:, :9], 6))


def test_a_class_that_is_nowhere_is_left_out_and_one_only_predicted_counts_as_zero():
    labels, predicted = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 0, 1, 2]])
    scores = segmentation_scores(pixel_confusion(predicted, labels, 4))
    assert scores.iou.nan_to_num(-1).tolist() == [1, 0.5, 0, -1]
    assert scores.mean_iou == 0.5
    assert scores.mean_accuracy == 0.75
    expected = multiclass_jaccard_index(predicted, labels, num_classes=4, average="macro")
    assert scores.mean_iou == expected


def test_nothing_labelled_and_labels_that_are_no_class():
    nothing = torch.full((4, 4), IGNORE_INDEX)
    scores = segmentation_scores(pixel_confusion(torch.zeros_like(nothing), nothing, 3))
    assert scores.pixels == 0
    assert all(math.isnan(value) for _, value in scores.named())
    with pytest.raises(ValueError, match="labels go from 0 to 2"):
        pixel_confusion(torch.zeros(2, 2, dtype=torch.long), torch.full((2, 2), 3), 3)
