"""Textures whose correlation length is known."""

import math

import numpy as np
import pytest
import torch

from unmask.evals.correlation import autocorrelation, distance_to


def smooth(sigma: float, count: int = 12, side: int = 96, channels: int = 1) -> torch.Tensor:
    """White noise through a Gaussian: its correlation is exp(-d^2 / 4 sigma^2)."""
    noise = np.random.default_rng(3).standard_normal((count, channels, side, side))
    turns = 2 * np.pi * np.fft.fftfreq(side)
    gaussian = np.exp(-(sigma**2) / 2 * (turns[:, None] ** 2 + turns**2))
    return torch.from_numpy(np.fft.ifft2(np.fft.fft2(noise) * gaussian).real).float()


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.5])
def test_smooth_noise(sigma):
    curve = autocorrelation(smooth(sigma), 30)
    distances = torch.arange(31)
    expected = torch.exp(-(distances.square()) / (4 * sigma**2))
    assert (curve - expected).abs().max() < 0.06, "a mean over few independent parts"
    assert distance_to(curve, 1 / math.e) == pytest.approx(2 * sigma, rel=0.06)
    assert distance_to(curve, 0.5) == pytest.approx(2 * sigma * math.log(2) ** 0.5, rel=0.06)


def test_an_autoregressive_texture():
    """Each pixel 0.8 of the one before it, along rows and columns: 0.8^d."""
    x = np.random.default_rng(0).standard_normal((12, 1, 160, 160))
    for axis in (2, 3):
        rows = np.moveaxis(x, axis, 0)
        for i in range(1, 160):
            rows[i] += 0.8 * rows[i - 1]
    curve = autocorrelation(torch.from_numpy(x[..., 60:, 60:]), 20)
    assert distance_to(curve, 0.5) == pytest.approx(math.log(0.5) / math.log(0.8), rel=0.1)


def test_white_noise():
    curve = autocorrelation(torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)), 9)
    assert curve[0] == 1
    assert curve[1:].abs().max() < 0.02
    assert distance_to(curve, 0.5) == pytest.approx(0.5, abs=0.02)


def test_contrast_brightness_and_holes_change_nothing():
    images = smooth(2.0, channels=2)
    curve = autocorrelation(images, 12)
    other = images * torch.linspace(0.1, 30, 12)[:, None, None, None] + 1000
    assert (autocorrelation(other, 12) - curve).abs().max() < 1e-4
    flat = torch.full((3, 2, 96, 96), 0.7)
    assert autocorrelation(torch.cat([images, flat]), 12).allclose(curve)
    holes = torch.where(
        torch.rand(96, 96, generator=torch.Generator().manual_seed(1)) < 0.3, torch.nan, 0
    )
    assert (autocorrelation(images + holes, 12) - curve).abs().max() < 0.03


def test_nothing_to_correlate():
    for image in (torch.ones(2, 1, 16, 16), torch.full((1, 1, 16, 16), torch.nan)):
        assert autocorrelation(image, 4).tolist() == [1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="larger images"):
        autocorrelation(torch.ones(1, 1, 8, 8), 8)


def test_a_gradient_correlates_throughout():
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    assert distance_to(torch.ones(6), 0.5) == 5
    assert distance_to(autocorrelation(ramp, 21), 0.5) > 10
