"""Robustness of ImageNet classifiers (paper, appendix): ImageNet-C's error, the classes of -A and -R."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Literal

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886,
    "shot_noise": 0.894,
    "impulse_noise": 0.923,
    "defocus_blur": 0.820,
    "glass_blur": 0.826,
    "motion_blur": 0.786,
    "zoom_blur": 0.798,
    "snow": 0.867,
    "frost": 0.827,
    "fog": 0.819,
    "brightness": 0.565,
    "contrast": 0.853,
    "elastic_transform": 0.646,
    "pixelate": 0.718,
    "jpeg_compression": 0.607,
}
"""AlexNet's top-1 error by folder of ImageNet-C, mean of five severities (Hendrycks et al. 2019)."""


def corruption_errors(errors: Mapping[str, float]) -> dict[str, float]:
    """Each corruption's error relative to AlexNet's, 1 being as bad.

    Args:
        errors: top-1 error of each corruption, from 0 to 1, mean of the five severities.

    Raises ValueError if corruptions are missing or unknown.
    """
    if set(errors) != set(ALEXNET_ERRORS):
        missing = sorted(set(ALEXNET_ERRORS) - set(errors))
        unknown = sorted(set(errors) - set(ALEXNET_ERRORS))
        raise ValueError(
            f"ImageNet-C has 15 corruptions; missing: {', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(unknown) or 'none'}: evaluate each of its folders, under its own name"
        )
    return {name: errors[name] / alexnet for name, alexnet in ALEXNET_ERRORS.items()}


def mean_corruption_error(errors: Mapping[str, float]) -> float:
    """mCE: the mean of `corruption_errors`; published in per cent."""
    relative = corruption_errors(errors)
    return sum(relative.values()) / len(relative)


@cache
def class_subset(name: Literal["imagenet-a", "imagenet-r"]) -> tuple[str, ...]:
    """The 200 classes of ImageNet-A or -R (Hendrycks et al. 2021), from timm's lists.

    They are called by their folders' names, and in the order of these.
    """
    lists = resources.files("timm.data") / "_info"
    return tuple((lists / f"{name.replace('-', '_')}_synsets.txt").read_text().split())
