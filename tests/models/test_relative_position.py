"""Biases against loops over queries and keys; tables of other grids."""

import pytest
import torch

from unmask.models.relative_position import (
    DecomposedRelativePosition,
    SharedRelativePosition,
    fit_offsets,
)

HEADS, d, GRID = 2, 3, (3, 4)


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        assert not parameter.any(), "tables start at zero"
        torch.nn.init.normal_(parameter)
    return module


def places(grid):
    return [(i, j) for i in range(grid[0]) for j in range(grid[1])]


@pytest.mark.parametrize(("block", "grid", "table"), [(0, (2, 2), "window"), (1, GRID, "global")])
def test_shared(block, grid, table):
    module = randomized(SharedRelativePosition(heads=HEADS, windows=[2, None, 2], grid=GRID))
    q = torch.randn(5, HEADS, grid[0] * grid[1], d)
    found = module(GRID)[block](q)
    values = getattr(module, f"{table}_table")
    for n, (i, j) in enumerate(places(grid)):
        for m, (y, x) in enumerate(places(grid)):
            wanted = values[:, grid[0] - 1 + y - i, grid[1] - 1 + x - j]
            assert found[0, :, n, m].equal(wanted)


@pytest.mark.parametrize(("block", "grid"), [(0, (2, 2)), (1, GRID)])
def test_decomposed(block, grid):
    module = randomized(DecomposedRelativePosition(head_width=d, windows=[2, None], grid=GRID))
    q = torch.randn(5, HEADS, grid[0] * grid[1], d)
    found = module(GRID)[block](q)
    rows, columns = module.rows[block], module.columns[block]
    for n, (i, j) in enumerate(places(grid)):
        for m, (y, x) in enumerate(places(grid)):
            wanted = q[:, :, n] @ (rows[grid[0] - 1 + y - i] + columns[grid[1] - 1 + x - j])
            torch.testing.assert_close(found[:, :, n, m], wanted)


def test_a_smaller_grid_takes_the_same_offsets_and_a_larger_one_is_interpolated():
    table = torch.arange(-4.0, 5.0)[:, None].expand(9, 2)
    assert fit_offsets(table, 0, 3)[:, 0].tolist() == [-2, -1, 0, 1, 2]
    larger = fit_offsets(table, 0, 9)[:, 1]
    assert larger.shape == (17,)
    assert larger[8] == 0
    torch.testing.assert_close(larger, -larger.flip(0))
    assert (larger.diff() >= 0).all()
