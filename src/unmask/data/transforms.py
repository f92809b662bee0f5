"""Crops and flips; every draw comes from the generator that is passed in."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unmask.config.image import PixelFormat
from unmask.core.spec import Size
from unmask.data.decode.pictures import SMALLER, Box, DecodedPicture, Picture

AS_DECODED = 4
"""A device gets crops to resize of at most so many times the pixels of the result."""

MARGIN, MUCH_SMALLER = 2.0, 0.5
"""Images that have far more pixels than their crops are reduced once to what those need."""
LEAST_VALID = 0.5
"""Share of a resized pixel's weights that has to come from data so that it counts as data."""

ASPECT_RANGE = (3 / 4, 4 / 3)
"""How far a crop may be stretched, relative to the aspect of the output."""

FIXED_SHARE = 224 / 256
"""Side of a crop of fixed size, as a share of the largest that fits: that of the usual evaluation."""


class Crop(NamedTuple):
    """A part of an image and whether it is mirrored: numbers that pixels, boxes and maps follow
    alike."""

    box: Box
    flip: bool


def draw_crop(
    image_size: Size, size: Size, scale: tuple[float, float], flip: bool, rng: np.random.Generator
) -> Crop:
    """RandomResizedCrop's part of an image, and a flip of half of the samples (paper, Table 1e and 8).

    The crop is decided before the image is decoded.
    """
    box = random_box(image_size, size, scale, rng)
    return Crop(box, flip and bool(rng.random() < 0.5))


def draw_fixed_crop(
    image_size: Size, size: Size, share: float, flip: bool, rng: np.random.Generator
) -> Crop:
    """A crop of the output's aspect and a share of the largest side, at a random place, and a flip of
    half of the samples (paper, Table 1e); with a share of 1 the place is the centre of the longer side.
    """
    height, width = image_size
    top, left, h, w = centre_box(image_size, size, share)
    if share < 1:
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return Crop((top, left, h, w), flip and bool(rng.random() < 0.5))


def apply_crop(
    picture: Picture, wanted: PixelFormat, crop: Crop, size: Size, *, resize: bool = True
) -> Tensor:
    """The pixels of a crop, resized bicubically to [C, *size].

    Without `resize` [C, h, w] as decoded, unless those are many more values than the resized crop has.
    """
    pixels = crop_box(picture, wanted, crop.box, size, AS_DECODED if not resize else 0).numpy()
    return _planar(pixels[..., ::-1] if crop.flip else pixels)


def random_crop(
    picture: Picture,
    wanted: PixelFormat,
    size: Size,
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
    *,
    resize: bool = True,
) -> Tensor:
    """Draws a crop and applies it; arguments as in `draw_crop` and `apply_crop`."""
    return apply_crop(
        picture, wanted, draw_crop(picture.size, size, scale, flip, rng), size, resize=resize
    )


def centre_crop(picture: Picture, wanted: PixelFormat, size: Size) -> Tensor:
    """The largest central part with the output's aspect, [C, *size].

    Soon, and close to what training sees: statistics are measured on it. Models are evaluated on
    `evaluation_crop`.
    """
    box = centre_box(picture.size, size)
    return _planar(crop_box(picture, wanted, box, size).numpy())


def centre_box(image_size: Size, size: Size, share: float = 1.0) -> Box:
    """The largest central box with the output's aspect, or a share of its side."""
    height, width = image_size
    scale = share * min(height / size[0], width / size[1])
    h, w = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return (height - h) // 2, (width - w) // 2, h, w


def crop_box(
    picture: Picture, wanted: PixelFormat, box: Box, size: Size, as_decoded: float = 0
) -> Tensor:
    """A part of an image, resized; the image is decoded no larger than that needs.

    It is not resized if it has at most `as_decoded` times the pixels of the result.
    """
    enough = max(size[0] / box[2], size[1] / box[3])
    pixels = picture.pixels(wanted, min(1.0, enough), box)
    if pixels.shape[1:] == size or pixels[0].numel() <= as_decoded * size[0] * size[1]:
        return pixels
    return resized(pixels, size)


