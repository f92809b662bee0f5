"""Masks of an image's objects, each cut to the pixels that hold it.

Legend: G objects, h x w pixels of the image, P pixels of all cut masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unmask.core.spec import Size


class CroppedMask(NamedTuple):
    """The rows and columns from an object's first to its last, and where they begin."""

    pixels: Bool[Tensor, "_ _"]
    top: int
    left: int


NO_MASK = CroppedMask(torch.zeros(0, 0, dtype=torch.bool), 0, 0)


def cropped(mask: Bool[Tensor, "h w"]) -> CroppedMask:
    """One object's mask; an empty one has no pixels."""
    rows, columns = (np.flatnonzero(mask.numpy().any(axis=axis)).tolist() for axis in (1, 0))
    if not rows:
        return NO_MASK
    top, left = rows[0], columns[0]
    return CroppedMask(mask[top : rows[-1] + 1, left : columns[-1] + 1].clone(), top, left)


@dataclass(frozen=True, kw_only=True)
class CroppedMasks:
    """What [G, h, w] of bool is, in the room that the objects have: 1,000 cells of 30 x 30 pixels on
    1024 x 1024 take 1 MB instead of 1 GB."""

    pixels: Bool[Tensor, "P"]
    """One mask's rows behind each other, one mask behind the other."""
    windows: Int[Tensor, "G 4"]
    """Top, left, height and width of each; 0 for an empty mask."""
    size: Size

    @classmethod
    def of(cls, masks: Sequence[CroppedMask], size: Size) -> "CroppedMasks":
        """Those of one image."""
        pixels = [mask.pixels.reshape(-1) for mask in masks]
        corners = [(mask.top, mask.left, *mask.pixels.shape) for mask in masks]
        return cls(
            pixels=torch.cat([torch.zeros(0, dtype=torch.bool), *pixels]),
            windows=torch.tensor(corners, dtype=torch.long).view(-1, 4),
            size=size,
        )

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Int[Tensor, "n"]) -> Bool[Tensor, "n h w"]:
        """Those of some objects, as large as the image."""
        top, left, _, width = self.windows[index].unbind(1)
        areas = self.windows[:, 2] * self.windows[:, 3]
        starts = (areas.cumsum(0) - areas)[index]
        counts = areas[index]
        owner = torch.arange(len(index), device=counts.device).repeat_interleave(counts)
        within = torch.arange(len(owner), device=counts.device) - (counts.cumsum(0) - counts)[owner]
        rows, columns = top[owner] + within // width[owner], left[owner] + within % width[owner]
        whole = self.pixels.new_zeros(len(index), *self.size)
        whole[owner, rows, columns] = self.pixels[starts[owner] + within]
        return whole

    def to(self, device: Any, *, non_blocking: bool = False) -> "CroppedMasks":
        """The same on a device."""
        pixels, windows = (x.to(device, non_blocking=non_blocking) for x in (self.pixels, self.windows))
        return CroppedMasks(pixels=pixels, windows=windows, size=self.size)

    def pin_memory(self) -> "CroppedMasks":
        """The same in memory that is copied to a GPU in the background; the loader asks for it."""
        pixels, windows = self.pixels.pin_memory(), self.windows.pin_memory()
        return CroppedMasks(pixels=pixels, windows=windows, size=self.size)
