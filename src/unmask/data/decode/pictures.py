"""An opened image: its header is known, its pixels are decoded when they are asked for.

Legend: C channels, h x w pixels.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch import Tensor

from unmask.config.image import PixelFormat, PixelType
from unmask.core.spec import Size
from unmask.data.decode.file_sizes import BYTES_PER_PIXEL
from unmask.data.decode.quiet import quietly
from unmask.errors import lacks_memory
from unmask.units import counted, data_size

SMALLER = 0.5
"""The largest share of its size that a JPEG can be decoded at, short of its full size."""

Box = tuple[int, int, int, int]
"""Top, left, height, width."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue, as in Pillow's conversion to grey (ITU-R 601)."""

STRIP_VALUES = 2**22
"""So many are converted at once: what exists on the way takes little memory beside the image."""

ROOM = 2**32
"""Bytes: the largest images that are usual, and as much again on the way to them."""
HUGE = 1e30
FULL_SCALE = {"bool": 1, "uint8": 255, "uint16": 65_535}
"""What counts as 1 on the scale 0 to 1; numbers of other types are taken as they are."""


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used, and why."""

    path: str
    reason: str

    @classmethod
    def of(cls, path: str, error: Exception) -> "BadImage":
        """By what was raised when it was read.

        Raises that if the machine lacks memory, which is no fault of the image: with room for the
        largest one, it is.
        """
        if lacks_memory(error) and not _has_room():
            raise error
        if isinstance(error, UnidentifiedImageError):  # its own words show a Python object
            return cls(path, "its content is no image of a kind that is read, or it is cut short")
        return cls(path, f"{type(error).__name__}: {error}")


def _has_room() -> bool:
    """Whether this process could have as much more memory as any image may take."""
    try:
        np.empty(ROOM, dtype=np.uint8)
    except MemoryError:
        return False
    return True


class Picture(Protocol):
    """An opened image, upright."""

    kind: str
    """Format and type of pixel, for people: 'JPEG RGB', 'NPY uint16 x 10'."""
    size: Size
    channels: int
    """What it has by itself; transparency does not count."""
    pixel_type: PixelType
    """float32 if eight bits would lose something."""
    decodes_smaller: bool
    """Whether `scale` changes what is decoded."""
    notes: tuple[str, ...] = ()
    """What was decided about it that its owner may want otherwise, each a part of a sentence."""
    nodata: float | None = None
    """The value that the file itself says is none."""
    in_units: bool | None = None
    """For DICOM: whether its values are in units, by the file's own slope and intercept."""
    eight_bits: bool
    """Whether it has the usual range of pictures, whatever it is decoded as."""

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """Decodes to [C, h, w]: all of the image or what is in `box`, at `scale` of its size or more.

        uint8 from 0 to 255, or float32 with integers of 8 and 16 bits on the scale 0 to 1, and NaN for
        no-data: values that are NaN, `wanted.nodata` as stored, or what the file calls so.
        Raises ValueError if the image does not fit, and whatever its decoder raises.
        """
        ...


