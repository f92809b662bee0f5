"""Augmentation on uint8 tensors; every draw comes from the generator that is passed in."""

import math

import numpy as np
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from unmask.core.patches import Size

ASPECT_RANGE = (3 / 4, 4 / 3)
"""How far a crop may be stretched, relative to the aspect of the output."""

Box = tuple[int, int, int, int]
"""Top, left, height, width."""


def random_crop(
    image: Tensor, size: Size, scale: tuple[float, float], flip: bool, rng: np.random.Generator
) -> Tensor:
    """RandomResizedCrop, bicubic, then a flip of half of the samples (paper, Table 1e and 8).

    Takes and returns uint8 [C, H, W].
    """
    box = random_box((image.shape[-2], image.shape[-1]), size, scale, rng)
    flipped = flip and rng.random() < 0.5
    crop = _resize(image, box, size)
    return crop.flip(-1) if flipped else crop


def centre_crop(image: Tensor, size: Size) -> Tensor:
    """The largest central part with the output's aspect, resized to it; uint8 [C, H, W]."""
    height, width = image.shape[-2:]
    scale = min(height / size[0], width / size[1])
    h, w = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return _resize(image, ((height - h) // 2, (width - w) // 2, h, w), size)


def random_box(
    image_size: Size, size: Size, scale: tuple[float, float], rng: np.random.Generator
) -> Box:
    """A box that covers a uniform share of the area, with a log-uniform aspect around the output's."""
    height, width = image_size
    aspect_of_output = size[1] / size[0]
    low, high = (math.log(bound * aspect_of_output) for bound in ASPECT_RANGE)
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return _largest_box(image_size, math.exp(low), math.exp(high))


def _largest_box(image_size: Size, low: float, high: float) -> Box:
    """The central fallback for images too long for any random box."""
    height, width = image_size
    aspect = min(max(width / height, low), high)
    h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
    h, w = max(1, h), max(1, w)
    return (height - h) // 2, (width - w) // 2, h, w


def _resize(image: Tensor, box: Box, size: Size) -> Tensor:
    return functional.resized_crop(
        image, *box, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True
    )
