"""Colours for classes, and a legend that names them.

Legend: K classes.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from unmask.viz.tiles import GAP, MARGIN, TEXT_SIZE, line_height, text_width, write
from unmask.viz.words import one_line

OKABE_ITO = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
"""Seven colours that people of all kinds of colour vision tell apart (Okabe and Ito 2008)."""

WRONG, UNLABELLED = (190, 0, 60), (40, 40, 60)
"""Colours of errors and of pixels without a label."""

RESERVED = ((0, 0, 0), (128, 128, 128), (255, 255, 255), WRONG, UNLABELLED)
"""No class looks like these."""

LIGHTNESS = (0.42, 0.93)
"""In Oklab: darker and lighter colours are hard to tell apart over a photograph."""

MOST_COLOURS = 512
"""More classes share colours."""

DICHROMACY = np.array(
    [
        np.eye(3),
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    ]
)
"""Matrices on linear RGB: full colour vision, protanopia, deuteranopia (Machado et al. 2009)."""

TO_CONE, TO_LAB = (
    np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    ),
    np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    ),
)
"""Linear red, green and blue to Oklab, in which distances are what the eye sees (Ottosson 2020)."""

NAME_LENGTH = 28
SWATCH = 16


@lru_cache
def palette(classes: int) -> UInt8[np.ndarray, "K 3"]:
    """A colour for each class: Okabe and Ito's, then each as far as possible from those before it.

    Far in full colour vision, protanopia and deuteranopia alike. The first colours do not depend on how
    many there are.
    """
    levels = np.linspace(0, 255, 16).round()
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = as_seen(candidates)[:, 0, 0]
    candidates = candidates[(lightness > LIGHTNESS[0]) & (lightness < LIGHTNESS[1])]
    seen = as_seen(candidates)
    chosen = [np.array(colour, float) for colour in (*RESERVED, *OKABE_ITO)]
    nearest = np.min([_distances(seen, colour) for colour in chosen], axis=0)
    while len(chosen) - len(RESERVED) < min(classes, MOST_COLOURS):
        chosen.append(candidates[nearest.argmax()])
        nearest = np.minimum(nearest, _distances(seen, chosen[-1]))
    colours = np.array(chosen[len(RESERVED) :]).astype(np.uint8)
    return colours[np.arange(classes) % len(colours)]


def as_seen(colours: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "K 3 3"]:
    """Colours from 0 to 255 in Oklab, with full colour vision, with protanopia and with deuteranopia."""
    shares = np.asarray(colours) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    visible = np.einsum("vij,kj->kvi", DICHROMACY, linear).clip(0, 1)
    return np.cbrt(visible @ TO_CONE.T) @ TO_LAB.T


def _distances(seen: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Distance of each candidate from one colour, the least over these kinds of colour vision."""
    return np.linalg.norm(seen - as_seen(colour[None]), axis=-1).min(axis=-1)


def with_legend(
    picture: Image.Image, names: Sequence[str], colours: UInt8[np.ndarray, "K 3"], footnote: str = ""
) -> Image.Image:
    """A picture above the names of colours, in as many columns as its width has room for."""
    labels = [one_line(name, NAME_LENGTH) for name in names]
    inner = picture.width - 2 * MARGIN
    widest = max([0, *(text_width(label, TEXT_SIZE) for label in labels)]) + SWATCH + 4 * GAP
    columns = max(1, inner // widest)
    height = line_height(TEXT_SIZE) + GAP // 2
    rows = -(-len(labels) // columns)
    bottom = picture.height + (rows + bool(footnote)) * height + MARGIN
    sheet = Image.new("RGB", (max(picture.width, widest + 2 * MARGIN), bottom), "white")
    sheet.paste(picture)
    for i, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        left, top = MARGIN + i // rows * widest, picture.height + i % rows * height
        box = (left, top, left + SWATCH, top + SWATCH)
        ImageDraw.Draw(sheet).rectangle(box, fill=tuple(map(int, colour)), outline=(60, 60, 60))
        write(sheet, [label], (left + SWATCH + GAP, top - 1), TEXT_SIZE)
    write(sheet, [footnote] if footnote else [], (MARGIN, picture.height + rows * height), TEXT_SIZE)
    return sheet
