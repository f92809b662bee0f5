"""Fault 18 in compressed streams: what they say of themselves is no reason to take memory."""

import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from data.makers import reason
from data.test_large_streams import RLE, rle, write_frames, write_tiff
from faults.test_memory import with_little_room

SMALL = np.zeros((64, 64), dtype=np.uint8)


def jpeg_2000() -> bytes:
    """One that says 60000 x 60000, which its decoder believes."""
    stream = bytearray(imagecodecs.jpeg2k_encode(SMALL, codecformat="j2k"))
    stream[8:16] = stream[24:32] = struct.pack(">II", 60_000, 60_000)
    return bytes(stream)


def jpeg() -> bytes:
    """The same of 65000 x 65000."""
    stream = bytearray(imagecodecs.jpeg8_encode(SMALL))
    at = stream.index(b"\xff\xc0") + 5
    stream[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(stream)


def run_lengths() -> bytes:
    """64 MiB that unpack to 4 GiB."""
    return rle(b"\x81\0" * 2**25)


def in_tiff(path: Path, compression: int, stream: bytes) -> None:
    write_tiff(path, compression, SMALL, stream=stream)


def in_dicom(path: Path, syntax: str, stream: bytes) -> None:
    write_frames(path, SMALL[None], lambda _: stream, syntax)


LIARS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "tiff jpeg 2000": ("a.tif", lambda path: in_tiff(path, 34712, jpeg_2000())),
    "tiff jpeg": ("a.tif", lambda path: in_tiff(path, 7, jpeg())),
    "dicom jpeg 2000": ("a.dcm", lambda path: in_dicom(path, "1.2.840.10008.1.2.4.90", jpeg_2000())),
    "dicom jpeg": ("a.dcm", lambda path: in_dicom(path, "1.2.840.10008.1.2.4.50", jpeg())),
    "dicom run lengths": ("a.dcm", lambda path: in_dicom(path, RLE, run_lengths())),
}


@pytest.mark.parametrize("kind", LIARS)
def test_18_streams_that_say_gigabytes_are_refused(tmp_path, kind):
    """With 1 GiB to take, of which no decoder asks for more."""
    name, write = LIARS[kind]
    write(tmp_path / name)
    Image.init()

    def refused():
        raise ValueError(reason(tmp_path / name, channels=1))

    says = "have more than 512 MiB unpacked" if "run" in kind else "by the header of its own"
    assert with_little_room(refused, ValueError, says) == 0
