"""An opened image: its header is known, its pixels are decoded when they are asked for.

Legend: C channels, h x w pixels.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unmask.config.plan import PixelFormat, PixelType
from unmask.core.patches import Size

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
"""What Pillow may open, whatever a file's name says."""
JPEGS = ("JPEG", "MPO")
"""What Pillow calls them: with a second picture behind the first, as many phones write, it is MPO."""

Image.MAX_IMAGE_PIXELS = None  # our own cap refuses with a sentence, before any pixel is decoded

SMALLER = 0.5
"""The largest share of its size that a JPEG can be decoded at, short of its full size."""

Box = tuple[int, int, int, int]
"""Top, left, height, width."""

GREY_MODES = ("1", "L", "LA", "La", "I", "F")
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation; those from 5 on swap height and width."""
ORIENTATION = 0x0112

LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue, as Pillow's conversion to grey (ITU-R 601)."""

FULL_SCALE = {"bool": 1, "uint8": 255, "uint16": 65_535}
"""What counts as 1 on the scale 0 to 1; numbers of other types are taken as they are."""


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used, and why."""

    path: str
    reason: str


class Picture(Protocol):
    """An opened image, upright."""

    kind: str
    """Format and type of pixel, for people: 'JPEG RGB', 'NPY uint16 x 10'."""
    size: Size
    channels: int
    """What it has by itself; transparency does not count."""
    pixel_type: PixelType
    """float32 where eight bits would lose something."""
    decodes_smaller: bool
    """Whether `scale` changes what is decoded."""

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """Decodes to [C, h, w]: all of the image or what is in `box`, at `scale` of its size or more.

        uint8 from 0 to 255, or float32 with integers of 8 and 16 bits on the scale 0 to 1.
        Raises ValueError where the image does not fit, and whatever its decoder raises.
        """
        ...


class PillowPicture:
    """What Pillow opens, lazily."""

    def __init__(self, image: Image.Image):
        self._image = image
        self._orientation = orientation_of(image)
        turned = self._orientation >= 5
        self.size = image.size if turned else (image.size[1], image.size[0])
        deep = image.mode.startswith("I;16")
        container = "JPEG" if image.format in JPEGS else image.format
        self.kind = f"{container} {image.mode}"
        self.channels = 1 if image.mode in GREY_MODES or deep else 3
        self.pixel_type: PixelType = "float32" if deep or image.mode in ("I", "F") else "uint8"
        self.decodes_smaller = image.format in JPEGS

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`. JPEG decodes at a half, a quarter or an eighth where that is enough."""
        refuse_if_large(self.size, wanted)
        image = self._image
        if self.decodes_smaller and scale <= SMALLER:
            image.draft(None, (int(image.width * scale) + 1, int(image.height * scale) + 1))
        image.load()
        if self._orientation in UPRIGHT and image.format != "TIFF":  # which Pillow turns by itself
            image = image.transpose(UPRIGHT[self._orientation])
        box = box and decoded_box(box, self.size, (image.height, image.width))
        if self.pixel_type == "float32":
            return _part(as_tensor(np.asarray(image)[..., None], wanted), box)
        if box is not None:
            top, left, h, w = box
            image = image.crop((left, top, left + w, top + h))
        pixels = np.array(_converted(image, wanted.channels))
        return of_type(torch.from_numpy(channels_first(pixels)), wanted.pixel_type, full_scale=255)


