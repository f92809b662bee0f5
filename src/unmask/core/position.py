"""Fixed 2-D sine-cosine positions (paper, appendix; the same form as MoCo v3); other sizes of a table.

Legend: N patches, D width, R prefix (class) tokens.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unmask.core.spec import Size


def sincos_positions(
    grid: Size, width: int, prefix_tokens: int = 0
) -> Float[Tensor, "1 {prefix_tokens+grid[0]*grid[1]} {width}"]:
    """A table with one row per token; prefix tokens get zeros.

    The first half of the channels encodes a patch's column, the second half its row, as in
    the official MAE code; each half is sines, then cosines, at wavelengths from 2 pi to 10000 x 2 pi.

    Raises ValueError if the width is no multiple of four.
    """
    if width % 4:
        raise ValueError(
            f"sine-cosine positions need a width that four divides, and {width} is not: "
            f"choose {width - width % 4 or 4} or {width + 4 - width % 4}"
        )
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64),
        torch.arange(grid[1], dtype=torch.float64),
        indexing="ij",
    )
    patches = torch.cat([_sincos(columns.flatten(), width // 2), _sincos(rows.flatten(), width // 2)], 1)
    prefix = torch.zeros(prefix_tokens, width, dtype=torch.float64)
    return torch.cat([prefix, patches])[None].float()


def interpolate_positions(table: Float[Tensor, "1 T D"], old: Size, new: Size) -> Float[Tensor, "1 _ D"]:
    """A table [1, R + N, D] for another grid, bicubic, as the official MAE code does in fine-tuning.

    The R prefix rows stay.
    """
    prefix, patches = table.split([table.shape[1] - old[0] * old[1], old[0] * old[1]], dim=1)
    grid = patches.unflatten(1, old).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return torch.cat([prefix, grid.flatten(2).mT], dim=1)


def place_positions(
    table: Float[Tensor, "1 T D"], old: Size, spread: Size, grid: Size
) -> Float[Tensor, "1 _ D"]:
    """The upper left `grid` of a table [1, R + N, D] interpolated from the grid `old` to `spread`.

    `spread` is assumed to be `grid` on a side that it does not cover.
    """
    spread = (max(spread[0], grid[0]), max(spread[1], grid[1]))
    if spread != old:
        table = interpolate_positions(table, old, spread)
    if grid == spread:
        return table
    prefix, patches = table.split([table.shape[1] - spread[0] * spread[1], spread[0] * spread[1]], dim=1)
    corner = patches.unflatten(1, spread)[:, : grid[0], : grid[1]]
    return torch.cat([prefix, corner.flatten(1, 2)], dim=1)


def _sincos(coordinate: Float[Tensor, "N"], width: int) -> Float[Tensor, "N {width}"]:
    frequency = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angle = coordinate[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)
