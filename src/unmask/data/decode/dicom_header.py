"""The header of a DICOM file: all but its pixels, if that is no more than a header is."""

import io
import zlib
from typing import Any

from unmask.data.decode.file_sizes import bytes_in
from unmask.units import data_size

MOST_HEADER, MOST_INFLATED = 2**24, 2**28
"""Bytes: as Python's objects a header takes up to 60 times as many; and of a deflated file, unpacked."""
DEFLATED = "1.2.840.10008.1.2.1.99"
MARKER, MARKED_AT = b"DICM", 128
"""What every DICOM file that follows Part 10 of the standard has behind its preamble."""
COMMANDS, META = 0, 2
"""Groups of elements in front, of which the second says how the file is written."""


def read_header(path: str) -> tuple[Any, int]:
    """A dataset without pixels, and at which byte these begin, unless it is deflated.

    Raises ValueError if it is too long, and what pydicom raises.
    """
    import pydicom

    with open(path, "rb") as file:
        start = file.read(MOST_HEADER)
    if (packed_from := _packed_from(start)) is not None:
        _refuse_inflated(path, packed_from)
        return pydicom.dcmread(path, stop_before_pixels=True, force=True), 0
    stream = io.BytesIO(start)
    header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    if (end := stream.tell()) >= MOST_HEADER:
        raise ValueError(
            f"{data_size(MOST_HEADER)} of it or more come before its pixels: save it again without them"
        )
    return header, end


def _packed_from(start: bytes) -> int | None:
    """Where a deflated file is packed from, as pydicom finds it; None of other files."""
    from pydicom.filereader import read_dataset

    stream = io.BytesIO(start)
    marked = start.startswith(MARKER, MARKED_AT)
    stream.seek(MARKED_AT + len(MARKER) if marked else 0)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != META)
    read_dataset(stream, True, True, stop_when=lambda tag, *_: tag >> 16 != COMMANDS)
    return stream.tell() if meta.get("TransferSyntaxUID") == DEFLATED else None


def _refuse_inflated(path: str, begins: int) -> None:
    """Raises ValueError for a file that is far larger unpacked; pydicom unpacks all of it."""
    engine, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with open(path, "rb") as file:
        packed = bytes_in(file) - begins
        file.seek(begins)
        while not engine.eof and (piece := file.read(2**14)):
            unpacked += len(engine.decompress(piece))
            if max(packed, unpacked) > MOST_INFLATED:
                raise ValueError(
                    f"it is deflated, and has more than {data_size(MOST_INFLATED)} packed or unpacked"
                )
