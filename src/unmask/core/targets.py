"""What the decoder learns to predict (paper, Approach: Reconstruction target; Table 1d).

Legend: B images, M patches, P values per patch.
"""

from typing import NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor

VARIANCE_FLOOR = 1e-6


class PatchStatistics(NamedTuple):
    """Mean and standard deviation of the values of each patch."""

    mean: Float[Tensor, "B M 1"]
    std: Float[Tensor, "B M 1"]


def patch_statistics(patches: Float[Tensor, "B M P"]) -> PatchStatistics:
    """Unbiased variance, with a floor of 1e-6 under the root for uniform patches."""
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return PatchStatistics(mean, (variance + VARIANCE_FLOOR).sqrt())


class Target(Protocol):
    """A space to predict in, and the way back to pixels."""

    needs_statistics: bool
    """Whether the way back needs the statistics of each patch."""

    def encode(self, patches: Float[Tensor, "B M P"]) -> Float[Tensor, "B M P"]: ...

    def decode(
        self, prediction: Float[Tensor, "B M P"], statistics: PatchStatistics | None = None
    ) -> Float[Tensor, "B M P"]: ...


class PixelTarget:
    """The pixels themselves."""

    needs_statistics = False

    def encode(self, patches: Float[Tensor, "B M P"]) -> Float[Tensor, "B M P"]:
        return patches

    def decode(
        self, prediction: Float[Tensor, "B M P"], statistics: PatchStatistics | None = None
    ) -> Float[Tensor, "B M P"]:
        return prediction


class NormalizedPixelTarget:
    """Pixels normalised by the mean and deviation of their own patch: better features (Table 1d)."""

    needs_statistics = True

    def encode(self, patches: Float[Tensor, "B M P"]) -> Float[Tensor, "B M P"]:
        mean, std = patch_statistics(patches)
        return (patches - mean) / std

    def decode(
        self, prediction: Float[Tensor, "B M P"], statistics: PatchStatistics | None = None
    ) -> Float[Tensor, "B M P"]:
        """Undoes the normalisation with `statistics`, which the model does not predict."""
        assert statistics is not None, "normalised pixels cannot be undone without statistics"
        return prediction * statistics.std + statistics.mean


TARGETS: dict[str, Target] = {"pixels": PixelTarget(), "normalized-pixels": NormalizedPixelTarget()}


def squared_error(
    prediction: Float[Tensor, "B M P"], target: Float[Tensor, "B M P"]
) -> Float[Tensor, ""]:
    """Mean squared error over all values, in float32 whatever the model's precision."""
    return (prediction.float() - target.float()).square().mean()
