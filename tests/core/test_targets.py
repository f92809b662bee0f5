"""Reconstruction targets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.core.targets import TARGETS, patch_statistics, squared_error

normalized = TARGETS["normalized-pixels"]


@pytest.mark.parametrize("name", TARGETS)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 20)),
    scale=st.sampled_from([0.0, 1e-4, 1.0, 30.0]),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_round_trip(name, shape, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    patches = scale * torch.randn(shape, generator=generator) + 0.5
    target = TARGETS[name]
    statistics = patch_statistics(patches) if target.needs_statistics else None
    back = target.decode(target.encode(patches), statistics)
    torch.testing.assert_close(back, patches, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0])
def test_normalized_pixels_use_the_unbiased_variance_with_a_floor(scale):
    torch.manual_seed(0)
    patches = (scale * torch.randn(2, 3, 5) + 1).double()
    x = patches.numpy()
    mean = x.mean(-1, keepdims=True)
    std = np.sqrt(((x - mean) ** 2).sum(-1, keepdims=True) / 4 + 1e-6)
    np.testing.assert_allclose(normalized.encode(patches), (x - mean) / std, rtol=1e-9)
    np.testing.assert_allclose(patch_statistics(patches).mean, mean)
    np.testing.assert_allclose(patch_statistics(patches).std, std)


def test_a_uniform_patch_becomes_zeros():
    assert torch.equal(normalized.encode(torch.full((1, 2, 6), 0.25)), torch.zeros(1, 2, 6))


def test_pixels_are_left_alone():
    patches = torch.randn(1, 2, 3)
    assert torch.equal(TARGETS["pixels"].encode(patches), patches)


def test_normalized_pixels_need_statistics():
    with pytest.raises(AssertionError, match="without statistics"):
        normalized.decode(torch.zeros(1, 2, 3))


def test_squared_error_is_a_float32_mean_over_all_values():
    torch.manual_seed(0)
    a, b = torch.randn(2, 2, 3, 4)
    np.testing.assert_allclose(squared_error(a, b), ((a - b).numpy() ** 2).mean(), rtol=1e-5)
    error = squared_error(a.bfloat16(), b.bfloat16())
    assert error.dtype == torch.float32
    assert error == squared_error(a.bfloat16().float(), b.bfloat16().float())
