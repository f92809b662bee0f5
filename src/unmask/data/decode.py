"""From a file to a uint8 tensor."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
"""What Pillow may open, whatever a file's name says."""

Image.MAX_IMAGE_PIXELS = None  # our own cap refuses with a sentence, before any pixel is decoded


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used, and why."""

    path: str
    reason: str


def decode(path: str, channels: int, max_pixels: int) -> Tensor | BadImage:
    """The image as uint8 [channels, height, width], upright; 16-bit values keep their high byte."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                return BadImage(path, f"{width} x {height} pixels are over --data.max-megapixels")
            return _to_tensor(ImageOps.exif_transpose(image), channels)
    except Exception as error:  # broken files raise almost anything out of Pillow's plugins
        return BadImage(path, f"{type(error).__name__}: {error}")


def is_grey(path: str) -> bool | None:
    """Whether the file holds one channel, by its header alone; None where it cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16")
    except Exception:  # as in decode
        return None


def _to_tensor(image: Image.Image, channels: int) -> Tensor:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no scale of their own")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
