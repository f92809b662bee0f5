"""What has to be known of the images before training: channels, type, mean and deviation."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from unmask.config.plan import PixelFormat, PixelType
from unmask.core.patches import Size
from unmask.data.bad_images import none_readable
from unmask.data.decode.pictures import BadImage, Picture
from unmask.data.images import Images
from unmask.data.sampler import generator
from unmask.data.transforms import centre_crop
from unmask.errors import DataError

MEASURED_IMAGES = 512
SIGNIFICANT_DIGITS = 5


def measured(images: Images) -> Images:
    """The same images whenever it is asked: all of few, a random choice of many."""
    count = min(MEASURED_IMAGES, len(images))
    return images.subset(
        np.sort(generator(0, len(images)).choice(len(images), size=count, replace=False))
    )


@dataclass(frozen=True)
class PixelStatistics:
    """Mean and deviation per channel, on the scale 0 to 1; bytes of a typical decoded image."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoded_bytes: int


@dataclass(frozen=True)
class Layout:
    """What one model input of these images is made of."""

    channels: int
    pixel_type: PixelType


def find_layout(images: Images, channels: int | None = None) -> Layout:
    """Channels and type of the images by the headers of some, or of the asked channels.

    One channel where all are grey, three where some have colours; bands have to be equally many
    in all images. Raises DataError where they do not fit together, or nothing can be read.
    """
    seen: Counter[int] = Counter()
    types: set[PixelType] = set()
    bad: list[BadImage] = []
    some = measured(images)
    for i in range(len(some)):
        try:
            with some.open(i, channels) as picture:
                seen[picture.channels] += 1
                types.add(picture.pixel_type)
        except Exception as error:  # broken files raise almost anything out of their decoders
            bad.append(BadImage(some.paths[i], f"{type(error).__name__}: {error}"))
    if not seen:
        raise none_readable(bad)
    return Layout(channels or _common(seen), "float32" if "float32" in types else "uint8")


def _common(seen: Counter[int]) -> int:
    if set(seen) <= {1, 3}:
        return max(seen)
    if len(seen) == 1:
        return next(iter(seen))
    counts = ", ".join(f"{count} with {channels}" for channels, count in sorted(seen.items()))
    raise DataError(
        f"the images have different numbers of channels ({counts}): choose one with --data.channels, "
        f"and the others are left out as unreadable"
    )


def measure_pixels(images: Images, *, size: Size, wanted: PixelFormat) -> PixelStatistics:
    """Over the pixels of centre crops of the model's size."""
    some = measured(images)
    total = torch.zeros(wanted.channels, dtype=torch.float64)
    squares = torch.zeros(wanted.channels, dtype=torch.float64)
    readable = pixels = decoded_bytes = 0
    bad: list[BadImage] = []

    def crop(picture: Picture) -> torch.Tensor:
        nonlocal decoded_bytes
        taken = centre_crop(picture, wanted, size)
        decoded_bytes += picture.size[0] * picture.size[1] * wanted.channels * taken.element_size()
        return taken

    for i in range(len(some)):
        image = some.take(i, wanted, crop)
        if isinstance(image, BadImage):
            bad.append(image)
            continue
        values = image.flatten(1).double() / (255 if wanted.pixel_type == "uint8" else 1)
        readable, pixels = readable + 1, pixels + values.shape[1]
        total += values.sum(dim=1)
        squares += values.square().sum(dim=1)
    if not readable:
        raise none_readable(bad)
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=0).sqrt()
    std[std <= 1e-6 * mean.abs()] = 1  # a uniform channel would otherwise be divided by nothing
    return PixelStatistics(_rounded(mean), _rounded(std), decoded_bytes // readable)


def _rounded(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values.tolist())
