"""Mixup and cutmix over a batch (paper, Tables 9 and 11; Zhang et al. 2017, Yun et al. 2019).

One draw serves the global batch, as a function of (seed, step). An image's partner is its
neighbour in the pair: 0 with 1, 2 with 3. A batch may therefore be divided into parts of even
length, over processes or micro-batches, and the result is the same. A last odd one stays unmixed.

Legend: B images, C channels, H x W pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unmask.core.spec import Size
from unmask.data.transforms import Box


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How the images of a batch are mixed."""

    share: float = 1.0
    """Share of an image itself in the result; the rest is its partner's. 1 mixes nothing."""
    box: Box | None = None
    """Cutmix: the part that comes from the partner. None: mixup, of all pixels."""


def draw_mix(
    rng: np.random.Generator,
    image_size: Size,
    *,
    mixup: float = 0.8,
    cutmix: float = 1.0,
    switch: float = 0.5,
) -> Mix:
    """Draws once for a whole batch, as timm's 'batch' mode does.

    Args:
        mixup, cutmix: the parameters of their Beta distributions; 0 switches the one or the other off.
        switch: probability of cutmix if both are on.
    """
    if not mixup and not cutmix:
        return Mix()
    cuts = rng.random() < switch if mixup and cutmix else bool(cutmix)
    share = float(rng.beta(cutmix, cutmix) if cuts else rng.beta(mixup, mixup))
    return _cut(image_size, share, rng) if cuts else Mix(share=share)


def _cut(image_size: Size, share: float, rng: np.random.Generator) -> Mix:
    """A box of the image's aspect around a random point, clipped; the share is what it leaves."""
    height, width = image_size
    side = math.sqrt(1 - share)
    h, w = int(height * side), int(width * side)
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = max(0, y - h // 2), min(height, y + (h + 1) // 2)
    left, right = max(0, x - w // 2), min(width, x + (w + 1) // 2)
    box = (top, left, bottom - top, right - left)
    return Mix(share=1 - box[2] * box[3] / (height * width), box=box)


def mix(images: Tensor, how: Mix) -> Tensor:
    """Mixes normalised images, float [B, C, H, W], each with its partner."""
    if how.share == 1:
        return images
    others = images[partners(images)]
    if how.box is None:
        return images * how.share + others * (1 - how.share)
    top, left, h, w = how.box
    mixed = images.clone()
    part = (..., slice(top, top + h), slice(left, left + w))
    mixed[part] = others[part]
    return mixed


def mixed_targets(labels: Tensor, classes: int, how: Mix, smoothing: float = 0.1) -> Tensor:
    """Smoothed distributions over the classes, float32 [B, classes], mixed as the images are.

    Args:
        labels: int64 [B].
        smoothing: probability that is spread evenly over all classes (Szegedy et al. 2016).
    """
    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    targets.scatter_(1, labels[:, None], 1 - smoothing + off)
    return targets * how.share + targets[partners(labels)] * (1 - how.share)


def partners(batch: Tensor) -> Tensor:
    """[B]: the neighbour in each pair."""
    index = torch.arange(len(batch), device=batch.device)
    return (index ^ 1).where((index ^ 1) < len(batch), index)
