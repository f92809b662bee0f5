"""Relative position bias, added to attention when a pre-trained encoder is transferred.

Legend: B images or windows, h x w patches, N = h w, d width of a head.
Tables start at zero, so that the encoder starts as it was pre-trained. A table covers offsets of one
grid; for a smaller one its middle is taken, for a larger one it is interpolated.

A bias that needs a gradient takes torch's plain attention: all scores of a block, B x heads x N x N, are
in memory a few times (0.8 GB each for a ViT-B's global block at 1024 x 1024 in float32). They are
computed from the tables within the block, so that checkpointing keeps none. Windows keep them small.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unmask.core.blocks import BiasFunction
from unmask.core.spec import Size


class SharedRelativePosition(nn.Module):
    """One table of a value per head and offset for all windowed blocks, and one for all global ones."""

    def __init__(self, *, heads: int, windows: Sequence[int | None], grid: Size):
        super().__init__()
        self.windows = tuple(windows)
        assert len({side for side in windows if side}) <= 1, "windowed blocks share one table"
        self.window_table = self.global_table = None
        for side in windows:
            if side:
                self.window_table = _zeros(heads, 2 * side - 1, 2 * side - 1)
            else:
                self.global_table = _zeros(heads, 2 * grid[0] - 1, 2 * grid[1] - 1)

    def forward(self, grid: Size) -> list[BiasFunction]:
        """For each block, its bias on images of `grid` patches."""
        return [self._bias_of((side, side) if side else grid, bool(side)) for side in self.windows]

    def _bias_of(self, grid: Size, windowed: bool) -> BiasFunction:
        table = self.window_table if windowed else self.global_table
        assert table is not None
        return partial(shared_bias, table, grid)


class DecomposedRelativePosition(nn.Module):
    """Vectors per block for vertical and for horizontal offsets, compared with the queries (ViTDet)."""

    def __init__(self, *, head_width: int, windows: Sequence[int | None], grid: Size):
        super().__init__()
        self.windows = tuple(windows)
        grids = [(side, side) if side else grid for side in windows]
        self.rows = nn.ParameterList(_zeros(2 * h - 1, head_width) for h, _ in grids)
        self.columns = nn.ParameterList(_zeros(2 * w - 1, head_width) for _, w in grids)

    def forward(self, grid: Size) -> list[BiasFunction]:
        """For each block, its bias on images of `grid` patches."""
        return [
            partial(decomposed_bias, rows, columns, (side, side) if side else grid)
            for rows, columns, side in zip(self.rows, self.columns, self.windows, strict=True)
        ]


def shared_bias(
    table: Float[Tensor, "heads _ _"], grid: Size, queries: Float[Tensor, "B heads N d"]
) -> Float[Tensor, "1 heads N N"]:
    """The table's value for the offset from each query to each key."""
    h, w = grid
    fitted = fit_offsets(fit_offsets(table, 1, h), 2, w)
    by_offset = fitted.unfold(1, h, 1).unfold(2, w, 1).flip(1, 2)
    return by_offset.flatten(3).flatten(1, 2)[None].to(queries.dtype)


def decomposed_bias(
    rows: Float[Tensor, "_ d"],
    columns: Float[Tensor, "_ d"],
    grid: Size,
    queries: Float[Tensor, "B heads N d"],
) -> Float[Tensor, "B heads N N"]:
    """Products of each query with the vectors of its vertical and horizontal offset to each key."""
    h, w = grid
    by_row = fit_offsets(rows, 0, h).unfold(0, h, 1).flip(0)
    by_column = fit_offsets(columns, 0, w).unfold(0, w, 1).flip(0)
    q = queries.unflatten(2, grid)
    vertical = torch.einsum("bnhwd,hdk->bnhwk", q, by_row)
    horizontal = torch.einsum("bnhwd,wdk->bnhwk", q, by_column)
    return (vertical[..., :, None] + horizontal[..., None, :]).flatten(4).flatten(2, 3)


def fit_offsets(table: Tensor, dim: int, side: int) -> Tensor:
    """A table whose `dim` holds offsets -(n - 1) to n - 1, for n = `side`."""
    wanted, have = 2 * side - 1, table.shape[dim]
    if wanted <= have:
        return table.narrow(dim, (have - wanted) // 2, wanted)
    lines = table.movedim(dim, -1)
    stretched = F.interpolate(lines.flatten(0, -2)[None], size=wanted, mode="linear")
    return stretched[0].reshape(*lines.shape[:-1], wanted).movedim(-1, dim)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))
