"""Random masking from explicit noise (paper, Approach: Masking).

Legend: B images, N patches, K kept (visible), M masked, K + M = N.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from unmask.core.patches import Size


class Mask(NamedTuple):
    """Which patches the encoder sees. Indices ascend within each image."""

    visible: Int[Tensor, "B K"]
    masked: Int[Tensor, "B M"]

    @property
    def is_masked(self) -> Bool[Tensor, "B N"]:
        """True where a patch is removed."""
        B, N = self.visible.shape[0], self.visible.shape[1] + self.masked.shape[1]
        nothing = torch.zeros(B, N, dtype=torch.bool, device=self.masked.device)
        return nothing.scatter(1, self.masked, True)


def kept_patches(grid: Size, mask_ratio: float, unit: int = 1) -> int:
    """How many patches stay visible: int(N x (1 - ratio)), counted in mask units.

    The product is truncated in floating point as the reference does: 100 patches at a ratio of
    0.9 keep 9. `unit` is the side of the squares of patches that are masked together.

    Raises ValueError where nothing, or everything, would stay visible.
    """
    h, w = grid
    if unit < 1 or h % unit or w % unit:
        raise ValueError(
            f"mask units of {unit} x {unit} patches do not tile a grid of {h} x {w} patches: "
            f"choose a mask unit that divides both, such as 1"
        )
    units = (h // unit) * (w // unit)
    if units < 2:
        raise ValueError(
            f"a grid of {h} x {w} patches is a single mask unit, and one must stay while another "
            f"goes: choose smaller patches, or a smaller mask unit"
        )
    kept = int(units * (1 - mask_ratio))
    if not 0 < kept < units:
        raise ValueError(
            f"a mask ratio of {mask_ratio} keeps {kept} of {units} mask units visible, and at least "
            f"one must stay and one must go: choose a ratio such as 0.5, or smaller patches"
        )
    return kept * unit * unit


def mask_from_noise(noise: Float[Tensor, "B N"], grid: Size, mask_ratio: float, unit: int = 1) -> Mask:
    """The patches with the smallest noise stay visible; ties go to the earlier patch.

    With `unit` k > 1, squares of k x k patches share the noise of their first patch.
    """
    kept = kept_patches(grid, mask_ratio, unit)
    if unit > 1:
        noise = _share_noise(noise, grid, unit)
    shuffled = noise.argsort(dim=1, stable=True)
    visible, masked = shuffled[:, :kept], shuffled[:, kept:]
    return Mask(visible.sort(dim=1).values, masked.sort(dim=1).values)


def take(patches: Shaped[Tensor, "B N *D"], index: Int[Tensor, "B K"]) -> Shaped[Tensor, "B K *D"]:
    """The patches of each image at `index`."""
    return patches[torch.arange(index.shape[0], device=index.device)[:, None], index]


def _share_noise(noise: Tensor, grid: Size, unit: int) -> Tensor:
    """Ranks whole units: each patch gets its unit's rank, so that no tie can split a unit."""
    h, w = grid
    firsts = noise.reshape(-1, h, w)[:, ::unit, ::unit].flatten(1)
    rank = firsts.argsort(dim=1, stable=True).argsort(dim=1).reshape(-1, h // unit, w // unit)
    return rank.repeat_interleave(unit, 1).repeat_interleave(unit, 2).flatten(1)
