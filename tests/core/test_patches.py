"""Cutting an image into patches, and putting it back together."""

import re
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.core.grid import grid_of
from unmask.core.patches import patchify, unpatchify

small = st.integers(1, 4)


@given(batch=st.integers(1, 2), channels=st.integers(1, 4), h=small, w=small, p=small, q=small)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_order_and_round_trip(batch, channels, h, w, p, q):
    H, W = h * p, w * q
    images = torch.arange(batch * channels * H * W).reshape(batch, channels, H, W)
    patches = patchify(images, (p, q))

    assert patches.shape == (batch, h * w, p * q * channels)
    for b, row, column in product(range(batch), range(h), range(w)):
        values = [
            images[b, c, row * p + y, column * q + x].item()
            for y, x, c in product(range(p), range(q), range(channels))
        ]
        assert patches[b, row * w + column].tolist() == values
    assert torch.equal(unpatchify(patches, (H, W), (p, q)), images)


@given(pixels=st.integers(1, 300), patch=st.integers(1, 40))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_patch_that_does_not_divide_names_a_size_that_works(pixels, patch):
    if pixels % patch == 0:
        assert grid_of((pixels, patch), (patch, patch)) == (pixels // patch, 1)
        return
    for side, size in [("height", (pixels, patch)), ("width", (patch, pixels))]:
        with pytest.raises(
            ValueError, match=f"patch of {patch} pixels .* {side} of {pixels}: "
        ) as caught:
            grid_of(size, (patch, patch))
        mend = int(re.search(rf"or (\d+) as {side}$", str(caught.value))[1])
        assert mend > 0
        assert mend % patch == 0
        assert abs(mend - pixels) < patch


@pytest.mark.parametrize(
    ("image_size", "patch_size"), [((8, 8), (0, 4)), ((8, 8), (4, -4)), ((0, 8), (4, 4))]
)
def test_sizes_below_one(image_size, patch_size):
    with pytest.raises(ValueError, match="choose another patch size"):
        grid_of(image_size, patch_size)


def test_patchify_refuses_a_patch_that_does_not_divide():
    with pytest.raises(ValueError, match="or 10 as width"):
        patchify(torch.zeros(1, 3, 8, 9), (4, 5))


@pytest.mark.parametrize("shape", [(1, 5, 12), (1, 6, 13)], ids=["patch missing", "value too many"])
def test_unpatchify_refuses_what_does_not_fit(shape):
    with pytest.raises(ValueError, match="give the image size and patch size"):
        unpatchify(torch.zeros(shape), (4, 6), (2, 2))