class ArrayPicture:
    """An array of numbers that is loaded when it is needed."""

    decodes_smaller = False

    def __init__(
        self, load: Callable[[], np.ndarray], *, kind: str, size: Size, channels: int, dtype: np.dtype
    ):
        """`load` gives [h, w, C]."""
        self._load = load
        self.kind = f"{kind} {dtype}" + (f" x {channels}" if channels > 1 else "")
        self.size, self.channels = size, channels
        self.pixel_type: PixelType = "uint8" if dtype in (np.uint8, np.bool_) else "float32"

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`; always at its full size."""
        refuse_if_large(self.size, wanted)
        return _part(as_tensor(self._load(), wanted), box)


class DecodedPicture:
    """Pixels that were kept in memory."""

    kind = "decoded"
    decodes_smaller = False

    def __init__(self, decoded: Tensor):
        self._decoded = decoded
        self.channels, *size = decoded.shape
        self.size = (size[0], size[1])
        self.pixel_type = cast(PixelType, str(decoded.dtype).removeprefix("torch."))

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`; `wanted` is what they were decoded as."""
        return _part(self._decoded, box)


class ReusedPicture:
    """Decodes each size once, however many crops are taken of it; those are the same as without it."""

    def __init__(self, picture: Picture, reopen: Callable[[], AbstractContextManager[Picture]]):
        """`reopen` gives the picture anew, since its decoder may have only one size in it."""
        self._picture, self._reopen = picture, reopen
        self._decoded: dict[int, Tensor] = {}
        self.kind, self.size, self.channels = picture.kind, picture.size, picture.channels
        self.pixel_type, self.decodes_smaller = picture.pixel_type, picture.decodes_smaller

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`; `wanted` is the same each time."""
        share = decoded_share(self.size, scale) if self.decodes_smaller else 1
        if share not in self._decoded:
            self._decoded[share] = self._decode(wanted, scale)
        whole = self._decoded[share]
        return _part(whole, box and decoded_box(box, self.size, (whole.shape[1], whole.shape[2])))

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


def _part(pixels: Tensor, box: Box | None) -> Tensor:
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


def as_tensor(array: np.ndarray, wanted: PixelFormat) -> Tensor:
    """[h, w, C] of any real type as the wanted channels and type, [C, h, w]."""
    full_scale = FULL_SCALE.get(array.dtype.name, 0)
    if array.dtype == np.uint16 and wanted.pixel_type == "uint8":
        array, full_scale = (array >> 8).astype(np.uint8), 255
    if array.dtype not in (np.uint8, np.float32):
        array = array.astype(np.float32)
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise ValueError("some pixels are NaN or infinite: fill them before training")
    pixels = _array_to_channels(array, wanted.channels)
    return of_type(torch.from_numpy(channels_first(pixels)), wanted.pixel_type, full_scale)


def of_type(pixels: Tensor, wanted: PixelType, full_scale: int) -> Tensor:
    """Raises ValueError where numbers without a scale should become uint8."""
    if wanted == "float32":
        return pixels.float() / (full_scale or 1)
    if pixels.dtype == torch.uint8 and full_scale == 255:
        return pixels
    if not full_scale:
        raise ValueError("these numbers have no scale of their own beside images of 8 bits")
    return (pixels.float() * (255 / full_scale)).round().byte()


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """Transparent pixels show white behind them, unless transparency is wanted as a channel."""
    transparent = image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info
    if channels == 4 and transparent:
        return image.convert("RGBA")
    if channels not in (1, 3):
        raise ValueError(_wrong_channels(1 if image.mode in GREY_MODES else 3, channels))
    if transparent:
        whole = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _array_to_channels(array: np.ndarray, channels: int) -> np.ndarray:
    has = array.shape[2]
    if has == channels:
        return array
    if has == 1 and channels == 3:
        return array.repeat(3, axis=2)
    if has == 3 and channels == 1:
        grey = array.astype(np.float32) @ np.array(LUMINANCE, dtype=np.float32)
        return (grey.round().astype(np.uint8) if array.dtype == np.uint8 else grey)[..., None]
    raise ValueError(_wrong_channels(has, channels))


def _wrong_channels(has: int, wanted: int) -> str:
    return f"it has {has} channel(s) and {wanted} are wanted: remove it, or choose --data.channels {has}"


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """[h, w] or [h, w, C] as [C, h, w], without moving a value."""
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def refuse_if_large(size: Size, wanted: PixelFormat) -> None:
    """Raises ValueError, before any pixel is decoded."""
    height, width = size
    if width * height > wanted.max_pixels:
        raise ValueError(f"{width} x {height} pixels are over --data.max-megapixels")


def orientation_of(image: Image.Image) -> int:
    """From the header; a PNG's EXIF behind its pixels is ignored, since finding it would decode them."""
    if image.format == "PNG":
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
    else:
        exif = image.getexif()
    return int(exif.get(ORIENTATION, 1))
