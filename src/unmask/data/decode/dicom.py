"""DICOM by pydicom: grey and colour, values in units or as stored bits.

Legend: C channels, h x w pixels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from unmask.data.decode.arrays import in_order, order_by_name
from unmask.data.decode.dicom_frames import decoded_frames
from unmask.data.decode.dicom_header import MARKED_AT, MARKER, read_header
from unmask.data.decode.pictures import ArrayPicture, Picture
from unmask.data.decode.quiet import notes_on, quietly
from unmask.data.decode.reading import Reading

NOT_IMAGES = (
    b"1.2.840.10008.1.3.10",  # the directory of a medium
    b"1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    b"1.2.840.10008.5.1.4.1.1.88.",  # structured reports
    b"1.2.840.10008.5.1.4.1.1.104.",  # documents
)
"""Classes of DICOM files without pixels."""
JPEG_2000 = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
"""How the names of its transfer syntaxes begin."""
JPEG_2000_BYTES = 6
"""What its decoder takes for each value of a frame: four, and copies."""
UNITS_BY_RULE = ("CT", "PT")
"""Modalities whose rescaled values have units even if RescaleType does not name them."""


def is_dicom_image(start: bytes) -> bool:
    """Whether a file that begins so, with 512 bytes or more, is a DICOM file that may hold an image."""
    marked = start.startswith(MARKER, MARKED_AT)
    return marked and not any(kind in start for kind in NOT_IMAGES)


@contextmanager
def open_dicom(path: str, reading: Reading) -> Iterator[Picture]:
    """With or without the standard's preamble; raises ValueError if it has no image, and pydicom's."""
    try:
        import pydicom  # noqa: F401  # what follows needs it
    except ImportError as error:
        raise ValueError("DICOM files need a library: pip install 'unmask[dicom]'") from error
    with quietly() as messages:
        header, at = read_header(path)
    if header.get("Rows") is None or header.get("Columns") is None:
        raise ValueError("it holds no image")
    yield _picture(path, header, at, reading, notes_on(messages))


def _picture(path: str, header: Any, at: int, reading: Reading, notes: tuple[str, ...]) -> ArrayPicture:
    frames = int(header.get("NumberOfFrames") or 1)
    palette = header.PhotometricInterpretation == "PALETTE COLOR"
    grey = int(header.get("SamplesPerPixel") or 1) == 1 and not palette
    as_channels = reading.axes is not None and frames > 1 and grey
    if frames > 1 and not as_channels:
        taken = f"of its {frames} frames the middle one is read"
        notes = (*notes, f"{taken} (--data.axes CYX takes them as channels)" if grey else taken)
    frame = None if as_channels or frames == 1 else frames // 2
    own = _rescaling(header, frame or 0) if grey else None
    in_units = grey and (own is not None if reading.rescale is None else reading.rescale)
    prepare, dtype = _meaning(header, (own or (1.0, 0.0)) if in_units else None, palette)
    order = order_by_name(reading.axes or "CYX", 3) if as_channels else None

    def load() -> np.ndarray:
        stored = _decoded(path, header, at, frame)
        if order is not None:
            return in_order(stored, order)
        return stored[..., None] if stored.ndim == 2 else stored

    shape = (frames, int(header.Rows), int(header.Columns))
    height, width = (shape[axis] for axis in order[:2]) if order else shape[1:]
    return ArrayPicture(
        load,
        kind="DICOM",
        size=(height, width),
        channels=(shape[order[2]] if order else 1) if grey else 3,
        dtype=dtype,
        prepare=prepare,
        notes=notes,
        in_units=(own is not None) if grey else None,
        marks_prepared=in_units,
        value_bytes=JPEG_2000_BYTES if order is None and _syntax_of(header).startswith(JPEG_2000) else 1,
    )


def _decoded(path: str, header: Any, at: int, frame: int | None) -> np.ndarray:
    """[h, w], [h, w, 3], or frames of either; pydicom has turned YBR into RGB."""
    import pydicom
    from pydicom.pixels import pixel_array

    syntax = _syntax_of(header)
    if syntax.is_encapsulated:
        count = int(header.get("NumberOfFrames") or 1)
        wanted = range(count) if frame is None else range(frame, frame + 1)
        each = decoded_frames(path, header, at, syntax, wanted)
        first = next(each)
        if len(wanted) == 1:
            return first
        whole = np.empty((count, *first.shape), first.dtype)
        whole[0] = first
        for index, stored in enumerate(each, 1):
            whole[index] = stored
        return whole
    if syntax.is_deflated:
        return pixel_array(pydicom.dcmread(path, force=True), index=frame)
    return pixel_array(path, index=frame, transfer_syntax_uid=syntax)


def _syntax_of(header: Any) -> Any:
    """How the file is encoded, as it says, or as pydicom found."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" in header.file_meta:
        return header.file_meta.TransferSyntaxUID
    implicit, little = header.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else explicit


