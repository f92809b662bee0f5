"""The augmentation of pre-training (paper, Table 1e): crops of one size, the centre, colour jitter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unmask
from conftest import photograph
from tests_support import resolved
from unmask.data.augment import colour_jitter
from unmask.data.decode.pictures import DecodedPicture
from unmask.data.sampler import SampleKey, generator
from unmask.data.transforms import (
    FIXED_SHARE,
    MUCH_SMALLER,
    centre_crop,
    draw_fixed_crop,
    share_for_fixed_crops,
)
from unmask.tasks.pretrain import MaskedSamples

pytestmark = pytest.mark.usefixtures("blank_charts")

SIDES = st.tuples(st.integers(8, 300), st.integers(8, 300))


@given(SIDES, st.sampled_from([(16, 24), (8, 8), (24, 16)]), st.integers(0, 2**32))
def test_fixed_crops_lie_inside_and_have_one_size(image, size, seed):
    rng = np.random.default_rng(seed)
    boxes = [draw_fixed_crop(image, size, FIXED_SHARE, True, rng).box for _ in range(3)]
    for top, left, h, w in boxes:
        assert 0 <= top <= image[0] - h
        assert 0 <= left <= image[1] - w
    assert len({box[2:] for box in boxes}) == 1
    h, w = boxes[0][2:]
    largest = min(image[0] / size[0], image[1] / size[1])
    assert h == pytest.approx(FIXED_SHARE * size[0] * largest, abs=0.51)
    assert w == pytest.approx(FIXED_SHARE * size[1] * largest, abs=0.51)
    share = share_for_fixed_crops(image, size, FIXED_SHARE)
    assert share == 1 or (share <= MUCH_SMALLER and h * share >= size[0] and w * share >= size[1])


def test_fixed_crops_move_and_are_flipped_half_of_the_time():
    rng = np.random.default_rng(0)
    crops = [draw_fixed_crop((64, 64), (16, 16), FIXED_SHARE, True, rng) for _ in range(400)]
    assert {crop.box[0] for crop in crops} == set(range(9))
    assert 150 < sum(crop.flip for crop in crops) < 250
    assert not any(draw_fixed_crop((64, 64), (16, 16), 1.0, False, rng).flip for _ in range(9))


def samples_of(tiny, **settings):
    config = replace(tiny, data=replace(tiny.data, channels=3, **settings))
    return MaskedSamples(config, resolved(config))


def drawn(samples, number=0, epoch=0):
    pixels = torch.from_numpy(np.array(photograph(number))).permute(2, 0, 1)
    key = SampleKey(epoch, number)
    return samples.sample(DecodedPicture(pixels), key, generator(0, epoch, number))


def test_the_centre_is_always_the_same(tiny):
    samples = samples_of(tiny, crop="centre", flip=False)
    (one, noise), (two, other) = drawn(samples), drawn(samples, epoch=1)
    pixels = torch.from_numpy(np.array(photograph(0))).permute(2, 0, 1)
    assert one.equal(centre_crop(DecodedPicture(pixels), samples.pixels, (16, 24)))
    assert one.equal(two)
    assert not noise.equal(other)


def test_crops_of_one_size_differ_from_each_other(tiny):
    samples = samples_of(tiny, crop="fixed-size")
    assert drawn(samples)[0].shape == (3, 16, 24)
    assert not drawn(samples)[0].equal(drawn(samples, epoch=1)[0])
    assert drawn(samples)[0].equal(drawn(samples)[0])


def test_jitter_changes_brightness_contrast_and_saturation_as_torchvision():
    """The strongest: with its factors at 0, an image is black, or grey, or both."""
    image = torch.from_numpy(np.array(photograph(3))).permute(2, 0, 1)
    assert colour_jitter(image, 0.0, np.random.default_rng(0)).equal(image)
    means = [colour_jitter(image, 0.4, np.random.default_rng(i)).float().mean() for i in range(300)]
    ratios = torch.stack(means) / image.float().mean()
    assert 0.55 < ratios.min() < 0.7
    assert 1.3 < ratios.max() < 1.45
    assert colour_jitter(image[:1], 0.4, np.random.default_rng(0)).shape == (1, *image.shape[1:])


def test_jittered_crops_are_the_same_crops(tiny):
    plain, jittered = (drawn(samples_of(tiny, jitter=jitter)) for jitter in (0.0, 0.4))
    assert not plain[0].equal(jittered[0])
    correlation = np.corrcoef(plain[0].flatten(), jittered[0].flatten())[0, 1]
    assert correlation > 0.9


def test_jitter_of_what_is_no_picture_is_refused(tiny, tmp_path):
    np.save(tmp_path / "one.npy", np.random.default_rng(0).random((30, 40, 4), np.float32))
    with pytest.raises(ValueError, match=r"leave out --data\.jitter"):
        unmask.pretrain(tmp_path, dry_run=True, jitter=0.4, held_out=0, batch=1)
    with pytest.raises(ValueError, match=r"leave out --data\.resize"):
        unmask.pretrain(tiny, dry_run=True, jitter=0.4, resize_on_device=True)


def test_a_run_with_every_axis_of_augmentation(tiny):
    config = replace(tiny, data=replace(tiny.data, crop="fixed-size", jitter=0.4))
    out = unmask.pretrain(config, steps=2)
    page = (out / "report.html").read_text()
    assert "crops of one size, 0.875 of the largest side that fits, flips, colour jitter 0.4" in page
