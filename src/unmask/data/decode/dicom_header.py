"""The header of a DICOM file: all but its pixels, if that is no more than a header is."""

import io
import os
import zlib
from typing import Any

from unmask.units import data_size

MOST_HEADER, MOST_INFLATED = 2**24, 2**28
"""Bytes: as Python's objects a header takes up to 60 times as many; and of a deflated file, unpacked."""
DEFLATED = b"1.2.840.10008.1.2.1.99"
META_LENGTH, META_BEGINS = b"\2\0\0\0UL\4\0", 132
"""The element that says how long the first part is, behind which a deflated file is packed."""


def read_header(path: str) -> tuple[Any, int]:
    """A dataset without pixels, and at which byte these begin, unless it is deflated.

    Raises ValueError if it is too long, and what pydicom raises.
    """
    import pydicom

    with open(path, "rb") as file:
        start = file.read(MOST_HEADER)
    if DEFLATED in start[:1024]:
        _refuse_inflated(path, start)
        return pydicom.dcmread(path, stop_before_pixels=True, force=True), 0
    stream = io.BytesIO(start)
    header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    if (end := stream.tell()) >= MOST_HEADER:
        raise ValueError(
            f"{data_size(MOST_HEADER)} of it or more come before its pixels: save it again without them"
        )
    return header, end


def _refuse_inflated(path: str, start: bytes) -> None:
    """Raises ValueError for a file that is far larger unpacked; pydicom unpacks all of it."""
    at = META_BEGINS + len(META_LENGTH)
    if start[META_BEGINS:at] != META_LENGTH:
        raise ValueError("it is deflated, and does not say from where on")
    begins = at + 4 + int.from_bytes(start[at : at + 4], "little")
    engine, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with open(path, "rb") as file:
        file.seek(begins, os.SEEK_SET)
        while piece := file.read(2**14):
            unpacked += len(engine.decompress(piece))
            if unpacked > MOST_INFLATED:
                raise ValueError(
                    f"it is deflated, and has more than {data_size(MOST_INFLATED)} unpacked"
                )
