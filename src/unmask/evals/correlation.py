"""How far images correlate with themselves: what a masked patch shares with its neighbours.

Legend: B images, C channels, H x W pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def autocorrelation(images: Float[Tensor, "B C H W"], distances: int) -> Float[Tensor, " D"]:
    """Correlation of two pixels 0, 1, ..., `distances` apart along rows and columns, in the mean.

    Of each image and channel around its own mean, so that none weighs more than another by its
    contrast; those of one value count for nothing, and so do pixels that are NaN. All zero but the first
    if nothing counts. Raises ValueError if images are no larger than the distance.
    """
    if distances >= min(images.shape[-2:]):
        raise ValueError(f"pixels {distances} apart need larger images than {tuple(images.shape[-2:])}")
    known = images.isnan().logical_not()
    mean = images.double().nanmean(dim=(2, 3), keepdim=True)
    values = torch.where(known, images.double() - mean, 0.0)
    curve = torch.stack([_covariance(values, known.double(), d) for d in range(distances + 1)])
    varies = curve[0] > 1e-12 * mean.nan_to_num().squeeze((2, 3)).square() + 1e-30
    if not varies.any():
        return torch.eye(1, distances + 1)[0]
    return (curve[:, varies] / curve[0, varies]).mean(dim=1).float()


def _covariance(values: Tensor, known: Tensor, distance: int) -> Float[Tensor, "B C"]:
    """Correlation of pixels so far apart; values are 0 where nothing is known."""
    pairs, total = torch.zeros(2, *values.shape[:2], dtype=torch.float64)
    for along in (2, 3):
        length = values.shape[along] - distance
        for sums, each in ((total, values), (pairs, known)):
            first, second = each.narrow(along, 0, length), each.narrow(along, distance, length)
            sums += (first * second).sum(dim=(2, 3))
    return total / pairs.clamp(min=1)


def distance_to(curve: Float[Tensor, " D"], level: float) -> float:
    """The distance in pixels at which a correlation falls to a level; between two distances by a line.

    The last distance if it does not fall so far: read that as 'at least'.
    """
    below = (curve < level).nonzero()
    if not len(below):
        return float(len(curve) - 1)
    after = int(below[0])
    high, low = curve[after - 1].item(), curve[after].item()
    return after - 1 + (high - level) / (high - low)
