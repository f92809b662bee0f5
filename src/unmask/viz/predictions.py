"""Images with what a classifier says of them.

Legend: B images, N images of an evaluation, K classes.
"""

import math
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from unmask.viz.tiles import Sheet, draw
from unmask.viz.words import last_part, one_line, percent

NAME_LENGTH = 40
WORD_LENGTH = 18
"""Longer words would widen every column."""
MOST_COLUMNS = 8


def worst_mistakes(
    probabilities: Float[Tensor, "N K"], labels: Int[Tensor, "N"], count: int
) -> Int[Tensor, "mistakes"]:
    """Indices of misclassified images, the most confident first; at most `count`."""
    surest, predicted = probabilities.cpu().max(dim=1)
    wrong = torch.nonzero(predicted != labels.cpu())[:, 0]
    return wrong[surest[wrong].argsort(descending=True, stable=True)][:count]


def mistakes_sheet(
    images: UInt8[np.ndarray, "B H W 3"],
    probabilities: Float[Tensor, "B K"],
    labels: Int[Tensor, "B"],
    names: Sequence[str],
    files: Sequence[str],
    *,
    title: str = "",
) -> Image.Image:
    """Draws each image over its predicted class, its true one, and its file's name.

    Args:
        images: as `displayable` makes them.
        files: the path of each.
    """
    captions = []
    for row, label, file in zip(probabilities.tolist(), labels.tolist(), files, strict=True):
        predicted = int(np.argmax(row))
        truth = f"{_claim(names[label], row[label])} (true)"
        captions.append(f"{_claim(names[predicted], row[predicted])}\n{truth}\n{_file(file)}")
    return _sheet(images, captions, title or "Most confident errors", none="No errors")


def contact_sheet(
    images: UInt8[np.ndarray, "B H W 3"],
    probabilities: Float[Tensor, "B K"],
    names: Sequence[str],
    files: Sequence[str],
    *,
    title: str = "",
) -> Image.Image:
    """Draws each image over its predicted class, that class's probability, and its file's name.

    Args:
        images: as `displayable` makes them.
        files: the path of each.
    """
    best = [(row.index(max(row)), max(row)) for row in probabilities.tolist()]
    captions = [
        f"{_claim(names[predicted], p)}\n{_file(file)}"
        for (predicted, p), file in zip(best, files, strict=True)
    ]
    return _sheet(images, captions, title, none="No images")


def _claim(name: str, probability: float) -> str:
    words = one_line(name, NAME_LENGTH).split()
    return " ".join([percent(probability), *(one_line(word, WORD_LENGTH) for word in words)])


def _file(path: str) -> str:
    return last_part(PurePath(path).name, WORD_LENGTH)


def _sheet(images: np.ndarray, captions: list[str], title: str, none: str) -> Image.Image:
    if not captions:
        images, captions, title = np.full((1, 1, 192, 3), 255, np.uint8), [""], none
    columns = min(MOST_COLUMNS, math.ceil(math.sqrt(len(captions))))
    return draw(Sheet.in_rows([*images], captions, [""] * columns, title=title))
