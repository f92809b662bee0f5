"""What has to be known of the images before training: channels, mean and deviation."""

from dataclasses import dataclass

import numpy as np
import torch

from unmask.core.patches import Size
from unmask.data.decode import BadImage, decode, is_grey
from unmask.data.paths import PathList
from unmask.data.sampler import generator
from unmask.data.transforms import centre_crop
from unmask.errors import DataError

MEASURED_IMAGES = 512
SMALLEST_STD = 1e-3
"""Uniform images would otherwise be divided by nothing."""


def measured_paths(paths: PathList) -> list[str]:
    """The same images whenever it is asked: all of few, a random choice of many."""
    count = min(MEASURED_IMAGES, len(paths))
    chosen = generator(0, len(paths)).choice(len(paths), size=count, replace=False)
    return [paths[int(i)] for i in np.sort(chosen)]


@dataclass(frozen=True)
class PixelStatistics:
    """Mean and deviation per channel, on the scale 0 to 1; bytes of a typical decoded image."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoded_bytes: int


def count_channels(paths: PathList) -> int:
    """1 where all measured images are greyscale, else 3."""
    grey = [is_grey(path) for path in measured_paths(paths)]
    readable = [g for g in grey if g is not None]
    if not readable:
        raise DataError(
            f"none of the images looked at could be read, the first is {paths[0]}: "
            f"run `unmask check` on the folder"
        )
    return 1 if all(readable) else 3


def measure_pixels(paths: PathList, *, size: Size, channels: int, max_pixels: int) -> PixelStatistics:
    """Over the pixels of centre crops of the model's size."""
    images = pixels = decoded_bytes = 0
    total = torch.zeros(channels, dtype=torch.float64)
    squares = torch.zeros(channels, dtype=torch.float64)
    for path in measured_paths(paths):
        image = decode(path, channels, max_pixels)
        if isinstance(image, BadImage):
            continue
        values = centre_crop(image, size).flatten(1).double() / 255
        images, pixels = images + 1, pixels + values.shape[1]
        decoded_bytes += image.numel()
        total += values.sum(dim=1)
        squares += values.square().sum(dim=1)
    if not images:
        raise DataError(
            f"none of the images looked at could be read, the first is {paths[0]}: "
            f"run `unmask check` on the folder"
        )
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=0).sqrt().clamp(min=SMALLEST_STD)
    return PixelStatistics(_rounded(mean), _rounded(std), decoded_bytes // images)


def _rounded(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
