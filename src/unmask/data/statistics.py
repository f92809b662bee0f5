"""What has to be known of the images before training: channels, type, mean and standard deviation."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch

from unmask.config.image import PixelFormat, PixelType
from unmask.core.spec import Size
from unmask.data.bad_images import none_readable
from unmask.data.decode.pictures import BadImage, Picture
from unmask.data.decode.reading import Reading
from unmask.data.images import Images
from unmask.data.sampler import generator
from unmask.data.transforms import centre_crop, share_for_crops
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
    """Mean and standard deviation per channel, on the scale that `normalize` takes; no-data left out.

    Also the bytes of a typical decoded image.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoded_bytes: int


@dataclass(frozen=True)
class Layout:
    """What one model input of these images is made of."""

    channels: int
    pixel_type: PixelType
    nodata: float | None = None
    """The stored value that is none in all images: what was asked, or what all files say alike."""
    eight_bits: bool = field(default=False, compare=False)
    """Whether some have the usual range of pictures, so that all are shown in it."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Sentences on what was decided about some of them, with how many."""


def find_layout(
    images: Images,
    channels: int | None = None,
    *,
    axes: str | None = None,
    nodata: float | None = None,
    rescale: bool | None = None,
) -> Layout:
    """Channels and type of the images by the headers of some, and by what was asked.

    One channel if all are grey, three if some have colours; bands have to be equally many in all
    images. No-data makes float32 of them, which can mark it. Raises DataError if they do not fit
    together, or nothing can be read.
    """
    reading = Reading(channels=channels, axes=axes, rescale=rescale)
    seen: Counter[int] = Counter()
    types: set[PixelType] = set() if nodata is None else {"float32"}
    marks: set[float | None] = set()
    units: Counter[bool | None] = Counter()
    notes: Counter[str] = Counter()
    eight_bits = False
    bad: list[BadImage] = []
    some = measured(images)
    for i in range(len(some)):
        try:
            with some.open(i, reading) as picture:
                seen[picture.channels] += 1
                types.add(picture.pixel_type)
                marks.add(picture.nodata)
                units[picture.in_units] += 1
                notes.update(picture.notes)
                eight_bits |= picture.eight_bits
        except Exception as error:  # broken files raise almost anything out of their decoders
            bad.append(BadImage.of(some.paths[i], error))
    if not seen:
        raise none_readable(bad)
    if rescale is None:
        _refuse_mixed_units(units)
    return Layout(
        channels or _common(seen),
        "float32" if "float32" in types else "uint8",
        nodata if nodata is not None or len(marks) > 1 else next(iter(marks)),
        eight_bits,
        tuple(f"{count} of {len(some)} images measured: {note}" for note, count in notes.items()),
    )


def _refuse_mixed_units(units: Counter[bool | None]) -> None:
    if units[True] and units[False]:
        raise DataError(
            f"{units[True]} of the DICOM files have RescaleSlope and RescaleIntercept, and "
            f"{units[False]} have not, so that their values do not compare: read all in units with "
            f"--data.rescale True (the others as stored), or none with --data.rescale False"
        )


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


def measure_pixels(
    images: Images,
    *,
    size: Size,
    wanted: PixelFormat,
    crop_scale: tuple[float, float] | None = None,
) -> PixelStatistics:
    """Over the pixels of centre crops of the model's size; no-data of a channel is left out of it.

    `crop_scale`: of the training's crops, to whose needs large images are reduced in memory.
    Raises DataError if nothing can be read, or a channel has no value at all.
    """
    some = measured(images)
    total = torch.zeros(wanted.channels, dtype=torch.float64)
    squares = torch.zeros(wanted.channels, dtype=torch.float64)
    pixels = torch.zeros(wanted.channels, dtype=torch.float64)
    readable = decoded_bytes = 0
    bad: list[BadImage] = []

    def crop(picture: Picture) -> torch.Tensor:
        nonlocal decoded_bytes
        taken = centre_crop(picture, wanted, size)
        share = share_for_crops(picture.size, size, crop_scale) if crop_scale else 1.0
        values = math.prod(math.ceil(side * share) for side in picture.size) * wanted.channels
        decoded_bytes += values * taken.element_size()
        return taken

    for i in range(len(some)):
        image = some.take(i, wanted, crop)
        if isinstance(image, BadImage):
            bad.append(image)
            continue
        values = image.flatten(1).double() / (255 if wanted.pixel_type == "uint8" else 1)
        readable += 1
        pixels += values.isnan().logical_not().sum(dim=1)
        total += values.nansum(dim=1)
        squares += values.square().nansum(dim=1)
    if not readable:
        raise none_readable(bad)
    if (pixels == 0).any():
        empty = ", ".join(str(c + 1) for c in range(wanted.channels) if pixels[c] == 0)
        raise DataError(
            f"channel {empty} has nothing but no-data in all {readable} images that were measured: "
            f"remove it, or choose another --data.nodata"
        )
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=0).sqrt()
    std[std <= 1e-6 * mean.abs()] = 1  # a uniform channel would otherwise be divided by nothing
    return PixelStatistics(_rounded(mean), _rounded(std), decoded_bytes // readable)


def _rounded(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values.tolist())
