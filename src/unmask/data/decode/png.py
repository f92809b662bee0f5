"""PNG of sixteen bits with colours or alpha, of which Pillow keeps eight; and damaged metadata.

Legend: C channels, h x w pixels.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Image
from torch import Tensor

from unmask.config.image import PixelFormat, PixelType
from unmask.data.decode.file_sizes import bytes_in, most_bytes
from unmask.data.decode.pictures import (
    Box,
    Picture,
    as_tensor,
    in_strips,
    missing_in,
    part_of,
    refuse_if_large,
    refuse_other_size,
)
from unmask.data.decode.turning import turned
from unmask.units import data_size

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = {2: 3, 4: 1, 6: 3}
"""Channels without alpha, by the colour type in the header: RGB, grey with alpha, RGB with alpha."""
KEPT_CHUNKS = (b"tRNS", b"eXIf")
KEPT_SEGMENTS = {0xE0, 0xE1, 0xEE}
"""Markers of JPEG: JFIF, EXIF, and Adobe's, which says what the colours are."""
SCAN = 0xDA


def is_deep(start: bytes) -> bool:
    """Whether a file that begins so is a PNG of sixteen bits that Pillow would cut to eight."""
    return start.startswith(SIGNATURE) and len(start) > 25 and start[24] == 16 and start[25] in COLOURS


class DeepPng(Picture):
    """See `Picture`; transparent pixels show white behind them, unless four channels are wanted."""

    pixel_type: PixelType = "float32"
    decodes_smaller, eight_bits = False, False

    def __init__(self, file: IO[bytes], image: Image.Image, orientation: int, notes: tuple[str, ...]):
        """`image` is the same file as Pillow opened it."""
        self._file, self._orientation, self.notes = file, orientation, notes
        self.size = image.size if orientation >= 5 else (image.size[1], image.size[0])
        self._file.seek(25)
        self.channels = COLOURS[self._file.read(1)[0]]
        self.kind = f"PNG uint16 x {self.channels}"

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`; always at its full size."""
        import imagecodecs

        refuse_if_large(self.size, wanted, self.channels, 2)
        has, most = bytes_in(self._file), most_bytes(math.prod(self.size))
        if has > most:
            raise ValueError(
                f"its file has {data_size(has)}, and {self.size[1]} x {self.size[0]} pixels need at "
                f"most {data_size(most)}: save it again"
            )
        stored = turned(imagecodecs.png_decode(without_metadata(self._file.read())), self._orientation)
        refuse_other_size(stored, self.size)
        has_alpha = stored.shape[2] > self.channels
        with_alpha = has_alpha and wanted.channels == 4
        transparent = has_alpha and bool(stored[..., self.channels :].any())

        def convert(rows: slice) -> Tensor:
            colours, alpha = stored[rows, :, : self.channels], stored[rows, :, self.channels :]
            if with_alpha:
                shape = (*colours.shape[:2], 3)
                return as_tensor(
                    np.concatenate([np.broadcast_to(colours, shape), alpha], axis=2), wanted
                )
            values = over_white(colours, alpha) if transparent else colours
            return as_tensor(values, wanted, missing_in(colours, wanted, own=None))

        return part_of(in_strips(self.size, stored.shape[2], convert), box)


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """uint16 [h, w, C] with [h, w, 1] of alpha, blended with white behind it."""
    share = alpha / 65_535
    return (colours * share + 65_535 * (1 - share)).round().astype(np.uint16)


def without_metadata(content: bytes, *, exif: bool = True) -> bytes:
    """A PNG or JPEG with its pixels, colours and orientation, and none of its comments and profiles.

    `exif`: keep that as well. Other content comes back as it is.
    """
    if content.startswith(SIGNATURE):
        return b"".join((SIGNATURE, *_needed_chunks(memoryview(content), exif)))
    if content.startswith(b"\xff\xd8"):
        return b"".join((b"\xff\xd8", *_needed_segments(memoryview(content), exif)))
    return content


def _needed_chunks(content: memoryview, exif: bool) -> Iterator[memoryview]:
    at = len(SIGNATURE)
    while at + 12 <= len(content):
        (length,), name = struct.unpack_from(">I", content, at), bytes(content[at + 4 : at + 8])
        chunk = content[at : at + 12 + length]
        at += len(chunk)
        critical = name[:1].isupper()
        kept = name in KEPT_CHUNKS and (exif or name != b"eXIf")
        if critical or (kept and chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))):
            yield chunk
    yield content[at:]


def _needed_segments(content: memoryview, exif: bool) -> Iterator[memoryview]:
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != SCAN:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not is_metadata or (marker in KEPT_SEGMENTS and (exif or marker != 0xE1)):
            yield content[at : at + 2 + length]
        at += 2 + length
    yield content[at:]
