"""Random masking from explicit noise."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.core.grid import kept_patches
from unmask.core.masking import Mask, mask_from_noise, take

quick = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def masks(draw) -> tuple[Mask, torch.Tensor, tuple[int, int], float, int]:
    """A mask and what drew it; coarse noise, so that ties are common."""
    unit = draw(st.integers(1, 3))
    h, w = unit * draw(st.integers(1, 5)), unit * draw(st.integers(2, 5))
    units = h * w // unit**2
    ratio = 1 - draw(st.integers(1, units - 1)) / units - 0.3 / units
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    levels = draw(st.sampled_from([1, 3, 1 << 20]))
    noise = torch.randint(levels, (2, h * w), generator=generator) / levels
    return (
        mask_from_noise(noise, (h, w), kept_patches((h, w), ratio, unit), unit=unit),
        noise,
        (h, w),
        ratio,
        unit,
    )


@given(masks())
@quick
def test_mask(drawn):
    mask, noise, (h, w), ratio, unit = drawn
    units = h * w // unit**2
    assert kept_patches((h, w), ratio, unit) == int(units * (1 - ratio)) * unit**2
    assert mask.visible.shape[1] == kept_patches((h, w), ratio, unit)
    for b in range(2):
        visible, masked = mask.visible[b].tolist(), mask.masked[b].tolist()
        assert visible == sorted(visible)
        assert masked == sorted(masked)
        assert sorted(visible + masked) == list(range(h * w))
        assert mask.is_masked[b].tolist() == [n in masked for n in range(h * w)]

        def unit_of(n: int) -> int:
            return (n // w // unit) * (w // unit) + n % w // unit

        first = noise[b].reshape(h, w)[::unit, ::unit].flatten().tolist()
        by_noise_then_place = sorted(range(units), key=lambda u: (first[u], u))
        stay = by_noise_then_place[: len(visible) // unit**2]
        assert visible == [n for n in range(h * w) if unit_of(n) in stay]


@pytest.mark.parametrize("unit", [1, 2])
def test_every_patch_is_equally_often_visible_alone_and_in_pairs(unit):
    torch.manual_seed(0)
    draws, (h, w), kept, units = 20_000, (4 * unit, 4 * unit), 5, 16
    mask = mask_from_noise(torch.rand(draws, h * w), (h, w), kept * unit**2, unit=unit)
    visible = (~mask.is_masked).reshape(draws, h, w)[:, ::unit, ::unit].flatten(1).double()
    together = visible.T @ visible / draws

    alone, pair = kept / units, kept * (kept - 1) / (units * (units - 1))
    expected = torch.full((units, units), pair).double().fill_diagonal_(alone)
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((together - expected).abs() < 5 * deviation).all()


def test_kept_counts_truncate_in_floating_point_as_the_reference():
    assert kept_patches((10, 10), 0.9) == int(100 * (1 - 0.9)) == 9
    assert kept_patches((14, 14), 0.75) == 49
    assert kept_patches((16, 16), 0.75) == 64
    assert kept_patches((7, 7), 0.75) == 12
    assert kept_patches((8, 8), 0.75, 2) == 16


@pytest.mark.parametrize("ratio", [0.0, -0.5, 0.95, 1.0, 1.5])
def test_a_ratio_that_keeps_all_or_nothing(ratio):
    with pytest.raises(ValueError, match="choose a ratio"):
        kept_patches((4, 4), ratio)


@given(h=st.integers(1, 20), w=st.integers(2, 20), ratio=st.sampled_from([0.0, 1.0]))
@quick
def test_the_ratios_that_the_error_names_work(h, w, ratio):
    with pytest.raises(ValueError, match="choose a ratio") as caught:
        kept_patches((h, w), ratio)
    named = re.findall(r"\d[\d.e-]*", str(caught.value).split("choose")[1])
    assert named
    for mend in named:
        assert 0 < kept_patches((h, w), float(mend)) < h * w


@pytest.mark.parametrize(("grid", "unit"), [((4, 6), 4), ((4, 6), 3), ((4, 6), 0), ((4, 6), -2)])
def test_a_unit_that_does_not_tile(grid, unit):
    with pytest.raises(ValueError, match=r"do not tile a grid of 4 x 6 .* choose a mask unit"):
        kept_patches(grid, 0.5, unit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_units_stay_whole_on_a_large_grid(dtype):
    torch.manual_seed(0)
    noise = torch.rand(8, 64 * 64).to(dtype)
    squares = mask_from_noise(noise, (64, 64), kept_patches((64, 64), 0.3, 2), unit=2).is_masked.reshape(
        8, 32, 2, 32, 2
    )
    assert (squares == squares[:, :, :1, :, :1]).all()


def test_take():
    x = torch.arange(24).reshape(2, 3, 4)
    index = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(take(x, index), torch.stack([x[0, [2, 0]], x[1, [1, 1]]]))
    assert torch.equal(take(x[..., 0], index), torch.tensor([[8, 0], [16, 16]]))
