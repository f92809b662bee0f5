"""Opens image files: what Pillow reads, TIFF with any number of bands, NumPy arrays, DICOM."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any

import numpy as np
from PIL import Image

from unmask.data.decode.jpeg import jpeg_picture
from unmask.data.decode.pictures import FORMATS, ArrayPicture, Picture, PillowPicture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".npy", ".dcm")

SAMPLES_PER_PIXEL = 277
REDUCED_IMAGE = 1
"""The bit of TIFF's NewSubfileType that marks a thumbnail or a level of a pyramid."""


def open_file(path: str, channels: int | None = None) -> AbstractContextManager[Picture]:
    """Opens an image file by its suffix, and closes it afterwards.

    `channels`, where it is known, says which axis of an array holds them.
    Raises almost anything where the file is broken.
    """
    opener = OPENERS.get(os.path.splitext(path)[1].lower(), _open_pictures)
    return opener(path, channels)


@contextmanager
def open_encoded(file: IO[bytes]) -> Iterator[Picture]:
    """Opens what Pillow reads from a stream of bytes."""
    if (picture := jpeg_picture(file)) is not None:
        yield picture
        return
    file.seek(0)
    with Image.open(file, formats=FORMATS) as image:
        yield PillowPicture(image)


@contextmanager
def _open_pictures(path: str, channels: int | None) -> Iterator[Picture]:
    with open(path, "rb") as file, open_encoded(file) as picture:
        yield picture


@contextmanager
def _open_numpy(path: str, channels: int | None) -> Iterator[Picture]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    yield array_picture(array, kind="NPY", channels=channels)


@contextmanager
def _open_tiff(path: str, channels: int | None) -> Iterator[Picture]:
    """With Pillow where it is an ordinary picture; with tifffile where it is a stack of bands."""
    if _is_ordinary(path):
        with Image.open(path, formats=FORMATS) as image:
            yield PillowPicture(image)
        return
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        series = _only_series(tiff)
        axes, shape = series.axes, series.shape
        if len(shape) not in (2, 3):
            raise ValueError(
                f"its layout is unknown ({len(shape)} dimensions, {axes}): store height x width x bands"
            )
        axis = next((i for i, name in enumerate(axes) if name not in "YX"), None)

        def load() -> np.ndarray:
            array = series.asarray()
            return array[..., None] if axis is None else np.moveaxis(array, axis, -1)

        count = 1 if axis is None else shape[axis]
        height, width = (side for i, side in enumerate(shape) if i != axis)
        yield ArrayPicture(load, kind="TIFF", size=(height, width), channels=count, dtype=series.dtype)


def _is_ordinary(path: str) -> bool:
    """One page of grey or colour, of eight bits or of sixteen without colour."""
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            # Pillow shows the first of many planes as if it were alone.
            samples = image.tag_v2.get(SAMPLES_PER_PIXEL, 1)  # type: ignore[attr-defined]
            plain = samples == len(image.getbands()) or image.mode == "P"
            return plain and image.mode != "RGBX" and getattr(image, "n_frames", 1) == 1
    except Exception:  # Pillow knows no name for the pixels; a broken file is reported by tifffile
        return False


def _only_series(tiff: Any) -> Any:
    """The image, whatever thumbnails stand behind it."""
    whole = [s for s in tiff.series if not s.keyframe.subfiletype & REDUCED_IMAGE]
    if len(whole) == 1:
        return whole[0]
    sizes = ", ".join(" x ".join(map(str, s.shape)) for s in whole) or "none"
    raise ValueError(f"its bands are of mixed sizes ({sizes}): resample them to one size")


@contextmanager
def _open_dicom(path: str, channels: int | None) -> Iterator[Picture]:
    try:
        import pydicom
    except ImportError as error:
        raise ValueError("DICOM files need a library: pip install 'unmask[dicom]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom comments on values that break the standard's rules
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if int(header.get("NumberOfFrames", 1)) != 1:
            raise ValueError(f"it holds {header.NumberOfFrames} frames: store one image per file")

        def load() -> np.ndarray:
            return _stored_values(pydicom.dcmread(path))

        channels = int(header.get("SamplesPerPixel", 1))
        eight_bits = int(header.BitsAllocated) <= 8
        yield ArrayPicture(
            load,
            kind="DICOM",
            size=(int(header.Rows), int(header.Columns)),
            channels=channels,
            dtype=np.dtype(np.uint8 if eight_bits else np.uint16),
        )


def _stored_values(dataset: Any) -> np.ndarray:
    """[h, w, C], unsigned: the range of the stored bits is spread over 8 or 16, white is bright."""
    from pydicom.pixels import convert_color_space

    array, bits = dataset.pixel_array, int(dataset.BitsStored)
    colour = array.ndim == 3
    if colour and dataset.PhotometricInterpretation.startswith("YBR"):
        array = convert_color_space(array, dataset.PhotometricInterpretation, "RGB")
    values = array.astype(np.int64) + (1 << (bits - 1)) * int(dataset.PixelRepresentation)
    full = 255 if int(dataset.BitsAllocated) <= 8 else 65_535
    values = (values * full + ((1 << bits) - 1) // 2) // ((1 << bits) - 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = full - values
    unsigned = values.astype(np.uint8 if full == 255 else np.uint16)
    return unsigned if colour else unsigned[..., None]


def array_picture(array: np.ndarray, *, kind: str, channels: int | None = None) -> ArrayPicture:
    """A picture of [h, w], [h, w, C] or [C, h, w].

    The channels are the axis with the wanted length, or else the shorter one of first and last.
    Raises ValueError where the layout is neither.
    """
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"its layout is unknown (shape {' x '.join(map(str, array.shape)) or 'of one number'}): "
            f"store height x width, or height x width x channels"
        )
    if array.dtype.kind not in "buif":
        raise ValueError(f"its values are of type {array.dtype}: store numbers")
    if array.ndim == 2:
        array = array[..., None]
    elif _is_channels_first(array.shape, channels):
        array = np.moveaxis(array, 0, -1)
    height, width, count = array.shape
    return ArrayPicture(
        lambda: np.array(array), kind=kind, size=(height, width), channels=count, dtype=array.dtype
    )


def _is_channels_first(shape: tuple[int, ...], channels: int | None) -> bool:
    if channels is not None and (shape[0] == channels) != (shape[2] == channels):
        return shape[0] == channels
    return shape[0] < shape[2]


OPENERS: dict[str, Callable[[str, int | None], AbstractContextManager[Picture]]] = {
    ".npy": _open_numpy,
    ".tif": _open_tiff,
    ".tiff": _open_tiff,
    ".dcm": _open_dicom,
}
"""By suffix; Pillow tries everything else."""
