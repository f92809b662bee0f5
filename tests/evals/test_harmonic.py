import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.evals.harmonic import harmonic_fill


def case(batch, channels, height, width, share_known=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, channels, height, width, generator=g)
    known = torch.rand(batch, height, width, generator=g) < share_known
    known[:, torch.randint(height, (1,), generator=g), torch.randint(width, (1,), generator=g)] = True
    return images, known


def dense_fill(image, known):
    """One channel by a dense solve of 'an unknown pixel is the mean of its neighbours'."""
    h, w = image.shape
    equations, right = np.eye(h * w), np.where(known, image, 0.0).flatten().astype(float)
    for row, column in np.argwhere(~known):
        steps = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        neighbours = [r * w + c for r, c in steps if 0 <= r < h and 0 <= c < w]
        equations[row * w + column, neighbours] = -1 / len(neighbours)
    return np.linalg.solve(equations, right).reshape(h, w)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (30, 1), (2, 3), (7, 12), (16, 16), (24, 9)])
@pytest.mark.parametrize("share_known", [0.0, 0.25, 0.8])
def test_equals_a_dense_solve(size, share_known):
    images, known = case(5, 2, *size, share_known)
    filled = harmonic_fill(images, known)
    for b in range(5):
        for c in range(2):
            expected = dense_fill(images[b, c].numpy(), known[b].numpy())
            np.testing.assert_allclose(filled[b, c], expected, atol=1e-5)


def test_a_long_gap_becomes_a_straight_line():
    images = torch.full((1, 1, 1, 600), torch.nan)
    images[..., 0], images[..., -1] = 3.0, -2.0
    filled = harmonic_fill(images, ~images[:, 0].isnan())
    torch.testing.assert_close(filled[0, 0, 0], torch.linspace(3, -2, 600), atol=1e-4, rtol=0)


def test_known_pixels_come_back_bit_for_bit_and_unknown_content_does_not_matter():
    images, known = case(3, 3, 10, 14)
    filled = harmonic_fill(images, known)
    keep = known[:, None].expand_as(images)
    assert torch.equal(filled[keep], images[keep])
    assert not torch.equal(filled[~keep], images[~keep])
    assert torch.equal(harmonic_fill(images.where(keep, torch.nan), known), filled)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), share_known=st.floats(0, 1), height=st.integers(1, 12))
def test_stays_within_the_known_values_of_each_channel(seed, share_known, height):
    images, known = case(2, 2, height, 9, share_known, seed)
    filled = harmonic_fill(images, known)
    for b in range(2):
        for c in range(2):
            visible = images[b, c][known[b]]
            assert visible.min() - 1e-5 <= filled[b, c].min()
            assert filled[b, c].max() <= visible.max() + 1e-5


def test_constants_are_reproduced_exactly_and_scale_carries_through():
    images, known = case(2, 2, 8, 8)
    constant = torch.full_like(images, 0.1)
    assert torch.equal(harmonic_fill(constant, known), constant)
    scaled = harmonic_fill(images * 1e4 + 7e4, known)
    torch.testing.assert_close(scaled, harmonic_fill(images, known) * 1e4 + 7e4, rtol=1e-5, atol=0.1)


def test_images_of_a_batch_do_not_influence_each_other():
    images, known = case(9, 1, 8, 8)
    known[1] = True
    apart = torch.cat([harmonic_fill(i[None], k[None]) for i, k in zip(images, known, strict=True)])
    torch.testing.assert_close(harmonic_fill(images, known), apart, atol=1e-5, rtol=0)


def test_an_image_without_known_pixels_is_refused():
    images, known = case(2, 1, 4, 4)
    known[1] = False
    with pytest.raises(ValueError, match="at least one pixel stays visible"):
        harmonic_fill(images, known)
