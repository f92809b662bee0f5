"""Masks from explicit noise (paper, Approach: Masking).

Legend: B images, N patches, K kept (visible), M masked, K + M = N, Q predicted, at most M.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from unmask.core.spec import Size


class Mask(NamedTuple):
    """Which patches the encoder sees, and which the decoder predicts. Indices ascend in each image."""

    visible: Int[Tensor, "B K"]
    masked: Int[Tensor, "B M"]
    predicted: Int[Tensor, "B Q"]
    """Those of the masked patches that the decoder predicts; usually all."""

    @property
    def is_masked(self) -> Bool[Tensor, "B N"]:
        """True where a patch is removed."""
        B, N = self.visible.shape[0], self.visible.shape[1] + self.masked.shape[1]
        nothing = torch.zeros(B, N, dtype=torch.bool, device=self.masked.device)
        return nothing.scatter(1, self.masked, True)

    @property
    def decoded(self) -> Int[Tensor, "B _"]:
        """The patches that the decoder works on: visible, then predicted."""
        return torch.cat([self.visible, self.predicted], dim=1)


def mask_from_noise(
    noise: Float[Tensor, "B N"], grid: Size, kept: int, *, predicted: int | None = None, unit: int = 1
) -> Mask:
    """The patches with the smallest noise stay visible; ties go to the earlier patch.

    Args:
        noise: any numbers; how they were drawn is the mask strategy.
        kept: how many patches stay visible, as `MaskSpec.visible` counts them.
        predicted: how many masked patches the decoder predicts, again those with the smallest noise;
            all by default.
        unit: squares of unit x unit patches share the noise of their first patch.
    """
    if unit > 1:
        noise = _share_noise(noise, grid, unit)
    shuffled = noise.argsort(dim=1, stable=True)
    visible, masked = shuffled[:, :kept], shuffled[:, kept:]
    first = masked[:, :predicted]
    return Mask(visible.sort(dim=1).values, masked.sort(dim=1).values, first.sort(dim=1).values)


def take(patches: Shaped[Tensor, "B N *D"], index: Int[Tensor, "B K"]) -> Shaped[Tensor, "B K *D"]:
    """The patches of each image at `index`."""
    return patches[torch.arange(index.shape[0], device=index.device)[:, None], index]


def _share_noise(noise: Tensor, grid: Size, unit: int) -> Tensor:
    """Ranks whole units: each patch gets its unit's rank, so that no tie can split a unit."""
    h, w = grid
    firsts = noise.reshape(-1, h, w)[:, ::unit, ::unit].flatten(1)
    rank = firsts.argsort(dim=1, stable=True).argsort(dim=1).reshape(-1, h // unit, w // unit)
    return rank.repeat_interleave(unit, 1).repeat_interleave(unit, 2).flatten(1)
