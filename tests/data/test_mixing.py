"""Mixup and cutmix are timm's, with another partner; how a batch is divided changes nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm.data.mixup
import torch

from unmask.data.mixing import Mix, draw_mix, mix, mixed_targets
from unmask.data.sampler import generator

SIZE = (24, 36)
MIXUP, CUTMIX = Mix(share=0.3), Mix(share=1 - 10 * 12 / (24 * 36), box=(3, 5, 10, 12))


def batch(images: int) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    return torch.randn(images, 3, *SIZE, generator=made), torch.randint(7, (images,), generator=made)


def timm_drawing_from(rng: np.random.Generator, monkeypatch) -> None:
    first = iter([0.0])  # whether to mix at all, which we do not ask
    draws = SimpleNamespace(
        rand=lambda: next(first, None) if first.__length_hint__() else rng.random(),
        beta=rng.beta,
        randint=lambda low, high, size: rng.integers(low, high),
    )
    same = SimpleNamespace(random=draws, sqrt=np.sqrt, clip=np.clip)
    monkeypatch.setattr(timm.data.mixup, "np", same)


@pytest.mark.parametrize("options", [{}, {"mixup": 0.0}, {"cutmix": 0.0}, {"mixup": 0.4, "switch": 0.2}])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_timm_with_the_same_draws(monkeypatch, options, smoothing):
    """timm's partner is the mirror image: in this order it is the one that is ours."""
    images, labels = batch(8)
    order = torch.tensor([0, 2, 4, 6, 7, 5, 3, 1])
    asked = {"mixup": 0.8, "cutmix": 1.0, "switch": 0.5, **options}
    kinds = set()
    for i in range(30):
        how = draw_mix(generator(i), SIZE, **asked)
        kinds.add(how.box is None)
        timm_drawing_from(generator(i), monkeypatch)
        theirs = timm.data.mixup.Mixup(
            mixup_alpha=asked["mixup"], cutmix_alpha=asked["cutmix"], switch_prob=asked["switch"],
            label_smoothing=smoothing, num_classes=7,
        )  # fmt: skip
        mixed, targets = theirs(images[order].clone(), labels[order])
        torch.testing.assert_close(mix(images, how)[order], mixed)
        torch.testing.assert_close(mixed_targets(labels, 7, how, smoothing)[order], targets)
    assert kinds == ({True, False} if all(asked.values()) else {bool(asked["mixup"])})


@pytest.mark.parametrize("how", [MIXUP, CUTMIX])
@pytest.mark.parametrize("parts", [(2, 6), (4, 4), (2, 2, 2, 2)])
def test_even_parts_give_the_same(how, parts):
    images, labels = batch(8)
    assert torch.cat([mix(part, how) for part in images.split(parts)]).equal(mix(images, how))
    targets = [mixed_targets(part, 7, how) for part in labels.split(parts)]
    assert torch.cat(targets).equal(mixed_targets(labels, 7, how))


@pytest.mark.parametrize("how", [MIXUP, CUTMIX])
@pytest.mark.parametrize("count", [1, 5])
def test_a_last_odd_one_stays_unmixed(how, count):
    images, labels = batch(count)
    mixed = mix(images, how)
    torch.testing.assert_close(mixed[-1], images[-1])
    assert all((mixed[i] != images[i]).any() for i in range(count - 1))
    unmixed = mixed_targets(labels, 7, Mix())
    torch.testing.assert_close(mixed_targets(labels, 7, how)[-1], unmixed[-1])


def test_shares_of_pixels_and_targets_agree():
    """Images of one colour each: the mean of a mixed image is its share of the target."""
    images = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1).expand(2, 1, *SIZE)
    for i in range(50):
        how = draw_mix(generator(i), SIZE)
        targets = mixed_targets(torch.tensor([1, 0]), 2, how, smoothing=0.0)
        torch.testing.assert_close(mix(images, how).mean(dim=(1, 2, 3)), targets[:, 1])
        torch.testing.assert_close(targets.sum(1), torch.ones(2))


def test_nothing_asked_mixes_nothing():
    images, labels = batch(4)
    how = draw_mix(generator(0), SIZE, mixup=0.0, cutmix=0.0)
    assert how == Mix()
    assert mix(images, how).equal(images)
    targets = mixed_targets(labels, 7, how, smoothing=0.1)
    expected = torch.nn.functional.one_hot(labels, 7) * 0.9 + 0.1 / 7
    torch.testing.assert_close(targets, expected)


def test_the_images_given_are_left_alone():
    images, _ = batch(4)
    before = images.clone()
    mix(images, CUTMIX), mix(images, MIXUP)
    assert images.equal(before)
