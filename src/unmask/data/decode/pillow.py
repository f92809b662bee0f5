"""Images that Pillow opens, of eight bits and grey ones of sixteen."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unmask.config.image import PixelFormat, PixelType
from unmask.data.decode.pictures import (
    SMALLER,
    Box,
    Picture,
    as_tensor,
    channels_first,
    decoded_box,
    in_strips,
    missing_in,
    of_type,
    part_of,
    refuse_if_large,
    wrong_channels,
)
from unmask.data.decode.quiet import quietly

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
"""What Pillow may open, whatever a file's name says."""
JPEGS = ("JPEG", "MPO")
"""What Pillow calls them: with a second picture behind the first, as many phones write, it is MPO."""

Image.MAX_IMAGE_PIXELS = None  # our own cap refuses with a sentence, before any pixel is decoded

WEBP_BYTES = 4
"""What its decoder takes for each value: it holds two frames of a film, and Pillow copies one."""
GREY_MODES = ("1", "L", "LA", "La", "I", "F")
ALPHA_MODES = ("RGBA", "LA", "La", "PA", "RGBa")
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
ORIENTATION, WIDTH, HEIGHT = 0x0112, 256, 257


class PillowPicture(Picture):
    """What Pillow opens, lazily."""

    def __init__(
        self,
        image: Image.Image,
        notes: tuple[str, ...] = (),
        plainer: Callable[[], Image.Image] | None = None,
    ):
        """`plainer` opens it once more, without metadata that turn out to be damaged."""
        self._image, self._plainer = image, plainer
        self._orientation = orientation_of(image)
        width, height = _stored_size(image)
        self.size = (width, height) if self._orientation >= 5 else (height, width)
        deep = image.mode.startswith("I;16")
        container = "JPEG" if image.format in JPEGS else image.format
        self.kind = f"{container} {image.mode}"
        self.channels = 1 if image.mode in GREY_MODES or deep else 3
        self.pixel_type: PixelType = "float32" if deep or image.mode in ("I", "F") else "uint8"
        self.eight_bits = self.pixel_type == "uint8"
        self.decodes_smaller = image.format in JPEGS
        self.notes = notes

    def pixels(self, wanted: PixelFormat, scale: float = 1.0, box: Box | None = None) -> Tensor:
        """See `Picture`. JPEG decodes at a half, a quarter or an eighth if that is enough."""
        stored = 2 if self.pixel_type == "float32" else WEBP_BYTES if self._image.format == "WEBP" else 1
        refuse_if_large(self.size, wanted, self.channels, stored)
        with quietly():
            return self._pixels(wanted, scale, box)

    def _pixels(self, wanted: PixelFormat, scale: float, box: Box | None) -> Tensor:
        image = self._image
        if self.decodes_smaller and scale <= SMALLER and wanted.nodata is None:
            image.draft(None, (int(image.width * scale) + 1, int(image.height * scale) + 1))
        image = self._loaded()
        if self._orientation in UPRIGHT and image.format != "TIFF":  # which Pillow turns by itself
            image = image.transpose(UPRIGHT[self._orientation])
        box = box and decoded_box(box, self.size, (image.height, image.width))
        if self.pixel_type == "float32":
            return part_of(_numbers(image, wanted), box)
        opaque = _is_transparent(image) and _hides_all(image)
        if box is not None:
            top, left, h, w = box
            image = image.crop((left, top, left + w, top + h))
        marked = (
            wanted.nodata is not None and wanted.pixel_type == "float32" and wanted.channels in (1, 3)
        )

        def convert(rows: slice) -> Tensor:
            strip = image if rows.stop >= image.height and not rows.start else _strip(image, rows)
            if marked:
                return _numbers(_converted(strip, self.channels, opaque), wanted)
            pixels = np.array(_converted(strip, wanted.channels, opaque))
            return of_type(torch.from_numpy(channels_first(pixels)), wanted.pixel_type, full_scale=255)

        return in_strips((image.height, image.width), 4, convert)

    def _loaded(self) -> Image.Image:
        try:
            self._image.load()
        except (ValueError, SyntaxError):  # metadata may stand behind the pixels
            if self._plainer is None:
                raise
            self._image = self._plainer()
            self._image.load()
        return self._image


def _numbers(image: Image.Image, wanted: PixelFormat) -> Tensor:
    """As they are, or scaled, [C, h, w]."""
    stored = np.asarray(image)
    stored = stored[..., None] if stored.ndim == 2 else stored

    def convert(rows: slice) -> Tensor:
        return as_tensor(stored[rows], wanted, missing_in(stored[rows], wanted, own=None))

    return in_strips((image.height, image.width), stored.shape[2], convert)


def _strip(image: Image.Image, rows: slice) -> Image.Image:
    return image.crop((0, rows.start, image.width, min(rows.stop, image.height)))


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ALPHA_MODES or "transparency" in image.info


def _hides_all(image: Image.Image) -> bool:
    """Alpha that is 0 everywhere was never meant: many programs leave the fourth byte empty."""
    alpha = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    return alpha.getchannel("A").getextrema() == (0, 0)


def _converted(image: Image.Image, channels: int, opaque: bool = False) -> Image.Image:
    """Transparent pixels show white behind them, unless transparency is wanted as a channel.

    `opaque`: the image's alpha says nothing.
    """
    transparent = _is_transparent(image)
    if channels == 4 and transparent:
        return image.convert("RGBA")
    if channels not in (1, 3):
        raise ValueError(wrong_channels(1 if image.mode in GREY_MODES else 3, channels))
    if transparent:
        whole = image.convert("RGBA")
        if opaque:
            whole.putalpha(255)
        image = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height before the image is turned; of a TIFF Pillow says those after it."""
    if image.format != "TIFF":
        return image.size
    return image.tag_v2[WIDTH], image.tag_v2[HEIGHT]  # type: ignore[attr-defined]  # a TIFF has them


def orientation_of(image: Image.Image) -> int:
    """From the header, 1 if that cannot be read.

    A PNG's EXIF behind its pixels is ignored, since finding it would decode them.
    """
    try:
        with quietly():
            if image.format == "PNG":
                exif = Image.Exif()
                exif.load(image.info.get("exif", b""))
            else:
                exif = image.getexif()
            return int(exif.get(ORIENTATION, 1))
    except Exception:  # damaged metadata raise almost anything, and cost no image
        return 1
