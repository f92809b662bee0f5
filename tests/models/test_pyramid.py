"""Levels have the right strides at any size, and padding changes nothing inside."""

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork

from unmask.models.pyramid import FeaturePyramid, MapGroupNorm, MultiScale, SimplePyramid

WIDTH, CHANNELS = 32, 8


def paper(maps, valid=None):
    return FeaturePyramid(WIDTH, CHANNELS)(MultiScale(WIDTH)(maps, valid), valid)


def vitdet(maps, valid=None):
    return SimplePyramid(WIDTH, CHANNELS)(maps[-1], valid)


def of_grid(h: int, w: int, images: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(images, WIDTH, h, w) for _ in range(4)]


def inside(h: int, w: int, within: tuple[int, int]) -> torch.Tensor:
    valid = torch.zeros(2, *within, dtype=torch.bool)
    valid[:, :h, :w] = True
    return valid


@pytest.mark.parametrize("grid", [(4, 6), (5, 3), (1, 2), (7, 7)])
@pytest.mark.parametrize("pyramid", [paper, vitdet])
def test_strides(pyramid, grid):
    levels = pyramid(of_grid(*grid))
    h, w = grid
    half = (-(-h // 2), -(-w // 2))
    sizes = [(4 * h, 4 * w), (2 * h, 2 * w), (h, w), half, (-(-half[0] // 2), -(-half[1] // 2))]
    assert [tuple(x.shape) for x in levels] == [(2, CHANNELS, *size) for size in sizes]


@pytest.mark.parametrize("grid", [(4, 6), (5, 3)])
@pytest.mark.parametrize("pyramid", [paper, vitdet])
def test_padding_changes_nothing_inside_and_is_zero(pyramid, grid):
    maps, (H, W) = of_grid(*grid), (8, 9)
    padded = [torch.full((2, WIDTH, H, W), 7.0) for _ in maps]
    for small, large in zip(maps, padded, strict=True):
        large[..., : grid[0], : grid[1]] = small
    torch.manual_seed(1)
    alone = pyramid(maps)
    torch.manual_seed(1)
    among = pyramid(padded, inside(*grid, (H, W)))
    for small, large in zip(alone, among, strict=True):
        h, w = small.shape[-2:]
        torch.testing.assert_close(large[..., :h, :w], small, atol=1e-5, rtol=1e-5)
        assert large.abs().sum().item() == pytest.approx(large[..., :h, :w].abs().sum().item())


def test_top_down_equals_torchvisions():
    torch.manual_seed(0)
    ours, theirs = FeaturePyramid(WIDTH, CHANNELS), FeaturePyramidNetwork([WIDTH] * 4, CHANNELS)
    for block, lateral in zip(theirs.inner_blocks, ours.lateral, strict=True):
        block[0].load_state_dict(lateral.state_dict())
    for block, output in zip(theirs.layer_blocks, ours.output, strict=True):
        block[0].load_state_dict(output.state_dict())
    levels = [torch.randn(2, WIDTH, *size) for size in [(20, 12), (10, 6), (5, 3), (3, 2)]]
    expected = theirs({str(i): x for i, x in enumerate(levels)})
    for found, wanted in zip(ours(levels), expected.values(), strict=False):
        torch.testing.assert_close(found, wanted)


def test_the_paper_s_second_and_third_maps_are_doubled_and_kept():
    maps, scales = of_grid(2, 3), MultiScale(WIDTH)
    sized = scales(maps)
    assert sized[2] is maps[2]
    weight = scales.upscale_second.weight
    by_hand = torch.einsum("bdhw,dcyx->bchywx", maps[1], weight).flatten(2, 3).flatten(3, 4)
    torch.testing.assert_close(sized[1], by_hand + scales.upscale_second.bias[:, None, None])


def test_group_norm_of_valid_places_equals_torchs():
    torch.manual_seed(0)
    norm, x = MapGroupNorm(4, WIDTH), torch.randn(2, WIDTH, 5, 6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    everywhere = torch.ones(2, 1, 5, 6, dtype=torch.bool)
    torch.testing.assert_close(norm(x, everywhere), torch.nn.GroupNorm.forward(norm, x))