class ArrayPicture(Picture):
    """An array of numbers that is loaded when it is needed."""

    decodes_smaller = False

    def __init__(
        self,
        load: Callable[[], np.ndarray],
        *,
        kind: str,
        size: Size,
        channels: int,
        dtype: np.dtype,
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
        nodata: float | None = None,
        notes: tuple[str, ...] = (),
        in_units: bool | None = None,
        marks_prepared: bool = False,
        value_bytes: int = 1,
    ):
        """`load` gives [h, w, C] as stored, `prepare` makes of it `channels` values of type `dtype`.

        `marks_prepared`: marks of no-data are among what `prepare` gives, not among stored values.
        `value_bytes`: what the decoder takes for each of them, if that is more than the value.
        """
        self._load, self._prepare = load, prepare
        self.kind = f"{kind} {dtype}" + (f" x {channels}" if channels > 1 else "")
        self.size, self.channels = size, channels
        self.notes, self.nodata, self.in_units = notes, nodata, in_units
        self._marks_prepared = marks_prepared
        self._value_bytes = max(dtype.itemsize, value_bytes)
        self.eight_bits = dtype in (np.uint8, np.bool_)
        self.pixel_type: PixelType = "uint8" if self.eight_bits and nodata is None else "float32"

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`; always at its full size."""
        refuse_if_large(self.size, wanted, self.channels, self._value_bytes)
        refuse_other_channels(self.channels, wanted.channels)
        with quietly():
            stored = self._load()
        refuse_other_size(stored, self.size)

        def convert(rows: slice) -> Tensor:
            values = self._prepare(stored[rows]) if self._prepare else stored[rows]
            marked = values if self._marks_prepared else stored[rows]
            return as_tensor(values, wanted, missing_in(marked, wanted, self.nodata))

        return part_of(in_strips(self.size, self.channels, convert), box)


class DecodedPicture(Picture):
    """Pixels that were kept in memory."""

    kind = "decoded"
    decodes_smaller = False

    def __init__(self, decoded: Tensor):
        self._decoded = decoded
        self.channels, *size = decoded.shape
        self.size = (size[0], size[1])
        self.pixel_type = cast(PixelType, str(decoded.dtype).removeprefix("torch."))
        self.eight_bits = self.pixel_type == "uint8"

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`; `wanted` is what they were decoded as."""
        return part_of(self._decoded, box)


class ReusedPicture(Picture):
    """Decodes each size once, however many crops are taken of it; those are the same as without it."""

    def __init__(self, picture: Picture, reopen: Callable[[], AbstractContextManager[Picture]]):
        """`reopen` opens the picture again, since its decoder may have only one size in it."""
        self._picture, self._reopen = picture, reopen
        self._decoded: dict[int, Tensor] = {}
        self.kind, self.size, self.channels = picture.kind, picture.size, picture.channels
        self.pixel_type, self.decodes_smaller = picture.pixel_type, picture.decodes_smaller
        self.notes, self.nodata, self.in_units = picture.notes, picture.nodata, picture.in_units
        self.eight_bits = picture.eight_bits

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`; `wanted` is the same each time."""
        share = decoded_share(self.size, scale) if self.decodes_smaller else 1
        if share not in self._decoded:
            self._decoded[share] = self._decode(wanted, scale)
        whole = self._decoded[share]
        return part_of(whole, box and decoded_box(box, self.size, (whole.shape[1], whole.shape[2])))

    def _decode(self, wanted: PixelFormat, scale: float) -> Tensor:
        if not self._decoded:
            return self._picture.pixels(wanted, scale)
        with self._reopen() as picture:
            return picture.pixels(wanted, scale)


