"""Small images as labelled tiles on a white sheet.

Legend: B images, C channels, H x W pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Tile = UInt8[np.ndarray, "H W 3"]

TILE_SIDE = 192
"""Pixels that the longer side of a small tile is enlarged towards."""

GAP, GROUP_GAP, MARGIN = 6, 28, 16
TITLE_SIZE, TEXT_SIZE = 18, 14
INK, FRAME = (40, 40, 40), (170, 170, 170)
PALE = 225
"""Mean level of a side of a picture that does not stand out from white."""


@dataclass(frozen=True)
class Display:
    """How normalised images are shown on a screen.

    Args:
        mean, std: of each channel, as the images were normalised with.
        bands: channels shown as red, green and blue, counted from 1. Without them one channel is
            shown as grey, three or more by the first three, and of two the first as grey.
        stretch: show each channel from two standard deviations below its mean to two above, instead
            of from 0 to 1, for pixels that have no usual range.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bands: tuple[int, ...] | None = None
    stretch: bool = False

    def channels(self) -> list[int]:
        """The three channels to show, counted from 0."""
        bands = self.bands or ((1, 2, 3) if len(self.mean) >= 3 else (1,))
        return [band - 1 for band in (bands if len(bands) == 3 else bands[:1] * 3)]


def displayable(images: Float[Tensor, "B C H W"], display: Display) -> UInt8[np.ndarray, "B H W 3"]:
    """Undoes the normalisation and clips to what a screen shows, as red, green and blue.

    Raises ValueError if mean and std do not give one number per channel.
    """
    C = images.shape[1]
    if not len(display.mean) == len(display.std) == C:
        raise ValueError(
            f"images of {C} channels came with {len(display.mean)} means and {len(display.std)} "
            f"standard deviations: give those that each channel was normalised with"
        )
    mean, std = ((0.5,) * C, (0.25,) * C) if display.stretch else (display.mean, display.std)
    scale, offset = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (std, mean))
    values = (images.float().cpu() * scale + offset)[:, display.channels()]
    levels = (values.nan_to_num(0.0).clamp(0, 1) * 255).round().byte()
    return levels.permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Rows of equally large tiles (None leaves a place empty) with a heading over each column.

    `captions`, of one or more lines, stand below the tiles, `row_labels` left of the rows, `title`
    above everything and `footnote` below. Wider gaps separate groups of `columns_per_group`
    columns, and of `rows_per_group` rows.
    """

    rows: Sequence[Sequence[Tile | None]]
    headings: Sequence[str]
    captions: Sequence[Sequence[str]] = ()
    row_labels: Sequence[str] = ()
    title: str = ""
    footnote: str = ""
    columns_per_group: int | None = None
    rows_per_group: int | None = None

    @classmethod
    def in_rows(
        cls,
        tiles: Sequence[Tile | None],
        captions: Sequence[str],
        headings: Sequence[str],
        **others: Any,
    ) -> "Sheet":
        """Tiles with a caption each, as many in a row as there are headings."""
        columns, missing = len(headings), -len(tiles) % len(headings)
        places, texts = [*tiles, *[None] * missing], [*captions, *[""] * missing]
        starts = range(0, len(places), columns)
        return cls(
            rows=[places[i : i + columns] for i in starts],
            headings=headings,
            captions=[texts[i : i + columns] for i in starts],
            **others,
        )


def draw(sheet: Sheet) -> Image.Image:
    """Lays a sheet out; no text is cut: it wraps, and a long word widens its column."""
    tiles = [[None if tile is None else _enlarged(tile) for tile in row] for row in sheet.rows]
    tile_width, tile_height = next(tile.size for row in tiles for tile in row if tile is not None)

    below = [[_caption(text, tile_width) for text in row] for row in sheet.captions]
    captions_height = max([0, *(_height(lines, TEXT_SIZE) for row in below for lines in row)])
    words = [*sheet.headings, *(line for row in below for lines in row for line in lines)]
    column_width = max(tile_width, *(_longest_word(text, TEXT_SIZE) for text in words))
    label_width = max([0, *(text_width(label, TEXT_SIZE) + 2 * GAP for label in sheet.row_labels)])
    lefts = _starts(len(sheet.headings), column_width, sheet.columns_per_group, MARGIN + label_width)
    inner_width = max(
        lefts[-1] + column_width - MARGIN,
        _longest_word(sheet.title, TITLE_SIZE),
        _longest_word(sheet.footnote, TEXT_SIZE),
    )
    title = _wrapped(sheet.title, TITLE_SIZE, inner_width)
    headings = [_wrapped(text, TEXT_SIZE, column_width) for text in sheet.headings]
    footnote = _wrapped(sheet.footnote, TEXT_SIZE, inner_width)

    headings_top = MARGIN + _height(title, TITLE_SIZE)
    first_row = headings_top + max(_height(lines, TEXT_SIZE) for lines in headings)
    tops = _starts(len(tiles), tile_height + captions_height, sheet.rows_per_group, first_row)
    footnote_top = tops[-1] + tile_height + captions_height + 2 * GAP
    bottom = footnote_top + _height(footnote, TEXT_SIZE) + MARGIN - GAP

    picture = Image.new("RGB", (inner_width + 2 * MARGIN, bottom), "white")
    write(picture, title, (MARGIN, MARGIN), TITLE_SIZE)
    for lines, left in zip(headings, lefts, strict=True):
        write(picture, lines, (left, headings_top), TEXT_SIZE)
    for label, top in zip(sheet.row_labels, tops, strict=bool(sheet.row_labels)):
        write(picture, [label], (MARGIN, top + (tile_height - line_height(TEXT_SIZE)) // 2), TEXT_SIZE)
    for row, top in zip(tiles, tops, strict=True):
        for tile, left in zip(row, lefts, strict=True):
            if tile is not None:
                picture.paste(tile, (left, top))
                _frame(picture, tile, left, top)
    for captions, top in zip(below, tops, strict=bool(below)):
        for lines, left in zip(captions, lefts, strict=True):
            write(picture, lines, (left, top + tile_height + GAP // 2), TEXT_SIZE)
    write(picture, footnote, (MARGIN, footnote_top), TEXT_SIZE)
    return picture


def _enlarged(tile: Tile) -> Image.Image:
    """By a whole factor and without smoothing, so that a pixel stays a square."""
    height, width = tile.shape[:2]
    factor = max(1, TILE_SIDE // max(height, width))
    return Image.fromarray(tile).resize((width * factor, height * factor), Image.Resampling.NEAREST)


def _frame(picture: Image.Image, tile: Image.Image, left: int, top: int) -> None:
    """A line around a tile whose edge would be lost on the white sheet."""
    pixels = np.asarray(tile)
    if any(side.mean() > PALE for side in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])):
        box = (left - 1, top - 1, left + tile.width, top + tile.height)
        ImageDraw.Draw(picture).rectangle(box, outline=FRAME)


def _starts(count: int, size: int, per_group: int | None, first: int) -> list[int]:
    per_group = per_group or count
    return [first + i * (size + GAP) + i // per_group * (GROUP_GAP - GAP) for i in range(count)]


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's: Pillow's own lacks accents, Greek and Cyrillic, which names of classes have."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def text_width(text: str, size: int) -> int:
    """Pixels that a line of text takes."""
    return math.ceil(font(size).getlength(text))


def _longest_word(text: str, size: int) -> int:
    return max([0, *(text_width(word, size) for word in text.split())])


def _wrapped(text: str, size: int, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _caption(text: str, width: int) -> list[str]:
    return [line for given in text.splitlines() for line in _wrapped(given, TEXT_SIZE, width)]


def line_height(size: int) -> int:
    """Pixels from one line of text to the next."""
    return round(1.4 * size)


def _height(lines: list[str], size: int) -> int:
    return len(lines) * line_height(size) + (GAP if lines else 0)


def write(picture: Image.Image, lines: list[str], corner: tuple[int, int], size: int) -> None:
    """Draws lines of text, the first at this left and top."""
    canvas, (left, top) = ImageDraw.Draw(picture), corner
    for i, line in enumerate(lines):
        canvas.text((left, top + i * line_height(size)), line, INK, font(size))
