"""Robustness of ImageNet classifiers (paper, appendix): ImageNet-C's error, the classes of -A and -R.

Legend: N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

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

    Raises ValueError where corruptions are missing or unknown.
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


@dataclass(frozen=True)
class ClassSubset:
    """200 of ImageNet's 1000 classes, in the order of their folders' names."""

    synsets: Sequence[str]
    indices: Sequence[int]
    """Place of each among the 1000."""

    def restrict(self, logits: Float[Tensor, "N 1000"]) -> Float[Tensor, "N 200"]:
        """Logits of these classes alone, as both data sets are evaluated."""
        return logits[:, torch.tensor(self.indices, device=logits.device)]


@cache
def class_subset(name: Literal["imagenet-a", "imagenet-r"]) -> ClassSubset:
    """The classes of ImageNet-A or -R (Hendrycks et al. 2021), from timm's lists."""
    lists = resources.files("timm.data") / "_info"
    stem = name.replace("-", "_")
    synsets = (lists / f"{stem}_synsets.txt").read_text().split()
    indices = [int(i) for i in (lists / f"{stem}_indices.txt").read_text().split()]
    return ClassSubset(synsets, indices)
