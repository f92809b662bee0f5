"""Streams with a header of their own in the strips and tiles of a TIFF file."""

import math
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from unmask.data.decode.file_sizes import BESIDE_PIXELS
from unmask.data.decode.stream_sizes import stream_size
from unmask.units import data_size

JPEG, JPEG_2000, LERC = {6, 7, 33007, 34892}, {33003, 33004, 33005, 34712}, 34887
OTHERS = {
    22610, 34934,  # JPEG XR
    34927, 50001,  # WebP
    34933,  # PNG
    50002, 52546,  # JPEG XL
}  # fmt: skip
WITH_HEADERS = {*JPEG, *JPEG_2000, LERC, *OTHERS}
"""Compressions whose decoders take memory by the stream; others are told how much to make of it."""
ROWS_TOO_MANY = 2**20
"""Values: of the last strip some programs encode more rows than are left, and those are cut off."""
STRIP_OFFSETS, STRIP_LENGTHS = 273, 279
ZSTD_BEGINS, DEFLATE_BEGINS = b"\x28\xb5\x2f\xfd", b"x"
"""What may be around LERC, whatever the file's tag says."""


def refuse_large_streams(pages: Sequence[Any]) -> None:
    """Raises ValueError if a strip or tile has more values by its own header than by the file's."""
    for page in pages:
        kind = page.keyframe
        if kind.compression not in WITH_HEADERS:
            continue
        chunk = math.prod(kind.chunks)
        if kind.jpegtables is not None:
            _refuse_large(kind.jpegtables, chunk, kind)
        if kind.jpegheader is not None and STRIP_OFFSETS in kind.tags:  # one stream for all tiles
            starts, lengths = (kind.tags[code].value for code in (STRIP_OFFSETS, STRIP_LENGTHS))
            _refuse_at(page, starts[0], lengths[0], math.prod(kind.shape))
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=False):
            if length:
                _refuse_at(page, start, length, chunk)


def _refuse_at(page: Any, start: int, length: int, most: int) -> None:
    file = page.parent.filehandle
    file.seek(start)
    _refuse_large(file.read(length), most, page.keyframe)


def _refuse_large(data: bytes, most: int, page: Any) -> None:
    unit = "tile" if page.is_tiled else "strip"
    if page.compression == LERC and data.startswith((ZSTD_BEGINS, DEFLATE_BEGINS)):
        data = _inside(data, 2 * most * page.dtype.itemsize + BESIDE_PIXELS, unit)
    size = stream_size(data)
    if size is None and page.compression not in JPEG:  # of which tables and parts have no size
        raise ValueError(f"a {unit} of it has no header of its compression: save it again")
    if size is not None and not size.fits(most + (0 if page.is_tiled else ROWS_TOO_MANY)):
        raise ValueError(
            f"a {unit} of it is {size} by the header of its own compressed stream, and "
            f"{' x '.join(map(str, page.chunks))} by the file's: save it again"
        )


def _inside(data: bytes, most: int, unit: str) -> bytes:
    """A stream of LERC without the compression around it. Raises ValueError if it is longer."""
    import imagecodecs

    engine = zlib.decompressobj()
    with suppress(zlib.error, RuntimeError):
        if data.startswith(ZSTD_BEGINS):
            return bytes(imagecodecs.zstd_decode(data, out=most))
        inside = engine.decompress(data, most)
        if engine.eof:
            return inside
    raise ValueError(
        f"a {unit} of it is broken, or takes more than {data_size(most)} unpacked: save it again"
    )
