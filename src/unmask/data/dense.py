"""Draws where an image comes to stand for semantic segmentation and for detection.

Every draw comes from the generator that is passed in; `placement.py` applies the numbers.

Legend: H x W pixels.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from unmask.core.spec import Size
from unmask.data.placement import Placement, placed_labels

REDRAWS = 10
"""So many times a crop that one class fills is drawn again."""


def size_within(source: Size, longer: float, shorter: float) -> Size:
    """The largest size of the image's aspect whose longer and shorter sides are at most so long."""
    factor = min(longer / max(source), shorter / min(source))
    return max(1, int(source[0] * factor + 0.5)), max(1, int(source[1] * factor + 0.5))


def whole_image(source: Size, resized: Size, canvas: Size | None = None) -> Placement:
    """All of an image, resized, in the corner of a canvas that holds it: for evaluation."""
    return Placement(source=source, resized=resized, crop=(0, 0, *resized), canvas=canvas or resized)


def random_segmentation_placement(
    labels: Int[Tensor, "H W"],
    canvas: Size,
    rng: np.random.Generator,
    *,
    sides: tuple[int, int],
    scale: tuple[float, float] = (0.5, 2.0),
    flip: bool = True,
    ignore_index: int = 255,
    largest_share: float = 0.75,
) -> Placement:
    """A random resize, crop and flip (recipes of Table 5: sides (2048, 512), scale 0.5 to 2, crop 512).

    The crop is drawn again, up to ten times, if it shows one class alone, or if one covers at least
    `largest_share` of the labelled pixels; the last draw stands.

    Args:
        labels: the whole label map, which decides whether a crop is good.
        canvas: height and width of the crop, padded below and on the right if the image is smaller.
        sides: the longer and the shorter side that the resized image stays within at scale 1.
        flip: mirror half of the samples.
    """
    source = (labels.shape[0], labels.shape[1])
    factor = rng.uniform(*scale)
    resized = size_within(source, sides[0] * factor, sides[1] * factor)
    flipped = flip and rng.random() < 0.5
    placement = _random_cut(source, resized, canvas, flipped, rng)
    for _ in range(REDRAWS):
        if largest_share >= 1 or _is_varied(labels, placement, ignore_index, largest_share):
            break
        placement = _random_cut(source, resized, canvas, flipped, rng)
    return placement


def random_jitter_placement(
    source: Size,
    canvas: Size,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.1, 2.0),
    flip: bool = True,
) -> Placement:
    """Large-scale jitter (Ghiasi et al. 2021), as in the recipes of Table 4.

    The image is resized to fit into `canvas` times a uniform factor; what is larger than the canvas is
    cropped at random, what is smaller is padded below and on the right; half of the samples are flipped.
    """
    factor = rng.uniform(*scale)
    fits = factor * min(canvas[0] / source[0], canvas[1] / source[1])
    resized = (max(1, round(source[0] * fits)), max(1, round(source[1] * fits)))
    flipped = flip and rng.random() < 0.5
    return _random_cut(source, resized, canvas, flipped, rng)


def _random_cut(
    source: Size, resized: Size, canvas: Size, flip: bool, rng: np.random.Generator
) -> Placement:
    h, w = min(resized[0], canvas[0]), min(resized[1], canvas[1])
    top, left = int(rng.integers(resized[0] - h + 1)), int(rng.integers(resized[1] - w + 1))
    return Placement(source=source, resized=resized, crop=(top, left, h, w), canvas=canvas, flip=flip)


def _is_varied(labels: Tensor, placement: Placement, ignore_index: int, largest_share: float) -> bool:
    seen = placed_labels(labels, placement, ignore_index)
    counts = torch.bincount(seen[seen != ignore_index])
    return int((counts > 0).sum()) > 1 and bool(counts.max() < largest_share * counts.sum())
