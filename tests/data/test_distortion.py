"""Colours change as hue, saturation and value say, and by no more than they should."""

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

from unmask.data.distortion import Distortion, distorted, random_distortion

COLOURS = torch.randint(256, (3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()


def in_hsv(image, saturation=1.0, hue=0.0):
    hsv = rgb_to_hsv(image.permute(1, 2, 0).numpy() / 255)
    hsv[..., 0] = (hsv[..., 0] + hue) % 1
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    return torch.from_numpy(255 * hsv_to_rgb(hsv)).permute(2, 0, 1)


@pytest.mark.parametrize(
    "change", [{"saturation": 0.5}, {"saturation": 1.5}, {"hue": 0.1}, {"hue": -0.1}]
)
def test_saturation_and_hue_are_those_of_hsv(change):
    made = distorted(COLOURS, Distortion(**change))
    assert (made - in_hsv(COLOURS, **change)).abs().max() <= 1


def test_brightness_and_contrast_and_their_order():
    image = torch.tensor([10, 100, 250], dtype=torch.uint8).view(1, 1, 3)
    assert distorted(image, Distortion(brightness=20)).flatten().tolist() == [30, 120, 255]
    assert distorted(image, Distortion(contrast=0.5)).flatten().tolist() == [5, 50, 125]
    both = Distortion(contrast=1.5, saturation=0.5)
    first, last = (
        distorted(COLOURS, both),
        distorted(COLOURS, Distortion(**vars(both) | {"contrast_last": True})),
    )
    assert not torch.equal(first, last)


def test_the_defaults_change_nothing_and_draws_keep_their_bounds():
    assert distorted(COLOURS, Distortion()) is COLOURS
    drawn = [random_distortion(np.random.default_rng(seed)) for seed in range(200)]
    assert 60 < sum(d.hue != 0 for d in drawn) < 140
    assert 60 < sum(d.contrast_last for d in drawn) < 140
    assert max(abs(d.brightness) for d in drawn) <= 32
    assert all(0.5 <= factor <= 1.5 for d in drawn for factor in (d.contrast, d.saturation))
    assert max(abs(d.hue) for d in drawn) <= 0.1
    assert random_distortion(np.random.default_rng(3)) == drawn[3]


def test_grey_images_stay_grey_and_others_are_refused():
    grey = torch.full((1, 4, 4), 100, dtype=torch.uint8)
    assert distorted(grey, Distortion(saturation=1.5, hue=0.1, brightness=5)).unique().tolist() == [105]
    with pytest.raises(ValueError, match="train without colour distortion"):
        distorted(torch.zeros(5, 4, 4, dtype=torch.uint8), Distortion())
