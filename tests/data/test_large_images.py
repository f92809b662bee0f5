"""Large images are reduced to what crops need, and kept once for all of a run's processes."""

import multiprocessing
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import photograph
from unmask.bench.photograph import photograph as detailed
from unmask.config.image import ImageSpec, PixelFormat
from unmask.config.plan import LoadingPlan
from unmask.data.decode.pictures import DecodedPicture
from unmask.data.sampler import SampleKey, generator
from unmask.data.samples import TrainingSamples
from unmask.data.shared import SharedImages
from unmask.data.sources.find import find_images
from unmask.data.statistics import measure_pixels
from unmask.data.transforms import (
    ReducedPicture,
    crop_box,
    random_box,
    random_crop,
    reduced,
    share_for_crops,
)

COLOUR = PixelFormat(channels=3)
SIZE, SCALE = (16, 24), (0.2, 1.0)
IMAGE = ImageSpec(size=SIZE, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
PLAN = LoadingPlan(
    seed=0, repeats=1, workers=0, keep_decoded=False, max_bad_share=0.0, max_megapixels=1, timeout=300
)
LEVELS = 2.0
"""By how much, of 255, a crop of a reduced photograph may differ from that of the whole, in the mean."""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Six images with ten times the sides of their crops, as JPEG and PNG."""
    folder = tmp_path_factory.mktemp("large")
    for i in range(6):
        photograph(i, 300, 420).save(folder / f"{i}.{('png', 'jpg')[i % 2]}")
    return folder


@pytest.fixture(scope="module")
def whole():
    """A photograph with detail at all sizes."""
    return DecodedPicture(torch.from_numpy(np.asarray(detailed(2000, 1500)).copy()).permute(2, 0, 1))


@given(
    height=st.integers(200, 4000), width=st.integers(200, 4000), seed=st.integers(0, 99),
    out=st.sampled_from([(32, 32), (16, 48), (48, 16)]), least=st.floats(0.05, 1),
)  # fmt: skip
def test_every_crop_still_has_enough_pixels(height, width, seed, out, least):
    share = share_for_crops((height, width), out, (least, 1.0))
    _, _, h, w = random_box((height, width), out, (least, 1.0), generator(seed))
    assert share <= 0.5 or share == 1
    if share < 1:
        assert h * share > 1.9 * out[0]
        assert w * share > 1.9 * out[1]


@pytest.mark.parametrize(("size", "least"), [(96, 0.6), (96, 0.2), (128, 0.2)])
def test_crops_of_a_reduced_photograph_differ_little(whole, size, least):
    picture = whole
    share = share_for_crops(picture.size, (size, size), (least, 1.0))
    assert share < 1
    small = ReducedPicture(reduced(picture, COLOUR, share), picture.size)
    differences = []
    for i in range(12):
        box = random_box(picture.size, (size, size), (least, 1.0), generator(i))
        crops = [crop_box(p, COLOUR, box, (size, size)).float() for p in (picture, small)]
        differences.append((crops[0] - crops[1]).abs().mean().item())
    assert np.mean(differences) < LEVELS


class Crops:
    """See `data.samples.Samples`: a crop and nothing else."""

    def sample(self, picture, key, rng) -> torch.Tensor:
        return random_crop(picture, COLOUR, SIZE, SCALE, True, rng)

    def share(self, image_size) -> float:
        return share_for_crops(image_size, SIZE, SCALE)


def samples_of(folder, **plan) -> TrainingSamples:
    return TrainingSamples(find_images((str(folder),)), Crops(), IMAGE, replace(PLAN, **plan))


KEYS = [SampleKey(epoch, i, 0) for epoch in range(3) for i in range(6)]


@pytest.mark.parametrize("cache_bytes", [2**24, 200_000])
@pytest.mark.parametrize("name", ["photos", "large"])
def test_what_is_kept_changes_nothing(request, name, cache_bytes):
    folder = request.getfixturevalue(name)
    plain = samples_of(folder)
    kept = samples_of(folder, keep_decoded=True, cache_bytes=cache_bytes)
    for key in KEYS:
        assert plain[key].content.equal(kept[key].content)


def test_an_image_is_decoded_once_for_all_processes(large, monkeypatch):
    samples = samples_of(large, keep_decoded=True)
    fork = multiprocessing.get_context("fork")
    worker = fork.Process(target=samples.__getitems__, args=(KEYS[:6],))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    expected = samples_of(large)[KEYS[9]].content
    monkeypatch.setattr(samples.images.__class__, "take", None)
    assert samples[KEYS[9]].content.equal(expected)


def test_memory_is_what_crops_need(large):
    images = find_images((str(large),))
    whole = measure_pixels(images, size=(16, 24), wanted=COLOUR)
    small = measure_pixels(images, size=(16, 24), wanted=COLOUR, crop_scale=(0.2, 1.0))
    assert whole.decoded_bytes == 300 * 420 * 3
    assert small.decoded_bytes < whole.decoded_bytes / 4
    assert (small.mean, small.std) == (whole.mean, whole.std)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_as_many_as_fit_are_kept(dtype):
    pixels = torch.arange(3 * 5 * 7).view(3, 5, 7).to(dtype)
    room = 2 * (pixels.numel() * pixels.element_size() + 64)
    shared = SharedImages(4, room, dtype)
    for i in range(4):
        assert shared.get(i) is None
        shared.put(i, pixels + i, (50, 70))
    kept = [shared.get(i) for i in range(4)]
    assert [k is not None for k in kept] == [True, True, False, False]
    assert all(k[0].equal(pixels + i) and k[1] == (50, 70) for i, k in enumerate(kept[:2]))
    assert pickle.loads(pickle.dumps(shared)).get(0) is None
