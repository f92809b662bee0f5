"""Crops and flips; every draw comes from the generator that is passed in."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unmask.config.plan import PixelFormat
from unmask.core.patches import Size
from unmask.data.decode.pictures import SMALLER, Box, Picture

AS_DECODED = 4
"""A device gets crops to resize of at most so many times the pixels of the result."""

ASPECT_RANGE = (3 / 4, 4 / 3)
"""How far a crop may be stretched, relative to the aspect of the output."""


def random_crop(
    picture: Picture,
    wanted: PixelFormat,
    size: Size,
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
    resize: bool = True,
) -> Tensor:
    """RandomResizedCrop, bicubic, then a flip of half of the samples (paper, Table 1e and 8).

    The crop is decided before the image is decoded. Returns [C, *size]; without `resize` [C, h, w] as
    decoded, unless those are many more values than the resized crop has.
    """
    box = random_box(picture.size, size, scale, rng)
    flipped = flip and rng.random() < 0.5
    crop = crop_box(picture, wanted, box, size, AS_DECODED if not resize else 0).numpy()
    return _planar(crop[..., ::-1] if flipped else crop)


def centre_crop(picture: Picture, wanted: PixelFormat, size: Size, share: float = 1.0) -> Tensor:
    """The largest central part with the output's aspect, or a share of its side; [C, *size]."""
    height, width = picture.size
    scale = share * min(height / size[0], width / size[1])
    h, w = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    box = ((height - h) // 2, (width - w) // 2, h, w)
    return _planar(crop_box(picture, wanted, box, size).numpy())


def crop_box(
    picture: Picture, wanted: PixelFormat, box: Box, size: Size, as_decoded: float = 0
) -> Tensor:
    """A part of an image, resized; the image is decoded no larger than that needs.

    It is not resized where it has at most `as_decoded` times the pixels of the result.
    """
    enough = max(size[0] / box[2], size[1] / box[3])
    pixels = picture.pixels(wanted, min(1.0, enough), box)
    if pixels.shape[1:] == size or pixels[0].numel() <= as_decoded * size[0] * size[1]:
        return pixels
    return resized(pixels, size)


def resized(pixels: Tensor, size: Size) -> Tensor:
    """[C, h, w] to [C, *size], bicubic without aliasing, on any device; the type stays."""
    if pixels.is_cuda and pixels.dtype == torch.uint8:  # torch resizes bytes on CPUs alone
        return resized(pixels.float(), size).round_().clamp_(0, 255).to(torch.uint8)
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
