"""How a new model will see its images: what was asked for, what its weights say, or what is measured."""

from dataclasses import replace
from typing import Any, NamedTuple

from unmask.config.image import Floats, ImageSpec, PixelFormat
from unmask.config.resolve import display_bands
from unmask.core.spec import Size
from unmask.data.images import Images
from unmask.data.statistics import find_layout, measure_pixels
from unmask.interop.description import Weights


class Measured(NamedTuple):
    """How images will be seen, and the bytes of a typical one in memory."""

    image: ImageSpec
    decoded_bytes: int
    notes: tuple[str, ...] = ()
    """What was decided about some of them."""


def measure(
    d: Any,
    images: Images,
    *,
    size: Size,
    eval_crop: float = 1.0,
    init: Weights | None = None,
    keep_channels: bool = False,
) -> Measured:
    """What the sections Bands and Reading of `d` leave open.

    With `keep_channels` images are read with as many channels as `init` has, unless others were given.
    Mean, standard deviation and type of pixels are those of `init` if it has as many channels, unless
    they were given. Raises ValueError if a given mean is not one value per channel.
    """
    known = init.description.image if init else None
    channels = d.channels or (known.channels if known and keep_channels else None)
    layout = find_layout(images, channels, axes=d.axes, nodata=d.nodata, rescale=d.rescale)
    _check_statistics(d, layout.channels)
    if known and known.channels != layout.channels:
        known = None
    zero: Floats = (0.0,) * layout.channels
    image = ImageSpec(
        size=size,
        channels=layout.channels,
        dtype=known.dtype if known else layout.pixel_type,
        mean=zero,
        std=zero,
        eval_crop=eval_crop,
        display=display_bands(d.display, layout.channels),
        eight_bits=layout.eight_bits,
        nodata=layout.nodata,
        axes=d.axes,
        rescale=d.rescale,
    )
    crop_scale = getattr(d, "crop_scale", None)  # of tasks that see images by parts
    wanted = image.pixels(d.max_megapixels)
    pixels = measure_pixels(images, size=size, wanted=wanted, crop_scale=crop_scale)
    mean = d.mean or (known.mean if known else pixels.mean)
    std = d.std or (known.std if known else pixels.std)
    return Measured(replace(image, mean=mean, std=std), pixels.decoded_bytes, layout.notes)


def read_layout(d: Any, images: Images) -> PixelFormat:
    """How images are decoded before anything is measured of them."""
    layout = find_layout(images, d.channels, axes=d.axes, nodata=d.nodata, rescale=d.rescale)
    return PixelFormat(
        channels=layout.channels,
        pixel_type=layout.pixel_type,
        max_pixels=round(d.max_megapixels * 1e6),
        nodata=layout.nodata,
        axes=d.axes,
        rescale=d.rescale,
    )


def _check_statistics(d: Any, channels: int) -> None:
    for name, given in (("mean", d.mean), ("std", d.std)):
        if given is not None and len(given) != channels:
            raise ValueError(
                f"--data.{name} has {len(given)} values for {channels} channels: give one each"
            )
