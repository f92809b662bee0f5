"""Principal components of patches as the target (Table 1d).

Legend: n patches, B images, M patches of an image, P values per patch, V components.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unmask.core.targets import Context, Target


class PrincipalComponents(NamedTuple):
    """The directions in which patches vary most, of length 1, the largest first."""

    mean: Float[Tensor, "P"]
    basis: Float[Tensor, "V P"]


class PCATarget(Target):
    """The largest coefficients of principal component analysis in the space of patches (Table 1d).

    `fit` sets the components once, before training; they are saved with the weights.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, values: int, outputs: int):
        super().__init__()
        self.outputs = outputs
        self.register_buffer("mean", torch.full((values,), torch.nan))  # until it is fitted
        self.register_buffer("basis", torch.full((outputs, values), torch.nan))

    def fit(self, components: PrincipalComponents) -> None:
        """Takes components, as `fit_pca` finds them."""
        self.mean.copy_(components.mean)
        self.basis.copy_(components.basis)

    def wanted(
        self, patches: Float[Tensor, "B M P"], valid: Bool[Tensor, "B M P"] | None = None
    ) -> Float[Tensor, "B M V"]:
        """Coefficients in float32; values that do not count are replaced by the mean patch's."""
        with _in_float32(patches):
            centred = patches.float() - self.mean
            return (centred if valid is None else centred.where(valid, 0)) @ self.basis.mT

    def pixels(self, prediction: Float[Tensor, "B M V"], context: Context) -> Float[Tensor, "B M P"]:
        with _in_float32(prediction):
            return prediction.float() @ self.basis + self.mean


def fit_pca(patches: Float[Tensor, "n P"], count: int) -> PrincipalComponents:
    """The `count` directions in which these patches vary most, in float32, computed in float64.

    The largest entry of each is positive, so that equal patches give equal components everywhere.
    Raises ValueError if there are fewer patches than that.
    """
    if len(patches) <= count:
        raise ValueError(
            f"{len(patches)} patches do not have {count} principal components: give more images, or "
            f"choose --target.components {max(1, len(patches) // 2)}"
        )
    values = patches.double()
    mean = values.mean(dim=0)
    _, directions = torch.linalg.eigh((values - mean).mT.cov())  # ascending, as columns
    basis = directions.mT.flip(0)[:count]
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    return PrincipalComponents(mean.float(), (basis * largest.sign()).float())


def _in_float32(value: Tensor) -> AbstractContextManager[Any]:
    """Without autocast, which devices without values do not have."""
    device = value.device.type
    available = torch.amp.autocast_mode.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else nullcontext()
