"""Photometric distortion: random brightness, contrast, saturation and hue (Liu et al. 2016, SSD).

Legend: C channels, H x W pixels. Every draw comes from the generator that is passed in.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

MOST_BRIGHTNESS = 32
"""Levels of 255."""
FACTORS = (0.5, 1.5)
"""Range of the factors of contrast and of saturation."""
MOST_HUE = 0.1
"""A share of the colour circle: 18 of 180 steps."""


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """What to do to an image's colours; the defaults change nothing."""

    brightness: float = 0.0
    """Levels to add."""
    contrast: float = 1.0
    """Factor of the levels."""
    contrast_last: bool = False
    """Change contrast after saturation and hue rather than before."""
    saturation: float = 1.0
    """Factor of the saturation, in the sense of hue, saturation and value."""
    hue: float = 0.0
    """A share of the colour circle."""


def random_distortion(rng: np.random.Generator) -> Distortion:
    """Each of the four changes is made in half of the samples, uniformly within its bounds."""
    brightness, contrast, contrast_last, saturation, hue = rng.random(5) < 0.5
    amounts = rng.random(4).tolist()
    low, high = FACTORS
    return Distortion(
        brightness=MOST_BRIGHTNESS * (2 * amounts[0] - 1) if brightness else 0.0,
        contrast=low + (high - low) * amounts[1] if contrast else 1.0,
        contrast_last=bool(contrast_last),
        saturation=low + (high - low) * amounts[2] if saturation else 1.0,
        hue=MOST_HUE * (2 * amounts[3] - 1) if hue else 0.0,
    )


def distorted(image: UInt8[Tensor, "C H W"], distortion: Distortion) -> UInt8[Tensor, "C H W"]:
    """The image with other colours; of a grey one only brightness and contrast change.

    Raises ValueError for images of other types or numbers of channels.
    """
    if image.dtype != torch.uint8 or len(image) not in (1, 3):
        raise ValueError(
            f"colours can be distorted in pictures of 8 bits in 1 or 3 channels, not {image.dtype} in "
            f"{len(image)}: train without colour distortion"
        )
    image = _levels(image, 1.0, distortion.brightness)
    if not distortion.contrast_last:
        image = _levels(image, distortion.contrast, 0.0)
    if len(image) == 3:
        image = _turned(_saturated(image, distortion.saturation), distortion.hue)
    return _levels(image, distortion.contrast, 0.0) if distortion.contrast_last else image


def _levels(image: Tensor, factor: float, offset: float) -> Tensor:
    if factor == 1 and not offset:
        return image
    return _bytes(image.float() * factor + offset)


def _saturated(image: Tensor, factor: float) -> Tensor:
    """Keeps hue and value (the largest channel); the saturation is at most 1 afterwards."""
    if factor == 1:
        return image
    levels = image.float()
    value, least = levels.amax(dim=0), levels.amin(dim=0)
    saturation = (value - least) / value.clamp(min=1)
    factors = torch.where(saturation > 0, (factor * saturation).clamp(max=1) / saturation, 1.0)
    return _bytes(value - (value - levels) * factors)


def _turned(image: Tensor, hue: float) -> Tensor:
    if not hue:
        return image
    from torchvision.transforms.v2.functional import adjust_hue  # importing torchvision takes a while

    return adjust_hue(image, hue)


def _bytes(levels: Tensor) -> Tensor:
    return levels.round().clamp(0, 255).to(torch.uint8)