def _rescaling(header: Any, frame: int) -> tuple[float, float] | None:
    """Slope and intercept to the values' units: the file's, or those of a frame of many."""
    for place in (header, *_functional_groups(header, frame)):
        slope, intercept = place.get("RescaleSlope"), place.get("RescaleIntercept")
        if slope is not None and intercept is not None:
            return float(slope), float(intercept)
    return None


def _functional_groups(header: Any, frame: int) -> Iterator[Any]:
    """Where the newer multi-frame objects keep them."""
    each = header.get("PerFrameFunctionalGroupsSequence") or []
    for group in (*each[frame : frame + 1], *(header.get("SharedFunctionalGroupsSequence") or [])):
        yield from group.get("PixelValueTransformationSequence") or []


def _meaning(
    header: Any, rescaling: tuple[float, float] | None, palette: bool
) -> tuple[Callable[[np.ndarray], np.ndarray] | None, np.dtype]:
    """From stored values to what they mean, and the type of those."""
    if "BitsStored" not in header:  # floating-point pixels
        return None, np.dtype(np.float32)
    low, bits = _lowest(header), int(header.BitsStored)
    high, inverted = low + (1 << bits) - 1, header.PhotometricInterpretation == "MONOCHROME1"
    if palette:
        return _colours_of(header)
    if rescaling is not None:
        slope, intercept = rescaling
        mirrored = inverted and not _has_units(header)

        def rescaled(stored: np.ndarray) -> np.ndarray:
            values = (low + high - stored.astype(np.float64)) if mirrored else stored
            return (values * slope + intercept).astype(np.float32)

        return rescaled, np.dtype(np.float32)
    full = 255 if int(header.BitsAllocated) <= 8 else 65_535
    dtype = np.dtype(np.uint8 if full == 255 else np.uint16)

    def spread(stored: np.ndarray) -> np.ndarray:
        """The range of the stored bits over 8 or 16, white is bright."""
        values = ((stored.astype(np.int64) - low) * full + (high - low) // 2) // (high - low)
        return (full - values if inverted else values).astype(dtype)

    return spread, dtype


def _lowest(header: Any) -> int:
    return -(1 << (int(header.BitsStored) - 1)) if int(header.get("PixelRepresentation") or 0) else 0


def _has_units(header: Any) -> bool:
    """Then dark and bright are no matter of display, and stay as they are."""
    return header.get("Modality") in UNITS_BY_RULE or header.get("RescaleType", "US") not in ("US", "")


def _colours_of(header: Any) -> tuple[Callable[[np.ndarray], np.ndarray], np.dtype]:
    """By the file's palette; its entries of 16 bits are often of 8 in truth."""
    from pydicom.pixels import apply_color_lut

    def colours(stored: np.ndarray) -> np.ndarray:
        with quietly():
            return apply_color_lut(stored[..., 0], header)

    entries = colours(np.arange(1 << min(16, int(header.BitsStored)), dtype=np.uint16)[None, :, None])
    if entries.dtype == np.uint8 or (entries == (entries >> 8) * 257).all():
        return (lambda stored: _high_byte(colours(stored))), np.dtype(np.uint8)
    return colours, np.dtype(entries.dtype)


def _high_byte(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)