def resized(pixels: Tensor, size: Size) -> Tensor:
    """[C, h, w] to [C, *size], bicubic without aliasing, on any device; the type stays.

    NaN, which is no-data, weighs nothing: a result is the mean of the values below it by their weights,
    and is NaN if those that are data have less than half of the weight.
    """
    if pixels.dtype != torch.uint8:
        # A GPU would be waited for if it were asked.
        return (
            _resized_around_nan(pixels, size)
            if pixels.is_cuda or pixels.isnan().any()
            else (_interpolated(pixels, size))
        )
    if pixels.is_cuda:  # torch resizes bytes on CPUs alone
        return _interpolated(pixels.float(), size).round_().clamp_(0, 255).to(torch.uint8)
    return _interpolated(pixels, size)


def _resized_around_nan(pixels: Tensor, size: Size) -> Tensor:
    valid = pixels.isnan().logical_not()
    count = valid.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    # Filled with the mean of the band, so that large values lose no digits.
    mean = pixels.double().nansum(dim=(1, 2), keepdim=True).div(count).to(pixels.dtype)
    above = _interpolated(torch.where(valid, pixels - mean, torch.zeros_like(mean)), size)
    weight = _interpolated(valid.to(pixels.dtype), size)
    enough = weight >= LEAST_VALID
    return torch.where(enough, mean + above / torch.where(enough, weight, 1.0), torch.nan)


def _interpolated(pixels: Tensor, size: Size) -> Tensor:
    # Of colours that lie together in memory, without gaps, torch resizes bytes almost twice as fast.
    together = pixels[None].contiguous(memory_format=torch.channels_last)
    return functional.interpolate(together, size, mode="bicubic", antialias=True)[0]


def _planar(crop: np.ndarray) -> Tensor:
    """One channel behind the other in memory; NumPy copies twice as fast as torch."""
    return torch.from_numpy(np.ascontiguousarray(crop))


def may_be_kept(picture: Picture, size: Size) -> bool:
    """Whether crops of the whole decoded image equal those of the image decoded as small as they need.

    They must, since what is kept depends on the memory and the number of workers.
    """
    least = max(size[0] / picture.size[0], size[1] / picture.size[1])
    return not picture.decodes_smaller or least > SMALLER


def share_for_crops(image_size: Size, size: Size, scale: tuple[float, float]) -> float:
    """The share of an image's sides that training needs of it; 1 unless that is `MUCH_SMALLER`.

    The smallest and most stretched crop that `random_box` draws then still has `MARGIN` times the
    height and width of the result.
    """
    least = image_size[0] * image_size[1] * scale[0]
    low, high = (bound * size[1] / size[0] for bound in ASPECT_RANGE)
    _, _, *largest = _largest_box(image_size, low, high)  # for images too long for any other
    h, w = min(largest[0], math.sqrt(least / high)), min(largest[1], math.sqrt(least * low))
    return _share_for(h, w, size)


def share_for_fixed_crops(image_size: Size, size: Size, share: float) -> float:
    """The same for crops as `draw_fixed_crop` draws them."""
    return _share_for(*centre_box(image_size, size, share)[2:], size)


def _share_for(h: float, w: float, size: Size) -> float:
    share = MARGIN * max(size[0] / h, size[1] / w)
    return share if share <= MUCH_SMALLER else 1.0


def reduced(picture: Picture, wanted: PixelFormat, share: float) -> Tensor:
    """All of an image at a share of its sides, [C, h, w]; see `ReducedPicture`."""
    if share == 1:
        return picture.pixels(wanted)
    height, width = (max(1, math.ceil(side * share)) for side in picture.size)
    return resized(picture.pixels(wanted, share), (height, width))


class ReducedPicture(DecodedPicture):
    """An image of which a copy is in memory, possibly a smaller one.

    Its size and its boxes are those of the image itself.
    """

    def __init__(self, pixels: Tensor, size: Size):
        super().__init__(pixels)
        self.decoded, self.size = pixels, size

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`; the edges of a box are rounded to pixels of the copy."""
        if box is None:
            return self.decoded
        edges = []
        for first, length, whole, held in zip(
            box[:2], box[2:], self.size, self.decoded.shape[1:], strict=True
        ):
            start, stop = (round(edge * held / whole) for edge in (first, first + length))
            edges.append((min(start, held - 1), max(stop, start + 1)))
        (top, bottom), (left, right) = edges
        return self.decoded[:, top:bottom, left:right]


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
