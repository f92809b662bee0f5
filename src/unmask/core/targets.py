"""What the decoder learns to predict (paper, Approach: Reconstruction target; Table 1d).

Legend: B images, M patches, P values per patch, V numbers predicted per patch.
A bool `valid` marks the values of patches that count; without it all do.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

VARIANCE_FLOOR = 1e-6


class PatchStatistics(NamedTuple):
    """Mean and standard deviation of the values of each patch."""

    mean: Float[Tensor, "B M 1"]
    std: Float[Tensor, "B M 1"]


class Context(NamedTuple):
    """What the way back to pixels needs, and the prediction does not hold."""

    statistics: PatchStatistics | None = None
    """Statistics of each patch, to undo its normalisation."""
    draw: Callable[[Int[Tensor, "B M"]], Float[Tensor, "B M P"]] | None = None
    """A tokenizer's decoder: patches of the token ids of whole images."""


class Loss(NamedTuple):
    """A mean, in float32 whatever the model's precision, and the patches that it is over.

    A patch whose values count in part is that part of a patch.
    """

    mean: Float[Tensor, ""]
    patches: Float[Tensor, ""] | float


def patch_statistics(
    patches: Float[Tensor, "B M P"], valid: Bool[Tensor, "B M P"] | None = None
) -> PatchStatistics:
    """Statistics of the values that count; unbiased variance, with a floor of 1e-6 under the root."""
    if valid is None:
        mean = patches.mean(dim=-1, keepdim=True)
        variance = patches.var(dim=-1, keepdim=True)
    else:
        count = valid.sum(dim=-1, keepdim=True)
        mean = patches.where(valid, 0).sum(dim=-1, keepdim=True) / count.clamp(min=1)
        squares = (patches - mean).where(valid, 0).square().sum(dim=-1, keepdim=True)
        variance = squares / (count - 1).clamp(min=1)
    return PatchStatistics(mean, (variance + VARIANCE_FLOOR).sqrt())


class Target(nn.Module):
    """What is predicted of a patch, how wrong a prediction is, and the way back to pixels."""

    needs_statistics = False
    """Whether the way back needs the statistics of each patch, which are not predicted."""
    outputs: int
    """V, how many numbers are predicted for a patch."""

    def wanted(
        self, patches: Float[Tensor, "B M P"], valid: Bool[Tensor, "B M P"] | None = None
    ) -> Float[Tensor, "B M V"]:
        """What is to be predicted of these patches."""
        raise NotImplementedError

    def loss(
        self,
        prediction: Float[Tensor, "B M V"],
        wanted: Shaped[Tensor, "B M *V"],
        valid: Bool[Tensor, "B M P"] | None = None,
    ) -> Loss:
        """Mean squared error; a patch of which a part is valid counts in part."""
        squared = (prediction.float() - wanted.float()).square()
        return weighted_mean(squared, None if valid is None else share_of(valid).expand_as(squared))

    def pixels(self, prediction: Float[Tensor, "B M V"], context: Context) -> Float[Tensor, "B M P"]:
        """The patches that a prediction means, in the images' normalised pixel values."""
        raise NotImplementedError


class PixelTarget(Target):
    """The pixels themselves."""

    def __init__(self, outputs: int):
        super().__init__()
        self.outputs = outputs

    def wanted(
        self, patches: Float[Tensor, "B M P"], valid: Bool[Tensor, "B M P"] | None = None
    ) -> Float[Tensor, "B M P"]:
        return patches

    def loss(
        self,
        prediction: Float[Tensor, "B M P"],
        wanted: Shaped[Tensor, "B M P"],
        valid: Bool[Tensor, "B M P"] | None = None,
    ) -> Loss:
        """Mean squared error over the pixels that are valid."""
        squared = (prediction.float() - wanted.float()).square()
        return weighted_mean(squared, None if valid is None else valid.float())

    def pixels(self, prediction: Float[Tensor, "B M P"], context: Context) -> Float[Tensor, "B M P"]:
        return prediction


class NormalizedPixelTarget(PixelTarget):
    """Pixels normalised by mean and standard deviation of their own patch: better features (1d)."""

    needs_statistics = True

    def wanted(
        self, patches: Float[Tensor, "B M P"], valid: Bool[Tensor, "B M P"] | None = None
    ) -> Float[Tensor, "B M P"]:
        mean, std = patch_statistics(patches, valid)
        return (patches - mean) / std

    def pixels(self, prediction: Float[Tensor, "B M P"], context: Context) -> Float[Tensor, "B M P"]:
        """Undoes the normalisation with statistics that the model does not predict."""
        assert context.statistics is not None, "normalised pixels cannot be undone without statistics"
        return prediction * context.statistics.std + context.statistics.mean


class TokenTarget(Target):
    """One of a tokenizer's tokens per patch (BEiT, Bao et al. 2021): the ids are given, not computed."""

    def __init__(self, outputs: int):
        super().__init__()
        self.outputs = outputs

    def wanted(
        self, patches: Float[Tensor, "B M P"], valid: Bool[Tensor, "B M P"] | None = None
    ) -> Float[Tensor, "B M V"]:
        raise ValueError("tokens are not computed from patches: give the model their ids as `wanted`")

    def loss(
        self,
        prediction: Float[Tensor, "B M V"],
        wanted: Shaped[Tensor, "B M"],
        valid: Bool[Tensor, "B M P"] | None = None,
    ) -> Loss:
        """Cross-entropy."""
        entropy = F.cross_entropy(prediction.float().flatten(0, 1), wanted.flatten(), reduction="none")
        return weighted_mean(entropy[:, None], None if valid is None else share_of(valid).flatten(0, 1))

    def pixels(self, prediction: Float[Tensor, "B M V"], context: Context) -> Float[Tensor, "B M P"]:
        """What the tokenizer draws of the most probable tokens."""
        assert context.draw is not None, "tokens cannot be drawn without their tokenizer"
        return context.draw(prediction.argmax(dim=-1))


def share_of(valid: Bool[Tensor, "B M P"]) -> Float[Tensor, "B M 1"]:
    """Which part of each patch counts."""
    return valid.float().mean(dim=-1, keepdim=True)


def weighted_mean(errors: Float[Tensor, "*any V"], weights: Float[Tensor, "*any V"] | None) -> Loss:
    """The weighted mean, 0 if nothing counts, and how many patches it is over."""
    V = errors.shape[-1]
    if weights is None:
        return Loss(errors.mean(), errors.numel() / V)
    total = weights.sum()
    weighted = errors.where(weights > 0, 0) * weights
    return Loss(weighted.sum() / total.clamp(min=torch.finfo(total.dtype).tiny), total / V)
