"""The one evaluation transform: what torchvision's and timm's make of an image, pixel for pixel.

Legend: C channels, h x w pixels of the image, H x W of the model.
"""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unmask.config.image import PixelFormat
from unmask.core.spec import Size
from unmask.data.decode.pictures import Picture
from unmask.data.transforms import resized

MOST_STRETCHED = 16
"""An image that is longer than so many of its crops loses its ends first: resized as a whole, a line of
ten thousand pixels would take gigabytes."""


def evaluation_crop(picture: Picture, wanted: PixelFormat, size: Size, share: float = 1.0) -> Tensor:
    """Resizes a whole image, bicubically and without aliasing, and crops its centre, [C, *size].

    `share`: of the resized image's shorter side, what is cropped: 224 / 256 for classifiers up to 224
    pixels (paper, Appendix A), 1 above. Images are decoded at their full size; training alone decodes
    them smaller. uint8 is resized by Pillow, which torchvision's `Resize` and `CenterCrop` and timm's
    transform of crop mode 'center' use as well; float32, whose NaN is no-data, by torch, to the same
    geometry.
    """
    pixels = _without_ends(picture.pixels(wanted), size)
    whole = resized_size((pixels.shape[1], pixels.shape[2]), size, share)
    top, left = (round((a - b) / 2) for a, b in zip(whole, size, strict=True))
    below, right = top + size[0], left + size[1]
    if pixels.dtype == torch.uint8:
        return _resized_by_pillow(pixels, whole, (left, top, right, below))
    return resized(pixels, whole)[:, top:below, left:right].contiguous()


def resized_size(image_size: Size, size: Size, share: float) -> Size:
    """Height and width of the resized image that a crop of `size` is taken from.

    Fractions are left out for square crops, as in torchvision, and rounded for others, as in timm.
    """
    least = [math.floor(side / share) for side in size]
    if least[0] == least[1]:
        shorter = min(image_size)
        height, width = (least[0] * side // shorter for side in image_size)
        return height, width
    ratio = min(side / wanted for side, wanted in zip(image_size, least, strict=True))
    height, width = (round(side / ratio) for side in image_size)
    return height, width


def _without_ends(pixels: Tensor, size: Size) -> Tensor:
    (height, width), (wanted_height, wanted_width) = pixels.shape[1:], size
    height_kept = min(height, math.ceil(MOST_STRETCHED * width * wanted_height / wanted_width))
    width_kept = min(width, math.ceil(MOST_STRETCHED * height * wanted_width / wanted_height))
    top, left = (height - height_kept) // 2, (width - width_kept) // 2
    return pixels[:, top : top + height_kept, left : left + width_kept]


def _resized_by_pillow(pixels: Tensor, whole: Size, box: tuple[int, int, int, int]) -> Tensor:
    """Three channels as colours; others one by one, since Pillow takes a fourth for transparency."""
    interleaved = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    together = interleaved.shape[2] == 3
    bands = [interleaved] if together else np.moveaxis(interleaved, 2, 0)
    crops = [_resized(np.ascontiguousarray(band), whole, box) for band in bands]
    crop = crops[0].transpose(2, 0, 1) if together else np.stack(crops)
    return torch.from_numpy(np.ascontiguousarray(crop))


def _resized(band: np.ndarray, whole: Size, box: tuple[int, int, int, int]) -> np.ndarray:
    image = Image.fromarray(band)
    if whole != band.shape[:2]:
        image = image.resize((whole[1], whole[0]), Image.Resampling.BICUBIC)
    return np.array(image.crop(box))
