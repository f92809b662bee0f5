"""Which object each anchor or proposal is to learn, and which of them count in a loss.

Legend: N boxes, G objects, I ignored regions; boxes are left, top, right, bottom in pixels.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND, UNCOUNTED = -1, -2
"""In the place of an object: of boxes on none, and of those that are neither."""
IGNORED_SHARE = 0.5
PAIRS_AT_ONCE, MOST_PAIRS_KEPT = 2**20, 2**26
"""Pairs of boxes and objects: a thousand cells and the anchors of 1024 x 1024 pixels are four times as
many as are kept, and would take 10 GB while they are compared."""


def match(
    truth: Float[Tensor, "G 4"],
    boxes: Float[Tensor, "N 4"],
    *,
    positive: float,
    negative: float,
    each_object: bool = False,
    ignored: Float[Tensor, "I 4"] | None = None,
) -> Int[Tensor, "N"]:
    """The object that each box is matched to, or BACKGROUND or UNCOUNTED.

    Args:
        positive: the overlap (IoU) from which on a box is matched to the object that it overlaps most.
        negative: the overlap below which it is background.
        each_object: also matched are the boxes that overlap an object as much as any box does.
        ignored: what lies in one of these regions by half of its area or more is no background.
    """
    ignored = boxes[:0] if ignored is None else ignored.float()
    some = boxes.split(max(1, PAIRS_AT_ONCE // max(1, len(truth), len(ignored))))
    if len(truth):
        matched = _matched(truth, some, positive, negative, each_object)
    else:
        matched = torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    if not len(ignored):
        return matched
    within = torch.cat([_lies_within(part, ignored) for part in some])
    return matched.masked_fill(within & (matched == BACKGROUND), UNCOUNTED)


def _matched(
    truth: Tensor, some: tuple[Tensor, ...], positive: float, negative: float, each_object: bool
) -> Int[Tensor, "N"]:
    kept = each_object and len(truth) * sum(map(len, some)) <= MOST_PAIRS_KEPT
    overlaps = [box_iou(truth, part) for part in some] if kept else None
    found = [(pairs.max(dim=0), pairs.amax(dim=1)) for pairs in overlaps or _overlaps(truth, some)]
    overlap = torch.cat([best.values for best, _ in found])
    nearest = torch.cat([best.indices for best, _ in found])
    matched = nearest.masked_fill(overlap < positive, UNCOUNTED).masked_fill(
        overlap < negative, BACKGROUND
    )
    if not each_object:
        return matched
    most = torch.stack([of_objects for _, of_objects in found]).amax(dim=0)
    closest = [(p == most[:, None]).any(dim=0) for p in overlaps or _overlaps(truth, some)]
    return torch.where(torch.cat(closest), nearest, matched)


def _overlaps(truth: Tensor, some: tuple[Tensor, ...]) -> Iterator[Float[Tensor, "G n"]]:
    return (box_iou(truth, part) for part in some)


def _lies_within(boxes: Float[Tensor, "N 4"], regions: Float[Tensor, "I 4"]) -> Bool[Tensor, "N"]:
    low = torch.maximum(boxes[:, None, :2], regions[:, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[:, 2:])
    common = (high - low).clamp(min=0).prod(dim=-1).amax(dim=1)
    return common >= IGNORED_SHARE * (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)


def sample(
    matched: Int[Tensor, "N"], count: int, positive_share: float, rng: np.random.Generator
) -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
    """Draws which matched and which background boxes count in a loss: at most `count` together.

    At most `positive_share` of the count are matched; background fills it up.
    """
    positive = torch.nonzero(matched >= 0)[:, 0]
    negative = torch.nonzero(matched == BACKGROUND)[:, 0]
    positives = min(len(positive), int(count * positive_share))
    negatives = min(len(negative), count - positives)
    return _draw(positive, positives, rng), _draw(negative, negatives, rng)


def _draw(index: Int[Tensor, "n"], count: int, rng: np.random.Generator) -> Int[Tensor, "{count}"]:
    chosen = np.sort(rng.choice(len(index), count, replace=False))
    return index[torch.from_numpy(chosen).to(index.device)]
