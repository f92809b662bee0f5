"""Compressed frames of a DICOM file, each checked before it is decoded."""

import itertools
import os
import struct
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from unmask.data.decode import pictures
from unmask.data.decode.file_sizes import BESIDE_PIXELS
from unmask.data.decode.stream_sizes import stream_size
from unmask.units import data_size

ELEMENT_HEADER, ITEM_HEADER = 12, 8
"""Bytes before the items of compressed pixels, and those that each item begins with."""
ITEM, END = 0xE000FFFE, 0xE0DDFFFE
"""Group and element of an item's tag, and of what stands behind the last."""
MOST_FRAGMENTS = 2**21
"""In one file: a slide's many tiles are fewer."""
LAST_BYTES, END_OF_IMAGE = 10, b"\xff\xd9"
"""What a frame ends with, if no table says where: JPEG's mark, perhaps with some bytes behind it."""
RLE, RLE_HEADER, RUN = "1.2.840.10008.1.2.5", 64, 64
"""How many times its bytes a segment of run lengths can unpack to."""
MOST_RUNS = 2**29
"""Bytes that a segment may unpack to without a look at its runs, which takes time."""
LUMINANCE_FIRST = ("YBR_FULL", "YBR_FULL_422")
"""Colours that become red, green and blue; pydicom would do so with eight times their bytes."""
Part = tuple[int, int]
"""Where a part of a frame begins, and its bytes."""


