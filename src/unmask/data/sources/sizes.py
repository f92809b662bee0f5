"""How many pixels annotations may have: no more than images may, which is asked before any is made."""

import math

from unmask.config.annotations import MapOptions
from unmask.config.settings import Reading
from unmask.core.spec import Size
from unmask.errors import DataError

USUAL_MEGAPIXELS = Reading().max_megapixels


def most_pixels(options: MapOptions) -> int:
    """What --data.max-megapixels says, or its default if the options are without it."""
    return pixels_in(options.max_megapixels if isinstance(options, Reading) else USUAL_MEGAPIXELS)


def pixels_in(megapixels: float) -> int:
    """A number of pixels, of millions of them."""
    return round(1e6 * megapixels)


def refuse_large(what: str, size: Size, most: int) -> None:
    """Raises DataError if so high and wide a thing has more than `most` pixels."""
    height, width = size
    if height * width > most:
        raise DataError(
            f"{what} has {width} x {height} pixels, over --data.max-megapixels {most / 1e6:g}: correct "
            f"or remove it, or raise that to {math.ceil(height * width / 1e6)}"
        )
