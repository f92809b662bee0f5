"""A picture with the statistics of photographs, for benchmarks that may download nothing."""

import numpy as np
from PIL import Image, ImageDraw

CANVAS = (2000, 1500)
"""Width and height of what is drawn: large pictures are softer than small ones, as a camera's are."""
LEAVES = 4000
SMALLEST, LARGEST = 18.0, 600.0
"""Radii on the canvas; their density falls with the third power, as that of objects in photographs."""
GRAIN, SENSOR = 2.5, 4000
"""Standard deviation of a sensor's noise, of 255, and its pixels across: smaller pictures average it."""


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Dead leaves (Lee, Mumford and Huang 2001): ellipses of all sizes hide each other; light; grain.

    As a JPEG of quality 90 it takes about 1.9 bits per pixel at 500 x 375, where scikit-image's
    photographs take 1.4 to 2.4, and 1.2 at 4000 x 3000.
    """
    rng = np.random.default_rng(seed)
    drawn = _leaves(rng).resize((width, height), Image.Resampling.BICUBIC)
    y, x = np.linspace(0, 2, height)[:, None], np.linspace(1, 4, width)
    light = (0.75 + 0.25 * np.sin(x) * np.cos(y)).astype(np.float32)
    grain = GRAIN * width / SENSOR * rng.standard_normal((height, width, 1), dtype=np.float32)
    pixels = np.asarray(drawn) * light[..., None] + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _leaves(rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", CANVAS, "grey")
    draw = ImageDraw.Draw(picture)
    radii = (SMALLEST**-2 - rng.random(LEAVES) * (SMALLEST**-2 - LARGEST**-2)) ** -0.5
    centres = rng.random((LEAVES, 2)) * CANVAS
    stretch = rng.uniform(0.5, 2, LEAVES) ** 0.5
    colours = rng.normal(120, 50, (LEAVES, 1)) + rng.normal(0, 18, (LEAVES, 3))
    colours = colours.clip(0, 255).astype(int)
    for (x, y), r, s, colour in zip(centres, radii, stretch, colours.tolist(), strict=True):
        draw.ellipse((x - r * s, y - r / s, x + r * s, y + r / s), fill=tuple(colour))
    return picture
