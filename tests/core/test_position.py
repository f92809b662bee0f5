"""The sine-cosine table against one written out value by value."""

import re

import numpy as np
import pytest

from unmask.core.position import sincos_positions


def reference(grid: tuple[int, int], width: int, prefix: int) -> np.ndarray:
    h, w = grid
    quarter = width // 4
    table = np.zeros((prefix + h * w, width))
    for row in range(h):
        for column in range(w):
            for k in range(quarter):
                frequency = 1 / 10000 ** (k / quarter)
                table[prefix + row * w + column, k::quarter] = [
                    np.sin(column * frequency),
                    np.cos(column * frequency),
                    np.sin(row * frequency),
                    np.cos(row * frequency),
                ]
    return table


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize(("grid", "width"), [((3, 3), 8), ((2, 5), 12), ((7, 1), 4), ((14, 14), 768)])
def test_table(grid, width, prefix):
    table = sincos_positions(grid, width, prefix)
    np.testing.assert_allclose(table[0], reference(grid, width, prefix), atol=1e-6)
    assert table.shape[0] == 1


@pytest.mark.parametrize("width", [1, 2, 18, 767])
def test_a_width_that_four_does_not_divide(width):
    with pytest.raises(ValueError, match="choose") as caught:
        sincos_positions((2, 2), width)
    for mend in re.findall(r"(\d+)", str(caught.value).split("choose")[1]):
        assert sincos_positions((2, 2), int(mend)).shape == (1, 4, int(mend))
