"""Writes image files of kinds that no library of ours writes."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from unmask.config.image import PixelFormat
from unmask.core.spec import Size
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.instances import Instances
from unmask.data.paths import PathList

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6
"""Colour types of PNG."""


def values(path, channels: int = 3, pixel_type="float32", **wanted) -> np.ndarray:
    """A decoded file, [h, w, C]."""
    wanted = PixelFormat(channels=channels, pixel_type=pixel_type, **wanted)
    decoded = Images("test", PathList([str(path)])).decode(0, wanted)
    assert not isinstance(decoded, BadImage), decoded
    return decoded.permute(1, 2, 0).numpy()


def reason(path, channels: int = 3, pixel_type="float32", **wanted) -> str:
    """Why a file cannot be decoded."""
    wanted = PixelFormat(channels=channels, pixel_type=pixel_type, **wanted)
    bad = Images("test", PathList([str(path)])).decode(0, wanted)
    assert isinstance(bad, BadImage), bad
    return bad.reason


def all_pixels(instances: Instances, size: Size) -> np.ndarray:
    """bool [n, h, w]: the masks of an image's objects."""
    return np.stack([instances.pixels(i, size) for i in range(len(instances))])


def chunk(name: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(
    path, array: np.ndarray, colour_type: int, before: bytes = b"", behind: bytes = b""
) -> None:
    """uint8 or uint16 [h, w, C], with whole chunks before and behind the pixels."""
    h, w = array.shape[:2]
    bits = 8 * array.dtype.itemsize
    rows = array.astype(array.dtype.newbyteorder(">")).reshape(h, -1)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = chunk(b"IHDR", struct.pack(">2I5B", w, h, bits, colour_type, 0, 0, 0))
    parts = header, before, chunk(b"IDAT", pixels), behind, chunk(b"IEND", b"")
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def png_header(width: int, height: int) -> bytes:
    """A PNG of grey that says a size and has hardly any pixels."""
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, GREY, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 9)[:4])


def write_header(path, width: int, height: int) -> None:
    """See `png_header`."""
    Path(path).write_bytes(png_header(width, height))


def write_bmp32(path, rgba: np.ndarray) -> None:
    """uint8 [h, w, 4] with masks for all four, as screen captures are written."""
    h, w = rgba.shape[:2]
    data = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, w, h, 1, 32, 3, len(data), 0, 0, 0, 0)
    header += masks + b"BGRs" + bytes(48)
    start = 14 + len(header)
    whole = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + data
    Path(path).write_bytes(whole)


def write_dicom(path, pixels: np.ndarray, *, bits=12, photometric="MONOCHROME2", meta=True, **tags):
    """[h, w], [frames, h, w] or uint8 [h, w, 3]; signed if the array is; other tags by their names.

    `jpeg`: the encoded pixels instead.
    """
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

    jpeg = tags.pop("jpeg", None)
    colour = pixels.shape[-1] == 3 and pixels.ndim == 3 and pixels.dtype == np.uint8
    alloc = 8 * pixels.dtype.itemsize
    d = pydicom.Dataset()
    d.SOPClassUID, d.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    d.Rows, d.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    d.SamplesPerPixel, d.PhotometricInterpretation = 3 if colour else 1, photometric
    if colour:
        d.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        d.NumberOfFrames = len(pixels)
    d.BitsAllocated, d.BitsStored, d.HighBit = alloc, min(bits, alloc), min(bits, alloc) - 1
    d.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in tags.items():
        setattr(d, name, value)
    if jpeg is None:
        data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        d.PixelData = data + b"\0" * (len(data) % 2)
        d["PixelData"].VR = "OW" if alloc > 8 else "OB"
    else:
        d.PixelData = pydicom.encaps.encapsulate([jpeg])
        d["PixelData"].VR, d["PixelData"].is_undefined_length = "OB", True
    if meta:
        d.file_meta = pydicom.dataset.FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if jpeg is None else JPEGBaseline8Bit
        d.save_as(path, enforce_file_format=True)
    else:
        d.save_as(path, implicit_vr=True, little_endian=True)
