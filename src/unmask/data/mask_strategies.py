"""Which patches are masked: a strategy draws a number per patch, and the smallest stay visible.

Legend: h x w patches, N = h w.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unmask.config.settings import Mask
from unmask.core.spec import MaskSpec, Size
from unmask.errors import DataError

BEIT_GRID, BEIT_LEAST = 14 * 14, 16
"""BEiT's smallest block has 16 of 196 patches; on other grids the same share."""
ASPECTS = math.log(0.3), math.log(1 / 0.3)
TRIES = 10
BRIGHT = 128


def mask_noise(mask: MaskSpec, grid: Size, rng: np.random.Generator) -> np.ndarray:
    """float32 [N] in [0, 1): the `mask.visible(grid)` smallest say which patches stay visible.

    Among the visible patches, and among the masked, the order is random: partial decoding predicts
    random masked patches whatever the strategy.
    """
    noise = rng.random(grid[0] * grid[1], dtype=np.float32)
    if mask.strategy == "random":
        return noise
    if mask.strategy == "grid":
        masked = grid_mask(grid)
    elif mask.strategy == "block":
        masked = block_mask(grid, grid[0] * grid[1] - mask.visible(grid), rng)
    else:
        masked = np.zeros(grid, dtype=bool)
        masked.flat[list(mask.given)] = True
    return (noise + masked.ravel()) / 2


def grid_mask(grid: Size) -> np.ndarray:
    """bool [h, w]: all but even rows and columns, so that one of every four patches stays (Fig. 6)."""
    masked = np.ones(grid, dtype=bool)
    masked[::2, ::2] = False
    return masked


def block_mask(grid: Size, count: int, rng: np.random.Generator) -> np.ndarray:
    """bool [h, w] with exactly `count` masked patches: blocks as in BEiT (Bao et al. 2021).

    Blocks of random area, aspect and place are laid over each other until one does not fit any more in
    ten tries; what is missing then is masked at random.
    """
    masked = np.zeros(grid, dtype=bool)
    while (missing := count - int(masked.sum())) and _add_block(masked, missing, rng):
        pass
    if missing:
        free = np.flatnonzero(~masked)
        masked.flat[rng.choice(free, missing, replace=False)] = True
    return masked


def _add_block(masked: np.ndarray, most: int, rng: np.random.Generator) -> bool:
    """Masks a block that adds between 1 and `most` patches; False if none was found."""
    h, w = masked.shape
    least = BEIT_LEAST * masked.size / BEIT_GRID
    for _ in range(TRIES):
        area = rng.uniform(min(least, most), max(least, most))
        aspect = math.exp(rng.uniform(*ASPECTS))
        down, across = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < down < h and 0 < across < w):
            continue
        top, left = rng.integers(h - down + 1), rng.integers(w - across + 1)
        block = masked[top : top + down, left : left + across]
        if 0 < block.size - int(block.sum()) <= most:
            block[:] = True
            return True
    return False


def given_mask(
    mask: np.ndarray | Sequence[Sequence[bool]], grid: Size, name: str = "the mask"
) -> MaskSpec:
    """The spec of a user's mask: [h, w], true where a patch is masked.

    Raises ValueError if it is for another grid, or masks all or nothing.
    """
    values = np.asarray(mask)
    if values.shape != tuple(grid):
        has = " x ".join(map(str, values.shape))
        raise ValueError(
            f"{name} has {has} values and the model a grid of {grid[0]} x {grid[1]} patches: give one "
            f"value per patch"
        )
    indices = np.flatnonzero(values)
    if not 0 < len(indices) < values.size:
        raise ValueError(
            f"{name} masks {len(indices)} of {values.size} patches, and at least one must stay and one "
            f"must go: give another"
        )
    share = len(indices) / values.size
    return MaskSpec(strategy="given", ratio=share, given=tuple(indices.tolist()))


def asked_mask(asked: Mask, grid: Size) -> MaskSpec | None:
    """The mask in the file that the settings name; None if they name none."""
    return read_mask(asked.file, grid) if asked.file else None


def read_mask(path: str | Path, grid: Size) -> MaskSpec:
    """A user's mask from a file: .npy with true or 1, or an image with bright pixels, where it masks.

    Raises DataError if the file cannot be read, ValueError if it does not suit the grid.
    """
    try:
        if Path(path).suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                values = np.asarray(image.convert("L")) >= BRIGHT
    except (OSError, ValueError) as error:
        raise DataError(
            f"the mask {path} cannot be read ({error}): give a .npy array, or a .png with a pixel per "
            f"patch"
        ) from error
    return given_mask(values, grid, f"the mask {path}")
