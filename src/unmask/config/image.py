"""How a model sees images."""

import math
from dataclasses import dataclass
from typing import Literal

from unmask.core.spec import Size

PixelType = Literal["uint8", "float32"]
Floats = tuple[float, ...]
Bands = tuple[int, ...]
"""Channels of an image, counted from 1."""

USUAL_CROP, LARGEST_CROPPED = 224 / 256, 224
"""Evaluation of classifiers resizes to 256 and crops 224; above that it takes the whole image."""


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """What all decoded images of a run have in common."""

    channels: int
    pixel_type: PixelType = "uint8"
    """uint8 from 0 to 255; or float32, with integers of 8 and 16 bits are put on the scale 0 to 1."""
    max_pixels: int = 200_000_000
    """Larger images are refused before they are decoded."""
    nodata: float | None = None
    """The stored value that says that a pixel has none; NaN and a file's own mark always do."""
    axes: str | None = None
    """The order of axes in files that do not say it, as 'CYX'."""
    rescale: bool | None = None
    """Whether DICOM is read in units (True), on the scale 0 to 1 (False), or as the file says (None)."""


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """How a model sees images: stored in model.json, and the only place for these facts."""

    size: Size
    """Height and width in pixels of the model's input."""
    channels: int
    dtype: PixelType = "uint8"
    """What images are decoded as: uint8 from 0 to 255; or float32, with integers of 8 and 16 bits are
    put on the scale 0 to 1."""
    mean: Floats
    std: Floats
    """Per channel; on the scale 0 to 1 of integers of up to 16 bits, else on the images' own."""
    eval_crop: float = 1.0
    """Share of an image's side that evaluation crops."""
    display: Bands | None = None
    """Bands shown as red, green and blue, counted from 1."""
    eight_bits: bool = False
    """Whether some images are of eight bits: then all are drawn from 0 to 1, even if one has more."""
    nodata: float | None = None
    """The stored value that says that a pixel has none; NaN and a file's own mark always do."""
    axes: str | None = None
    """The order of axes in files that do not say it, as 'CYX'."""
    rescale: bool | None = None
    """Whether DICOM is read in units (True), on the scale 0 to 1 (False), or as the file says (None)."""

    def pixels(self, max_megapixels: float = 200.0) -> PixelFormat:
        """How files are decoded for it; larger images are refused."""
        return PixelFormat(
            channels=self.channels,
            pixel_type=self.dtype,
            max_pixels=round(max_megapixels * 1e6),
            nodata=self.nodata,
            axes=self.axes,
            rescale=self.rescale,
        )


def usual_crop(size: Size) -> float:
    """Share of an image's side that evaluation of a classifier crops (paper: 224 of 256 pixels)."""
    return USUAL_CROP if max(size) <= LARGEST_CROPPED else 1.0


def resized_side(side: int, share: float) -> int:
    """What the shorter side of an image is resized to before `side` pixels are cropped: 256 for 224."""
    return int(side / share)


def crop_share(side: int, resized: int) -> float:
    """The share that `resized_side` takes back to these pixels exactly."""
    share = side / resized
    return share if resized_side(side, share) == resized else math.nextafter(share, 0.0)
