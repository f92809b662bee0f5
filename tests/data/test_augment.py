"""RandAugment and random erasing are timm's, and functions of their generator alone."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import timm.data.random_erasing
import torch
from PIL import Image
from timm.data.auto_augment import _RAND_INCREASING_TRANSFORMS, AugmentOp
from timm.data.transforms_factory import transforms_imagenet_train

from conftest import photograph
from unmask.data.augment import POLICY, erased_box, global_generators, rand_augment, random_erasing
from unmask.data.normalize import normalize
from unmask.data.sampler import generator

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOUR = torch.from_numpy(np.array(photograph(1))).permute(2, 0, 1)
GREY = torch.from_numpy(np.array(photograph(1).convert("L")))[None]


def test_rand_augment_is_what_timm_makes_of_the_recipe():
    _, theirs, _ = transforms_imagenet_train(
        (30, 44), auto_augment=POLICY, interpolation="bicubic", mean=MEAN, std=STD, separate=True
    )
    changed = 0
    for i in range(40):
        ours = rand_augment(COLOUR, MEAN, generator(i))
        with global_generators(generator(i)):
            expected = np.array(theirs(photograph(1)))
        assert np.array_equal(ours.permute(1, 2, 0), expected)
        changed += not ours.equal(COLOUR)
    assert 20 < changed < 40


def test_every_operation_works_in_one_channel_as_in_three():
    """Which is why grey images need not be made colour and back."""
    grey = photograph(1).convert("L")

    def apply(name: str, image: Image.Image) -> np.ndarray:
        fill = (124,) * len(image.getbands())
        hparams = {"img_mean": fill, "interpolation": Image.Resampling.BICUBIC}
        random.seed(3)
        return np.array(AugmentOp(name, prob=1.0, magnitude=9, hparams=hparams)(image))

    for name in _RAND_INCREASING_TRANSFORMS:
        assert (apply(name, grey.convert("RGB")) == apply(name, grey)[..., None]).all(), name


def test_grey_images_are_augmented_like_their_colour_copies():
    for i in range(20):
        one = rand_augment(GREY, (0.4,), generator(i))
        three = rand_augment(GREY.expand(3, -1, -1), (0.4, 0.4, 0.4), generator(i))
        assert one.shape == GREY.shape
        assert three.equal(one.expand(3, -1, -1))


@pytest.mark.parametrize("image", [torch.zeros(3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.uint8)])
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(ValueError, match="8 bits in 1 or 3 channels"):
        rand_augment(image, (0.5,) * len(image), generator(0))


def test_global_generators_are_as_before():
    def draws() -> list:
        return [random.random(), random.gauss(), np.random.rand(), torch.rand(1).item()]

    def seed() -> None:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    seed()
    expected = draws() + draws()
    seed()
    got = draws()
    with global_generators(generator(5)):
        inside = draws()
    got += draws()
    assert got == expected
    with global_generators(generator(5)):
        assert draws() == inside
    with pytest.raises(KeyError), global_generators(generator(5)):
        raise KeyError
    random.random()
    with global_generators(generator(6)):
        assert all(a != b for a, b in zip(draws(), inside, strict=True))


def test_a_sample_does_not_depend_on_what_came_before():
    first = rand_augment(COLOUR, MEAN, generator(7))
    random.seed(123)
    rand_augment(COLOUR, MEAN, generator(8))
    assert rand_augment(COLOUR, MEAN, generator(7)).equal(first)


@pytest.mark.parametrize("size", [(32, 48), (3, 40), (2, 2)])
def test_erased_boxes_are_timms(monkeypatch, size):
    """Both draw from one generator, in the same order."""
    boxes = 0
    for i in range(100):
        ours = erased_box(size, generator(i), 0.5)
        rng = generator(i)
        same = SimpleNamespace(
            random=rng.random, uniform=rng.uniform, randint=lambda a, b, rng=rng: rng.integers(a, b + 1)
        )
        monkeypatch.setattr(timm.data.random_erasing, "random", same)
        erase = timm.data.random_erasing.RandomErasing(0.5, mode="pixel", device="cpu")
        erased = erase(torch.full((1, *size), torch.inf))[0].isfinite()
        expected = torch.zeros(size, dtype=torch.bool)
        if ours:
            top, left, h, w = ours
            expected[top : top + h, left : left + w] = True
            boxes += 1
        assert erased.equal(expected)
    assert boxes > 20 or size != (32, 48)


@pytest.mark.parametrize("channels", [1, 3])
def test_erased_pixels_are_standard_normal_after_normalisation(channels):
    mean, std = (0.5, 0.4, 0.45)[:channels], (0.1, 0.08, 0.09)[:channels]
    image = torch.zeros(channels, 200, 200, dtype=torch.uint8)
    erased = random_erasing(image, mean, std, generator(0), probability=1.0)
    assert erased.dtype == torch.uint8
    assert image.eq(0).all()
    top, left, h, w = erased_box((200, 200), generator(0), 1.0)
    noise = normalize(erased[None], mean, std)[0, :, top : top + h, left : left + w].flatten(1)
    assert noise.mean(1).abs().max() < 0.05
    assert (noise.std(1) - 1).abs().max() < 0.05
    rest = erased.clone()
    rest[:, top : top + h, left : left + w] = 0
    assert rest.eq(0).all()


def test_erasing_of_other_scales_and_channels():
    image = torch.full((10, 40, 40), 7.0)
    erased = random_erasing(image, (1000.0,) * 10, (50.0,) * 10, generator(3), probability=1.0)
    noise = erased[erased != 7]
    assert noise.mean().item() == pytest.approx(1000, rel=0.02)
    assert noise.std().item() == pytest.approx(50, rel=0.1)


def test_erasing_happens_as_often_as_asked():
    image = torch.zeros(1, 16, 16, dtype=torch.uint8)
    erased = sum(random_erasing(image, (0.5,), (0.2,), generator(i)) is not image for i in range(800))
    assert 150 < erased < 250
