"""ImageNet-C's error, and the classes of ImageNet-A and -R."""

import pytest
from timm.data import ImageNetInfo

from unmask.evals.robustness import (
    ALEXNET_ERRORS,
    class_subset,
    corruption_errors,
    mean_corruption_error,
)


def test_alexnet_itself_is_the_measure():
    assert mean_corruption_error(ALEXNET_ERRORS) == pytest.approx(1.0)
    halved = {name: error / 2 for name, error in ALEXNET_ERRORS.items()}
    assert mean_corruption_error(halved) == pytest.approx(0.5)
    assert len(ALEXNET_ERRORS) == 15


def test_corruptions_weigh_alike():
    errors = {**ALEXNET_ERRORS, "brightness": 0.0}
    assert mean_corruption_error(errors) == pytest.approx(14 / 15)
    assert corruption_errors(errors)["brightness"] == 0


def test_missing_and_unknown_corruptions_are_named():
    errors = {"rain" if name == "snow" else name: e for name, e in ALEXNET_ERRORS.items()}
    with pytest.raises(ValueError, match="missing: snow; unknown: rain"):
        mean_corruption_error(errors)


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_subsets_are_of_imagenets_classes(name):
    subset = class_subset(name)
    assert set(subset) < set(ImageNetInfo().label_names())
    assert list(subset) == sorted(set(subset))
    assert len(subset) == 200
