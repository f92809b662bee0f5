"""JPEG by simplejpeg, if that is installed: the same pixels as Pillow's, sooner.

Both call libjpeg-turbo. Pillow still takes what is out of the ordinary: damage, CMYK, turned images.
"""

import math
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unmask.config.image import PixelFormat, PixelType
from unmask.core.spec import Size
from unmask.data.decode.file_sizes import bytes_in, most_bytes
from unmask.data.decode.pictures import (
    Box,
    Picture,
    channels_first,
    decoded_box,
    decoded_share,
    of_type,
    refuse_if_large,
)
from unmask.data.decode.pillow import FORMATS, PillowPicture, orientation_of
from unmask.data.decode.quiet import quietly

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

JPEG_BEGINS = b"\xff\xd8\xff"
HEADER_BYTES = 2**16
"""Enough for nearly every header; if it is not, Pillow reads the image."""
EXIF, SCAN = 0xE1, 0xDA
"""Markers: of metadata, and of the pixels, which come last."""

MODES = {"Gray": "L", "RGB": "RGB", "YCbCr": "RGB"}
"""What Pillow makes of the colour spaces that are read here."""
DECODED_AS = {("L", 1): "GRAY", ("L", 3): "RGB", ("RGB", 3): "RGB"}
"""By the mode and the wanted channels; Pillow has a way of its own from colours to grey."""


def jpeg_picture(file: IO[bytes]) -> Picture | None:
    """An upright JPEG of grey or colour; None if Pillow should look at the file, from its start."""
    if simplejpeg is None:
        return None
    start = file.read(HEADER_BYTES)
    if not start.startswith(JPEG_BEGINS):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(start)
    except ValueError:
        return None
    if colours not in MODES or not _is_upright(start, file):
        return None
    return JpegPicture(file, start, (height, width), MODES[colours])


class JpegPicture(Picture):
    """See `Picture`."""

    pixel_type: PixelType = "uint8"
    decodes_smaller, eight_bits = True, True

    def __init__(self, file: IO[bytes], start: bytes, size: Size, mode: str):
        self._file, self._start, self._mode = file, start, mode
        self.size = size
        self.kind = f"JPEG {mode}"
        self.channels = 1 if mode == "L" else 3

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`, and `PillowPicture.pixels`."""
        refuse_if_large(self.size, wanted, self.channels)
        decoded = None if wanted.nodata is not None else self._decode(wanted, scale)
        if decoded is None:
            self._file.seek(0)
            with quietly():
                image = Image.open(self._file, formats=FORMATS)
            with image:
                return PillowPicture(image).pixels(wanted, scale, box)
        if box is not None:
            top, left, h, w = decoded_box(box, self.size, (decoded.shape[0], decoded.shape[1]))
            decoded = np.ascontiguousarray(decoded[top : top + h, left : left + w])
        return of_type(torch.from_numpy(channels_first(decoded)), wanted.pixel_type, full_scale=255)

    def _decode(self, wanted: PixelFormat, scale: float) -> np.ndarray | None:
        """[h, w, C]; None for Pillow, which forgives some damage and says what the other is."""
        colours = DECODED_AS.get((self._mode, wanted.channels))
        if colours is None:
            return None
        data = self._start
        if len(data) == HEADER_BYTES:
            if bytes_in(self._file) > most_bytes(math.prod(self.size)):  # Pillow reads it in parts
                return None
            data = self._file.read()
        share = decoded_share(self.size, scale)
        height, width = (-(-side // share) for side in self.size)
        try:
            return simplejpeg.decode_jpeg(data, colours, min_height=height, min_width=width)
        except ValueError:
            return None


def _is_upright(start: bytes, file: IO[bytes]) -> bool:
    if not _may_have_exif(start):
        return True
    file.seek(0)
    try:
        with quietly(), Image.open(file, formats=FORMATS) as image:
            return orientation_of(image) == 1
    except Exception:  # damaged metadata raise almost anything; Pillow is tried without them
        return False


def _may_have_exif(start: bytes) -> bool:
    """Whether a segment of metadata comes before the pixels; True if that is not clear."""
    at = 2
    while at + 4 <= len(start) and start[at] == 0xFF:
        marker = start[at + 1]
        if marker == SCAN:
            return False
        if marker == EXIF:
            return True
        at += 2 + int.from_bytes(start[at + 2 : at + 4])
    return True
