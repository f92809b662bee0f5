"""What PNG, JPEG, WebP and TIFF files hold beside their pixels: how much, found without reading it."""

import struct
from typing import IO

from unmask.data.decode.file_sizes import BESIDE_PIXELS, bytes_in
from unmask.data.decode.tiff_directories import TIFF_BEGINS, refuse_endless_directories
from unmask.units import data_size

PNG, JPEG, RIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF"
SCAN = 0xDA
"""The marker of a JPEG's pixels."""
CHUNK_EDGES = 12
"""Bytes of a PNG's chunk beside its content: length, name, checksum."""
PACKED_BYTES = 4
"""What a pixel takes in a WebP file, at most."""


def refuse_much_beside_pixels(file: IO[bytes]) -> None:
    """Raises ValueError for more than BESIDE_PIXELS bytes of comments, profiles and the like.

    Pillow reads them whole when it opens a file, and holds them several times. Leaves the file at its
    start.
    """
    size, start, beside = bytes_in(file), file.read(len(PNG)), 0
    if start.startswith(TIFF_BEGINS):
        refuse_endless_directories(file)
    elif size > BESIDE_PIXELS:
        if start == PNG:
            beside = _beside_png(file, size)
        elif start.startswith(JPEG):
            beside = _before_scan(file, size)
        elif start.startswith(RIFF):
            beside = size - PACKED_BYTES * _webp_pixels(file)
    file.seek(0)
    if beside > BESIDE_PIXELS:
        raise ValueError(
            f"{data_size(beside)} of it or more are not its pixels, and at most "
            f"{data_size(BESIDE_PIXELS)} are read: save it again without comments and profiles"
        )


def _beside_png(file: IO[bytes], size: int) -> int:
    """All but the pixels, as far as Pillow would read."""
    at, beside = len(PNG), 0
    while at + CHUNK_EDGES <= size and beside <= BESIDE_PIXELS:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        if name == b"IEND" or not name.isalpha():
            break
        beside += CHUNK_EDGES + (0 if name == b"IDAT" else min(length, size - at))
        at += CHUNK_EDGES + length
    return beside


def _before_scan(file: IO[bytes], size: int) -> int:
    """The header of a JPEG: behind its pixels Pillow reads nothing."""
    at = len(JPEG)
    while at + 4 <= size and at <= BESIDE_PIXELS:
        file.seek(at)
        begins, marker, length = struct.unpack(">BBH", file.read(4))
        if begins != 0xFF or marker == SCAN:
            break
        at += 2 + length
    return at


def _webp_pixels(file: IO[bytes]) -> int:
    """Width x height as the header says."""
    file.seek(12)
    kind, header = file.read(4), file.read(14)
    if kind == b"VP8X":
        width, height = int.from_bytes(header[8:11], "little"), int.from_bytes(header[11:14], "little")
    elif kind == b"VP8L":
        bits = int.from_bytes(header[5:9], "little")
        width, height = bits & 0x3FFF, bits >> 14 & 0x3FFF
    else:
        width, height = (word & 0x3FFF for word in struct.unpack("<HH", header[10:14]))
        return width * height
    return (width + 1) * (height + 1)
