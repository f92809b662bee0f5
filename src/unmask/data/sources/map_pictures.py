"""Label maps that are pictures: a value, or a colour, for each pixel."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from PIL import Image

from unmask.data.decode.beside import refuse_much_beside_pixels
from unmask.data.images import checksum, tried_again
from unmask.data.maps import IGNORE_INDEX
from unmask.data.paths import PathList
from unmask.data.sources.sizes import refuse_large
from unmask.errors import DataError

T = TypeVar("T")

FORMATS = ("PNG", "TIFF", "BMP")
"""Image formats of label maps: JPEG would change the labels."""
VALUE_MODES = ("P", "L", "1", "I;16", "I;16B", "I")
"""Modes of Pillow in which a pixel is one number."""
NO_CLASS = -1


@dataclass(frozen=True, kw_only=True)
class MapFiles:
    """Reads label maps from pictures."""

    paths: PathList
    table: np.ndarray
    """int16: from each value to its label, NO_CLASS for a value that is none."""
    colours: np.ndarray | None
    """uint8 [K, 3]: those of the classes in maps in colour; other maps hold values."""
    values: tuple[int, ...]
    """That of each class."""
    expected: str
    """What values there may be, for messages."""
    most: int
    """Pixels of a map; one with more is refused before it is decoded."""

    def __call__(self, index: int) -> np.ndarray:
        """int64 [H, W]; DataError if it cannot be read or holds a value that is no class."""
        values = values_of(self.paths[index], self.colours, self.values, self.most)
        is_known = (values >= 0) & (values < len(self.table))
        labels = self.table[np.where(is_known, values, 0)].astype(np.int64)
        outside = ~is_known | (labels == NO_CLASS)
        if outside.any():
            raise DataError(
                f"{self.paths[index]} holds the label {int(values[outside][0])} and {self.expected}: "
                f"correct the map, or say --data.classes, --data.label-offset or --data.ignore-values"
            )
        return labels

    def name(self, index: int) -> str:
        """The file that holds it."""
        return self.paths[index]

    def meaning(self) -> str:
        """Changes when a value or a colour means another label."""
        colours = b"" if self.colours is None else self.colours
        return checksum(self.table, colours, str(self.values).encode())

    def subset(self, indices: np.ndarray) -> "MapFiles":
        """Some of the maps, in the order given."""
        return replace(self, paths=self.paths.take(indices))

    def relabelled(self, indices: np.ndarray) -> "MapFiles":
        """The same maps with `indices[label]` in place of each label."""
        is_class = (self.table != NO_CLASS) & (self.table != IGNORE_INDEX)
        new = indices[np.where(is_class, self.table, 0)]
        return replace(self, table=np.where(is_class, new, self.table).astype(np.int16))


def values_of(
    path: str, colours: np.ndarray | None, of_classes: tuple[int, ...], most: int
) -> np.ndarray:
    """Integers [H, W] as they are stored: what a map holds, the indices of its palette if it has one.

    Of a map in colour: for each pixel's colour the value of the class that has it.
    """
    pixels = _read(path, most, _stored)
    if pixels.ndim == 2:
        return pixels.view(np.uint8) if pixels.dtype == np.bool_ else pixels
    if colours is not None:
        return np.array(of_classes, dtype=np.int64)[_places(path, pixels, colours)]
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    raise DataError(
        f"the label map {path} is in colour: give the colours of the classes with --data.classes, a "
        f".csv with the columns name, r, g and b"
    )


def palette_of(path: str, most: int) -> list[int] | None:
    """Red, green and blue of each value; None without a palette. DataError if it cannot be read."""
    return _read(path, most, lambda image: image.getpalette("RGB") if image.mode == "P" else None)


def _stored(image: Image.Image) -> np.ndarray:
    """[H, W], or [H, W, 3] of a map in colour."""
    return np.asarray(image if image.mode in VALUE_MODES else image.convert("RGB"))


def _read(path: str, most: int, use: Callable[[Image.Image], T]) -> T:
    """What `use` makes of an opened map. Raises DataError if it is too large, or cannot be read."""

    def read() -> T:
        with open(path, "rb") as file:
            refuse_much_beside_pixels(file)
            with Image.open(file, formats=FORMATS) as image:
                refuse_large(f"the label map {path}", (image.height, image.width), most)
                return use(image)

    try:
        return tried_again(read)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # broken files raise almost anything out of their decoders
        raise DataError(
            f"the label map {path} cannot be read ({error}): store it as PNG with a value for each class"
        ) from error


def _places(path: str, pixels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    wanted, codes = _codes(colours), _codes(pixels)
    order = np.argsort(wanted)
    at = order[np.clip(np.searchsorted(wanted[order], codes), 0, len(wanted) - 1)]
    if (unknown := wanted[at] != codes).any():
        red, green, blue = pixels[unknown][0].tolist()
        raise DataError(
            f"{path} has the colour {red}, {green}, {blue}, which is that of no class: add it to the "
            f"table of classes, or correct the map"
        )
    return at


def _codes(colours: np.ndarray) -> np.ndarray:
    """int32: red, green and blue, uint8 [..., 3], in one number each."""
    codes = colours[..., 0].astype(np.int32)
    for band in (1, 2):
        codes <<= 8
        codes |= colours[..., band]
    return codes
