"""Images with what a classifier says of them.

Legend: B images, N images of an evaluation, K classes.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from unmask.viz.tiles import Sheet, Tile, draw
from unmask.viz.words import one_line, percent

NAME_LENGTH = 40
WORD_LENGTH = 18
"""Longer words would widen every column."""
MOST_COLUMNS = 8


def worst_mistakes(
    probabilities: Float[Tensor, "N K"], labels: Int[Tensor, "N"], count: int
) -> Int[Tensor, "mistakes"]:
    """Which images are taken for a wrong class, the surest first; at most `count`."""
    surest, predicted = probabilities.cpu().max(dim=1)
    wrong = torch.nonzero(predicted != labels.cpu())[:, 0]
    return wrong[surest[wrong].argsort(descending=True, stable=True)][:count]


def mistakes_sheet(
    images: UInt8[np.ndarray, "B H W 3"],
    probabilities: Float[Tensor, "B K"],
    labels: Int[Tensor, "B"],
    names: Sequence[str],
    *,
    title: str = "",
) -> Image.Image:
    """Draws each image over the class it was taken for and its true one, with their probabilities.

    Args:
        images: as `displayable` makes them.
    """
    captions = []
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        predicted = int(np.argmax(row))
        truth = f"{_claim(names[label], row[label])} (true)"
        captions.append(f"{_claim(names[predicted], row[predicted])}\n{truth}")
    return _sheet(images, captions, title or "The surest mistakes", none="No mistakes")


def contact_sheet(
    images: UInt8[np.ndarray, "B H W 3"],
    probabilities: Float[Tensor, "B K"],
    names: Sequence[str],
    *,
    title: str = "",
) -> Image.Image:
    """Draws each image over its predicted class and that class's probability.

    Args:
        images: as `displayable` makes them.
    """
    best = [(row.index(max(row)), max(row)) for row in probabilities.tolist()]
    captions = [_claim(names[predicted], p) for predicted, p in best]
    return _sheet(images, captions, title, none="No images")


def _claim(name: str, probability: float) -> str:
    words = one_line(name, NAME_LENGTH).split()
    return " ".join([percent(probability), *(one_line(word, WORD_LENGTH) for word in words)])


def _sheet(images: np.ndarray, captions: list[str], title: str, none: str) -> Image.Image:
    if not captions:
        images, captions, title = np.full((1, 1, 192, 3), 255, np.uint8), [""], none
    columns = min(MOST_COLUMNS, math.ceil(math.sqrt(len(captions))))
    missing = -len(captions) % columns
    tiles: list[Tile | None] = [*images, *([None] * missing)]
    texts = [*captions, *([""] * missing)]
    starts = range(0, len(tiles), columns)
    return draw(
        Sheet(
            rows=[tiles[i : i + columns] for i in starts],
            headings=[""] * columns,
            captions=[texts[i : i + columns] for i in starts],
            title=title,
        )
    )
