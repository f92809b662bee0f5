"""Opens image files: what Pillow reads, TIFF with any number of bands, NumPy arrays, DICOM."""

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO

import numpy as np
from PIL import Image

from unmask.data.decode.arrays import array_picture
from unmask.data.decode.beside import refuse_much_beside_pixels
from unmask.data.decode.dicom import is_dicom_image, open_dicom
from unmask.data.decode.file_sizes import bytes_in, most_bytes
from unmask.data.decode.jpeg import jpeg_picture
from unmask.data.decode.pictures import Picture
from unmask.data.decode.pillow import FORMATS, PillowPicture, orientation_of
from unmask.data.decode.png import SIGNATURE, DeepPng, is_deep, without_metadata
from unmask.data.decode.quiet import WARNED, notes_on, quietly
from unmask.data.decode.reading import AS_IT_SAYS, Reading
from unmask.data.decode.tiff import open_tiff
from unmask.data.decode.tiff_directories import TIFF_BEGINS
from unmask.units import data_size

PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp")
SUFFIXES = (*PICTURES, ".npy", ".dcm", ".dicom")
READ_IN_PARTS = (".npy", ".tif", ".tiff")
"""Files of which only what is wanted is read, however much lies beside it."""
WITH_METADATA = (SIGNATURE, b"\xff\xd8")
"""How PNG and JPEG begin, from which damaged metadata can be taken away."""
LONGEST_NPY_HEADER = 2**16
"""Bytes; from version 2 on it may have four gigabytes, which NumPy reads before it refuses them."""
MOST_COPIED = 2**29
"""Bytes of a file of which a copy is made without damaged metadata."""
START = 512
"""Bytes that tell what a file is."""


def open_file(path: str, reading: Reading = AS_IT_SAYS) -> AbstractContextManager[Picture]:
    """Opens an image file by its suffix, or by its content if that says nothing; closes it afterwards.

    Raises almost anything if the file is broken.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
        raise ValueError("it is no regular file")
    suffix, most = os.path.splitext(path)[1].lower(), most_bytes(reading.max_pixels)
    if found.st_size > most and suffix not in READ_IN_PARTS:
        raise ValueError(
            f"its file has {data_size(found.st_size)}, and --data.max-megapixels "
            f"{reading.max_pixels / 1e6:g} allows {data_size(most)}: save it again, or raise that"
        )
    return OPENERS.get(suffix, _open_pictures if suffix in PICTURES else _open_by_content)(path, reading)


@contextmanager
def open_encoded(file: IO[bytes], reading: Reading = AS_IT_SAYS) -> Iterator[Picture]:
    """Opens an image in a stream of bytes, by what these are; raises almost anything if it is broken."""
    refuse_much_beside_pixels(file)
    if (picture := jpeg_picture(file)) is not None:
        yield picture
        return
    file.seek(0)
    start = file.read(START)
    if start.startswith(TIFF_BEGINS):
        with open_tiff(file, reading) as picture:
            yield picture
        return
    with quietly() as messages:
        image, stripped = _opened(file)
    with image:
        notes = notes_on([*messages, *([WARNED] if stripped else [])])
        if is_deep(start):
            yield DeepPng(file, image, orientation_of(image), notes)
        else:
            yield PillowPicture(image, notes, plainer=lambda: _plainer(file))


def _opened(file: IO[bytes]) -> tuple[Image.Image, bool]:
    """By Pillow, and whether that needed the metadata away."""
    file.seek(0)
    try:
        return Image.open(file, formats=FORMATS), False
    except Exception as error:  # damaged metadata raise almost anything
        file.seek(0)
        if not file.read(START).startswith(WITH_METADATA):
            raise
        try:
            return _plainer(file), True
        except Exception:
            raise error from None


def _plainer(file: IO[bytes]) -> Image.Image:
    """Without metadata; at last without EXIF, which may turn the image."""
    if (size := bytes_in(file)) > MOST_COPIED:
        raise ValueError(
            f"its metadata are damaged and it has {data_size(size)}, of which no copy without them is "
            f"made: save it again"
        )
    content = file.read()
    try:
        return Image.open(io.BytesIO(without_metadata(content)), formats=FORMATS)
    except Exception:  # see above
        return Image.open(io.BytesIO(without_metadata(content, exif=False)), formats=FORMATS)


@contextmanager
def _open_pictures(path: str, reading: Reading) -> Iterator[Picture]:
    with open(path, "rb") as file, open_encoded(file, reading) as picture:
        yield picture


@contextmanager
def _open_by_content(path: str, reading: Reading) -> Iterator[Picture]:
    with open(path, "rb") as file:
        is_dicom = is_dicom_image(file.read(START))
    with (open_dicom if is_dicom else _open_pictures)(path, reading) as picture:
        yield picture


@contextmanager
def _open_numpy(path: str, reading: Reading) -> Iterator[Picture]:
    with open(path, "rb") as file:
        start = file.read(START)
    if int.from_bytes(start[8:12], "little") > LONGEST_NPY_HEADER and start[6:7] > b"\1":
        raise ValueError("its header is longer than that of any array: save it again")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    yield array_picture(array, kind="NPY", reading=reading)


OPENERS: dict[str, Callable[[str, Reading], AbstractContextManager[Picture]]] = {
    ".npy": _open_numpy,
    ".dcm": open_dicom,
    ".dicom": open_dicom,
}
"""By suffix; of everything else the content is looked at."""