def decoded_frames(path: str, header: Any, at: int, syntax: str, wanted: range) -> Iterator[np.ndarray]:
    """Each [h, w] or [h, w, 3]; the pixels' element is `at` that byte of the file.

    Raises ValueError if a frame is larger than the header says, and what pydicom raises.
    """
    from pydicom.encaps import encapsulate
    from pydicom.pixels import as_pixel_options, convert_color_space, get_decoder

    decoder = get_decoder(syntax)
    if "ExtendedOffsetTable" in header and not header.get("ExtendedOffsetTableLengths"):
        raise ValueError("its table of frames has no lengths: save it again")
    options = as_pixel_options(header, number_of_frames=1, pixel_keyword="PixelData")
    options.pop("extended_offsets", None)
    with open(path, "rb") as file:
        for parts in _parts(file, header, at + ELEMENT_HEADER, wanted):
            stream = _joined(file, header, parts)
            _refuse_large(stream, header, syntax)
            source = encapsulate([stream], has_bot=False)
            del stream
            stored, found = decoder.as_array(source, index=0, raw=True, **options)
            if found["photometric_interpretation"] in LUMINANCE_FIRST:
                strip = max(1, pictures.STRIP_VALUES // stored[0].size)
                for top in range(0, len(stored), strip):
                    rows = stored[top : top + strip]
                    rows[:] = convert_color_space(rows, "YBR_FULL", "RGB")
            yield stored


def _joined(file: IO[bytes], header: Any, parts: list[Part]) -> bytes:
    values = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel") or 1)
    most = values * ((int(header.BitsAllocated) + 7) // 8) + BESIDE_PIXELS
    whole = os.fstat(file.fileno()).st_size
    needed = sum(min(length, max(0, whole - begins)) for begins, length in parts)
    if needed > most:
        raise ValueError(
            f"a frame of it takes {data_size(needed)}, and {header.Rows} x {header.Columns} pixels "
            f"at most {data_size(most)}: save it again"
        )
    pieces = []
    for begins, length in parts:
        file.seek(begins)
        pieces.append(file.read(length))
    return b"".join(pieces)


def _parts(file: IO[bytes], header: Any, at: int, wanted: range) -> Iterator[list[Part]]:
    """What each frame consists of: by one of two tables, or by how its parts end."""
    frames = int(header.get("NumberOfFrames") or 1)
    (_, length), *_ = _fragments(file, at, most=1)
    first = at + ITEM_HEADER + length
    if offsets := header.get("ExtendedOffsetTable"):
        starts = np.frombuffer(offsets, "<u8")
        lengths = np.frombuffer(header.ExtendedOffsetTableLengths, "<u8")
        for frame in wanted:
            yield [(first + _entry(starts, frame) + ITEM_HEADER, _entry(lengths, frame))]
    elif frames == 1:
        yield list(_fragments(file, first))
    elif length:
        if length > 4 * MOST_FRAGMENTS:
            raise ValueError(f"its table of frames takes {data_size(length)}: save it again")
        file.seek(at + ITEM_HEADER)
        table = np.frombuffer(file.read(length), "<u4")
        for frame in wanted:
            begins = first + _entry(table, frame)
            end = first + int(table[frame + 1]) if frame + 1 < len(table) else None
            yield list(_fragments(file, begins, end))
    else:
        found = list(_fragments(file, first))
        each = ([part] for part in found) if len(found) == frames else _ended(file, found)
        some = itertools.islice(each, wanted.start, wanted.stop)
        for _ in wanted:
            if (parts := next(some, None)) is None:
                raise ValueError(
                    "it holds fewer frames than its header says: remove it, or save it again"
                )
            yield parts


def _ended(file: IO[bytes], found: list[Part]) -> Iterator[list[Part]]:
    """The parts of each frame among those of many."""
    parts = []
    for begins, length in found:
        parts.append((begins, length))
        file.seek(begins + max(0, length - LAST_BYTES))
        if END_OF_IMAGE in file.read(min(length, LAST_BYTES)):
            yield parts
            parts = []
    if parts:
        yield parts


def _entry(table: np.ndarray, frame: int) -> int:
    if frame >= len(table):
        raise ValueError(f"its table has {len(table)} frames, and its header says more: save it again")
    return int(table[frame])


def _fragments(
    file: IO[bytes], at: int, end: int | None = None, most: int | None = None
) -> Iterator[Part]:
    """Items from `at` on, as far as they go, or to `end`."""
    count = 0
    while (end is None or at < end) and (most is None or count < most):
        file.seek(at)
        start = file.read(ITEM_HEADER)
        if len(start) < ITEM_HEADER:
            break
        tag, length = struct.unpack("<II", start)
        if tag == END:
            break
        if tag != ITEM or length == 0xFFFFFFFF:
            raise ValueError(f"its compressed pixels are broken at byte {at}: save it again")
        yield at + ITEM_HEADER, length
        at, count = at + ITEM_HEADER + length, count + 1
        if count > MOST_FRAGMENTS:
            raise ValueError(f"its pixels are in more than {MOST_FRAGMENTS} parts: save it again")
    if count == 0:
        raise ValueError(f"its compressed pixels are missing at byte {at}: save it again")


def _refuse_large(stream: bytes, header: Any, syntax: str) -> None:
    pixels, channels = int(header.Rows) * int(header.Columns), int(header.get("SamplesPerPixel") or 1)
    if syntax == RLE:
        _refuse_long_runs(stream, pixels)
        return
    size = stream_size(stream)
    if size is not None and not size.fits(pixels * channels):
        raise ValueError(
            f"a frame of it is {size} by the header of its own compressed stream, and {header.Rows} x "
            f"{header.Columns} x {channels} by the file's: save it again"
        )


def _refuse_long_runs(stream: bytes, pixels: int) -> None:
    """Raises ValueError for a segment of run lengths of far more than one byte for each pixel."""
    (count,) = struct.unpack_from("<I", stream.ljust(RLE_HEADER, b"\0"))
    if count >= RLE_HEADER // 4:  # which its decoder refuses too
        raise ValueError(f"its run lengths have {count} segments, and may have 15: save it again")
    edges = [*struct.unpack_from(f"<{count}I", stream, 4), len(stream)]
    for begins, end in itertools.pairwise(edges):
        if RUN * (end - begins) > pixels + MOST_RUNS:
            _refuse_long_segment(stream, begins, end, pixels + MOST_RUNS)


def _refuse_long_segment(stream: bytes, at: int, end: int, most: int) -> None:
    unpacked = 0
    end = min(end, len(stream))
    while at < end:
        number = stream[at]
        copied = number + 1 if number < 128 else 0
        unpacked += copied or (257 - number if number > 128 else 0)
        at += 1 + (copied or (1 if number > 128 else 0))
        if unpacked > most:
            raise ValueError(
                f"run lengths of it have more than {data_size(most)} unpacked, and a byte for each "
                f"pixel is wanted: save it again"
            )