def decoded_share(size: Size, scale: float) -> int:
    """What the sides of a JPEG are divided by so that `scale` of them is left: 1, 2, 4 or 8."""
    if scale > SMALLER:
        return 1
    most = min(side // (int(side * scale) + 1) for side in size)
    return next((share for share in (8, 4, 2) if share <= most), 1)


def part_of(pixels: Tensor, box: Box | None) -> Tensor:
    """What is in the box, of all channels."""
    if box is None:
        return pixels
    top, left, h, w = box
    return pixels[:, top : top + h, left : left + w]


def decoded_box(box: Box, size: Size, decoded: Size) -> Box:
    """Where a box of an image lies in what was decoded of it."""
    if decoded == size:
        return box
    down, across = decoded[0] / size[0], decoded[1] / size[1]
    top, left = int(box[0] * down), int(box[1] * across)
    return top, left, max(1, round(box[2] * down)), max(1, round(box[3] * across))


def as_tensor(array: np.ndarray, wanted: PixelFormat, missing: np.ndarray | None = None) -> Tensor:
    """[h, w, C] of any real type as the wanted channels and type, [C, h, w].

    What is `missing`, [h, w, C] or [h, w, 1], becomes NaN. Raises ValueError if it does not fit.
    """
    full_scale = FULL_SCALE.get(array.dtype.name, 0)
    if array.dtype == np.uint16 and wanted.pixel_type == "uint8":
        array, full_scale = (array >> 8).astype(np.uint8), 255
    if missing is not None:
        array = np.where(missing, array.dtype.type(0), array).astype(np.float32)
        array[np.broadcast_to(missing, array.shape)] = np.nan
    elif array.dtype not in (np.uint8, np.float32):
        array = array.astype(np.float32)
    if array.dtype == np.float32 and np.isinf(array).any():
        raise ValueError(
            "some pixels are infinite: fill them before training, or say with --data.nodata inf (or "
            "-inf) that they are no data"
        )
    pixels = array_to_channels(array, wanted.channels)
    return of_type(torch.from_numpy(channels_first(pixels)), wanted.pixel_type, full_scale)


def missing_in(stored: np.ndarray, wanted: PixelFormat, own: float | None) -> np.ndarray | None:
    """Which values [h, w, C] are no-data by the run's mark or the file's own; None if none can be.

    Where pixels are wanted as uint8 there is no room for a mark, and all are data.
    """
    if wanted.pixel_type == "uint8":
        return None
    marks = [mark for mark in {wanted.nodata, own} if mark is not None and can_hold(stored.dtype, mark)]
    missing = [_equals(stored, mark) for mark in marks]
    return np.logical_or.reduce(missing) if missing else None


def can_hold(dtype: np.dtype, mark: float) -> bool:
    """Whether a value of this type can equal the mark; NaN needs no comparison."""
    if math.isnan(mark) or dtype.kind == "f":
        return not math.isnan(mark)
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return least <= mark <= most and mark == int(mark)


def _equals(stored: np.ndarray, mark: float) -> np.ndarray:
    if HUGE <= abs(mark) < math.inf:  # the smallest float32, which is often written with few digits
        return np.isclose(stored, mark, rtol=1e-4, atol=0)
    return stored == stored.dtype.type(mark)


def of_type(pixels: Tensor, wanted: PixelType, full_scale: int) -> Tensor:
    """Raises ValueError if numbers without a scale should become uint8."""
    if wanted == "float32":
        return pixels.float() if full_scale in (0, 1) else pixels.float() / full_scale
    if pixels.dtype == torch.uint8 and full_scale == 255:
        return pixels
    if not full_scale:
        raise ValueError("these numbers have no scale of their own beside images of 8 bits")
    return (pixels.float() * (255 / full_scale)).round().byte()


def array_to_channels(array: np.ndarray, channels: int) -> np.ndarray:
    """[h, w, has] to [h, w, channels]: grey and colour become each other; raises ValueError."""
    has = array.shape[2]
    refuse_other_channels(has, channels)
    if has == channels:
        return array
    if has == 1:
        return array.repeat(3, axis=2)
    grey = array.astype(np.float32) @ np.array(LUMINANCE, dtype=np.float32)
    return (grey.round().astype(np.uint8) if array.dtype == np.uint8 else grey)[..., None]


def refuse_other_channels(has: int, wanted: int) -> None:
    """Raises ValueError unless they are the same, or grey and colour."""
    if has != wanted and {has, wanted} != {1, 3}:
        raise ValueError(wrong_channels(has, wanted))


def wrong_channels(has: int, wanted: int) -> str:
    """Why an image does not fit."""
    channels = counted(has, "channel")
    return f"it has {channels} and {wanted} are wanted: remove it, or choose --data.channels {has}"


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """[h, w] or [h, w, C] as [C, h, w], without moving a value."""
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def in_strips(size: Size, channels: int, convert: Callable[[slice], Tensor]) -> Tensor:
    """All rows of an image as `convert` makes them of some, [C, h, w]."""
    height, width = size
    rows = max(1, STRIP_VALUES // max(1, width * channels))
    if rows >= height:
        return convert(slice(0, height))
    whole = None
    for top in range(0, height, rows):
        strip = convert(slice(top, top + rows))
        if whole is None:
            whole = strip.new_empty(strip.shape[0], height, strip.shape[2])
        whole[:, top : top + rows] = strip
    assert whole is not None
    return whole


def refuse_other_size(stored: np.ndarray, size: Size) -> None:
    """Raises ValueError if an array is not as high and wide as its header said."""
    if stored.shape[:2] != size:
        raise ValueError(f"its pixels are {stored.shape[:2]} and its header says {size}")


def refuse_if_large(size: Size, wanted: PixelFormat, channels: int, value_bytes: int = 1) -> None:
    """Raises ValueError, before any pixel is decoded; `value_bytes` as they are stored."""
    height, width = size
    if width * height > wanted.max_pixels:
        raise ValueError(f"{width} x {height} pixels are over --data.max-megapixels")
    channels = max(channels, wanted.channels)
    value_bytes = max(value_bytes, 4 if wanted.pixel_type == "float32" else 1)
    needed, most = width * height * channels * value_bytes, BYTES_PER_PIXEL * wanted.max_pixels
    if needed > most:
        raise ValueError(
            f"{counted(channels, 'channel')} of {width} x {height} pixels take {data_size(needed)}, "
            f"over the {data_size(most)} that --data.max-megapixels {wanted.max_pixels / 1e6:g} allows: "
            f"cut it, or raise that to {math.ceil(needed / BYTES_PER_PIXEL / 1e6)}"
        )
