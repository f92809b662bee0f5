"""Masks by every strategy: exact counts, random ones uniform, blocks contiguous, grids regular."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unmask.core.masking import mask_from_noise
from unmask.core.spec import MaskSpec
from unmask.data.mask_strategies import block_mask, given_mask, grid_mask, mask_noise, read_mask
from unmask.data.sampler import generator
from unmask.errors import DataError

grids = st.tuples(st.integers(1, 20), st.integers(2, 20))


def draw(mask: MaskSpec, grid: tuple[int, int], draws: int, seed: int = 0) -> np.ndarray:
    """bool [draws, h, w]."""
    rng = generator(seed)
    noise = torch.from_numpy(np.stack([mask_noise(mask, grid, rng) for _ in range(draws)]))
    assert 0 <= noise.min() <= noise.max() < 1
    return mask_from_noise(noise, grid, mask.visible(grid)).is_masked.reshape(draws, *grid).numpy()


@given(grid=grids, data=st.data(), seed=st.integers(0, 1000))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_image_has_the_same_exact_count(grid, data, seed):
    patches = grid[0] * grid[1]
    count = data.draw(st.integers(1, patches - 1))
    chosen = generator(seed).permutation(patches)[:count]
    given_one = np.isin(np.arange(patches), chosen).reshape(grid)
    ratio = (count + 0.3) / patches if count + 1 < patches else count / patches - 0.1 / patches
    for mask, wanted in (
        (MaskSpec(ratio=ratio), patches - int(patches * (1 - ratio))),
        (MaskSpec(strategy="block", ratio=ratio), patches - int(patches * (1 - ratio))),
        (MaskSpec(strategy="grid"), patches - -(-grid[0] // 2) * -(-grid[1] // 2)),
        (given_mask(given_one, grid), count),
    ):
        if not 0 < wanted < patches:  # refused, never missed by a little
            with pytest.raises(ValueError, match="choose a ratio"):
                mask.visible(grid)
            continue
        masked = draw(mask, grid, 3, seed)
        assert masked.sum(axis=(1, 2)).tolist() == [wanted] * 3
        assert mask.strategy != "given" or (masked == given_one).all()


@given(grid=grids, data=st.data(), seed=st.integers(0, 10**6))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_blocks_reach_any_count(grid, data, seed):
    count = data.draw(st.integers(0, grid[0] * grid[1]))
    assert block_mask(grid, count, generator(seed)).sum() == count


def test_random_masks_cover_all_patches_alike():
    """Chi-square of how often each patch is masked: smaller, since none is drawn twice."""
    grid, draws, ratio = (6, 9), 4000, 0.75
    masked = draw(MaskSpec(ratio=ratio), grid, draws)
    patches = grid[0] * grid[1]
    counts, share = masked.sum(axis=0).ravel(), masked[0].mean()
    square = ((counts - draws * share) ** 2).sum() / (draws * share * (1 - share))
    freedom = patches - 1
    square *= freedom / patches
    assert abs(square - freedom) < 4 * np.sqrt(2 * freedom)


def test_random_noise_is_as_it_always_was():
    assert np.array_equal(
        mask_noise(MaskSpec(), (4, 6), generator(3)), generator(3).random(24, dtype=np.float32)
    )


def neighbours_alike(masked: np.ndarray) -> float:
    """Share of adjacent pairs of patches that are both masked or both visible."""
    return np.mean(
        [(masked[:, 1:] == masked[:, :-1]).mean(), (masked[:, :, 1:] == masked[:, :, :-1]).mean()]
    )


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (7, 7), (6, 20)])
@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_blocks_are_more_contiguous_than_random_masks(grid, ratio):
    blocks = neighbours_alike(draw(MaskSpec(strategy="block", ratio=ratio), grid, 200))
    alone = neighbours_alike(draw(MaskSpec(ratio=ratio), grid, 200))
    assert blocks > alone + 0.1, (blocks, alone)


def test_blocks_lie_everywhere():
    covered = draw(MaskSpec(strategy="block", ratio=0.5), (14, 14), 1000).mean(axis=0)
    assert 0.02 < covered.min() < covered.max() < 0.98


@given(grid=grids)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_grid_keeps_every_second_row_and_column(grid):
    visible = ~grid_mask(grid)
    rows, columns = np.nonzero(visible)
    assert (rows % 2 == 0).all()
    assert (columns % 2 == 0).all()
    assert visible[::2, ::2].all()


@pytest.mark.parametrize("mask", [MaskSpec(strategy="block"), MaskSpec(strategy="grid")])
def test_partial_decoding_predicts_random_masked_patches(mask):
    grid, rng = (4, 6), generator(0)
    noise = torch.from_numpy(np.stack([mask_noise(mask, grid, rng) for _ in range(2000)]))
    drawn = mask_from_noise(noise, grid, mask.visible(grid), predicted=6)
    masked = drawn.is_masked.double().mean(dim=0)
    predicted = torch.zeros(2000, 24).scatter(1, drawn.predicted, 1).mean(dim=0)
    share = 6 / drawn.masked.shape[1]
    assert (predicted - share * masked).abs().max() < 0.05


def test_a_mask_from_a_file(tmp_path):
    values = generator(1).random((3, 5)) < 0.6
    np.save(tmp_path / "mask.npy", values)
    Image.fromarray(np.uint8(255 * values)).save(tmp_path / "mask.png")
    expected = tuple(np.flatnonzero(values).tolist())
    for name in ("mask.npy", "mask.png"):
        mask = read_mask(tmp_path / name, (3, 5))
        assert (mask.strategy, mask.given) == ("given", expected)
        assert mask.ratio == pytest.approx(values.mean())


def test_masks_that_do_not_fit(tmp_path):
    np.save(tmp_path / "other.npy", np.eye(4))
    with pytest.raises(ValueError, match=r"other.npy has 4 x 4 values and the model a grid of 3 x 5"):
        read_mask(tmp_path / "other.npy", (3, 5))
    for all_or_nothing in (np.ones((2, 2)), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="at least one must stay and one must go"):
            given_mask(all_or_nothing, (2, 2))
    (tmp_path / "broken.png").write_text("no picture")
    for name in ("broken.png", "absent.npy"):
        with pytest.raises(DataError, match=r"give a \.npy array, or a \.png"):
            read_mask(tmp_path / name, (2, 2))
