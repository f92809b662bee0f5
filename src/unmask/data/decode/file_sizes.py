"""How many bytes an image file may have."""

import os
from typing import IO

BYTES_PER_PIXEL = 10
"""What the largest images that --data.max-megapixels allows may take: 2 GB for its 200."""
BESIDE_PIXELS = 2**26
"""Bytes of a file that may be comments, profiles, or a film behind the photo, as phones write it."""


def most_bytes(pixels: int) -> int:
    """What a file of an image with so many pixels may hold; encoded, they take less than decoded."""
    return BYTES_PER_PIXEL * pixels + BESIDE_PIXELS


def bytes_in(file: IO[bytes]) -> int:
    """How many bytes a file holds; leaves it at its start."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size
