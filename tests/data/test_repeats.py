"""Several samples of each decoded image."""

import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest

import unmask
from conftest import photograph
from data.test_loader import IMAGE, PATCHES, PLAN, TRAINING, batches, flatten, samples_of
from faults.test_resume import assert_same_run, signal_at
from tests_support import CPU, facts, image_spec, resolved, spec_for
from unmask.config.classify import Augment, LabelledData
from unmask.config.commands import FinetuneConfig, PretrainConfig, PretrainData
from unmask.config.image import PixelFormat
from unmask.config.resolve import resolve
from unmask.config.settings import Optim
from unmask.data.decode import jpeg
from unmask.data.decode.files import open_file
from unmask.data.decode.jpeg import JpegPicture
from unmask.data.decode.pictures import ReusedPicture
from unmask.data.decode.pillow import PillowPicture
from unmask.data.sampler import SampleKey, generator, sample_at
from unmask.data.sources.find import find_images
from unmask.data.transforms import random_crop
from unmask.errors import Interrupted
from unmask.models.classifier_spec import ClassifierSpec
from unmask.tasks.labelled import check_mixing

pytestmark = pytest.mark.usefixtures("blank_charts")

WANTED = IMAGE.pixels()
TWICE = replace(PLAN, repeats=2)
KEYS = [SampleKey(0, 3, 0), SampleKey(0, 3, 1), SampleKey(0, 5, 0), SampleKey(1, 5, 0)]


def same(one, other) -> bool:
    pairs = zip(one.content, other.content, strict=True)
    return all(a.equal(b) for a, b in pairs) and one.image == other.image


def decoded(monkeypatch) -> list[str]:
    """What is decoded from now on."""
    names: list[str] = []
    for kind in (PillowPicture, JpegPicture):
        monkeypatch.setattr(kind, "pixels", counting(kind.pixels, names))
    return names


def counting(pixels, names):
    return lambda self, *rest: (names.append(self.kind), pixels(self, *rest))[1]


def test_an_epoch_has_each_image_with_all_its_repeats():
    keys = [sample_at(p, 5, seed=0, repeats=3) for p in range(30)]
    assert keys[:3] == [SampleKey(0, keys[0].image, repeat) for repeat in range(3)]
    for epoch in (0, 1):
        counted = sorted((k.image, k.repeat) for k in keys if k.epoch == epoch)
        assert counted == [(image, repeat) for image in range(5) for repeat in range(3)]
    once = [sample_at(p, 5, seed=0).image for p in range(10)]
    assert [key.image for key in keys[::3]] == once, "images come in the order of a run without repeats"


def test_an_image_is_decoded_once(photos, monkeypatch):
    images = find_images((str(photos),))
    samples, keys = samples_of(images, TWICE), [*KEYS, SampleKey(1, 5, 1), SampleKey(1, 0, 1)]
    names = decoded(monkeypatch)
    together = samples.__getitems__(keys)
    expected = [".jpg" if "JPEG" in name else ".png" for name in names]
    assert expected == [images.paths[i][-4:] for i in (3, 5, 5, 0)], "once an epoch"
    assert {".jpg", ".png"} == set(expected)
    assert all(same(a, samples[key]) for a, key in zip(together, keys, strict=True))
    pairs = zip(together[0].content, together[1].content, strict=True)
    assert not any(a.equal(b) for a, b in pairs)


@pytest.mark.parametrize("keep", [False, True])
def test_the_first_repeat_is_the_sample_of_a_run_without(photos, keep):
    images = find_images((str(photos),))
    plain = samples_of(images, PLAN)
    repeated = samples_of(images, replace(TWICE, keep_decoded=keep))
    for _ in range(2):  # kept images are taken from memory at the second look
        for key, sample in zip(KEYS, repeated.__getitems__(KEYS), strict=True):
            assert same(sample, plain[SampleKey(*key[:2])]) is (key.repeat == 0)


@pytest.mark.parametrize("seed", [0, 2**40])
def test_samples_of_earlier_runs_hold(photos, seed):
    """Without repeats all is drawn from a generator of (seed, epoch, image)."""
    images, rng = find_images((str(photos),)), generator(seed, 1, 5)
    crop = images.take(5, WANTED, lambda p: random_crop(p, WANTED, (16, 24), (0.2, 1.0), True, rng))
    sample = samples_of(images, replace(TWICE, seed=seed))[SampleKey(1, 5)]
    assert sample.content[0].equal(crop)
    assert np.array_equal(sample.content[1], rng.random(PATCHES, dtype=np.float32))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_large_images_are_decoded_as_each_crop_needs_it(tmp_path, monkeypatch, kind, fast):
    """Crops of a decoded picture that is used again are those of one that is not."""
    if not fast:
        monkeypatch.setattr(jpeg, "simplejpeg", None)
    path = str(tmp_path / f"large.{kind}")
    photograph(0, 640, 900).save(path)
    wanted, crops, decoded = PixelFormat(channels=3), [], []

    def crop(picture, i):
        return random_crop(picture, wanted, (96, 96), (0.02, 1.0), True, generator(i))

    with open_file(path) as picture:
        reused = ReusedPicture(picture, lambda: (decoded.append(1), open_file(path))[1])
        crops = [crop(reused, i) for i in range(40)]
    for i, taken in enumerate(crops):
        with open_file(path) as picture:
            assert taken.equal(crop(picture, i))
    assert len(decoded) == (2 if kind == "jpg" else 0), "after the first, of three sizes"


def test_division_changes_nothing(photos, tmp_path):
    """Workers, micro-batches and processes."""
    expected = flatten(batches(photos, tmp_path, TWICE).from_step(1))
    assert expected[2].tolist()[::2] == expected[2].tolist()[1::2]
    for plan, micro in ((replace(TWICE, workers=2), 2), (TWICE, 3)):
        training = replace(TRAINING, micro_batch=micro)
        got = flatten(batches(photos, tmp_path, plan, training).from_step(1))
        assert all(a.equal(b) for a, b in zip(expected, got, strict=True))
    half = replace(TRAINING, batch=8, process_batch=4, micro_batch=4)
    whole = replace(half, process_batch=8, micro_batch=8)
    parts = [list(batches(photos, tmp_path, TWICE, half, rank=r).from_step(0)) for r in (0, 1)]
    together = flatten([[*a, *b] for a, b in zip(*parts, strict=True)])
    alone = flatten(batches(photos, tmp_path, TWICE, whole).from_step(0))
    assert all(a.equal(b) for a, b in zip(together, alone, strict=True))


def test_a_broken_image_is_replaced_with_all_its_repeats(photos, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(photos, folder)
    images = find_images((str(folder),))
    path = images.paths[3]
    open(path, "wb").close()
    for plan in (PLAN, TWICE):
        samples = samples_of(images, plan)
        first, second, *_ = samples.__getitems__(KEYS)
        assert first.image == second.image != 3
        assert [bad.path for bad in first.bad] == [path]
        assert not first.content[0].equal(second.content[0])
        assert same(first, samples_of(images, PLAN)[KEYS[0]])


def test_a_stopped_run_goes_on_bit_for_bit(tiny, tmp_path, monkeypatch):
    tiny = replace(tiny, data=replace(tiny.data, repeats=2))
    whole = unmask.pretrain(replace(tiny, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        with pytest.raises(Interrupted):
            unmask.pretrain(tiny)
    assert_same_run(unmask.pretrain(tiny), whole)


def asked(repeats: int, batch: int, micro: int | None = None, **optim) -> PretrainConfig:
    return PretrainConfig(
        data=PretrainData(repeats=repeats),
        optim=Optim(batch=batch, micro_batch=micro, warmup_epochs=0, **optim),
    )


def test_an_epoch_decodes_each_image_once():
    plan = resolved(asked(4, 64, epochs=3), images=1000)
    assert plan.training.steps_per_epoch == 1000 * 4 / 64
    assert plan.training.steps == 188
    assert plan.loading.repeats == 4
    assert "each image is decoded once an epoch and gives 4 samples: an epoch has 4000" in plan.notes
    assert resolved(asked(1, 64), images=1000).training.steps_per_epoch == 1000 / 64


@pytest.mark.parametrize(
    ("config", "images", "processes", "says"),
    [
        (asked(4, 66), 1000, 1, "^4 repeats do not divide .* 66: .*batch 64 or 68"),
        (asked(4, 20), 1000, 2, "2 processes and 4 repeats .* 20: choose --optim.batch 16 or 24"),
        (asked(8, 4), 1000, 1, "choose --optim.batch 8"),
        (asked(3, 12, 4), 1000, 1, "a micro-batch of 4 would split the 3 repeats .*micro-batch 3 or 6"),
        (asked(3, 36), 10, 1, "a batch of 36 is more than the 10 training images with 3 .*batch 24"),
        (asked(0, 36), 10, 1, "--data.repeats is 0 and must be between 1"),
    ],
)
def test_what_does_not_fit_is_refused(config, images, processes, says):
    with pytest.raises(ValueError, match=says):
        resolved(config, images=images, world_size=processes)


@pytest.mark.parametrize(
    ("repeats", "batch", "micro", "expected"),
    [(3, 300, None, 126), (200, 400, None, 200), (2, 64, None, 64), (3, 12, 13, 12), (1, 12, 5, 5)],
)
def test_micro_batches_hold_whole_repeats(repeats, batch, micro, expected):
    device = "cuda" if micro is None else "cpu"
    plan = resolved(asked(repeats, batch, micro), images=1000, device=device)
    assert plan.training.micro_batch == expected


def test_neighbours_that_are_mixed_are_different_images():
    def check(augment):
        data, optim = LabelledData(repeats=2), replace(FinetuneConfig().optim, batch=8)
        config = FinetuneConfig(data=data, optim=optim, augment=augment)
        model = ClassifierSpec(encoder=spec_for(asked(1, 64)).encoder, classes=("a", "b"), pool="mean")
        seen = image_spec(model.encoder.image_size)
        plan = resolve(config, model=model, image=seen, facts=facts(1000), machine=CPU, world_size=1)
        check_mixing(config, plan)
        return plan

    with pytest.raises(ValueError, match=r"crops of one image if --data.repeats is 2.*mixup 0"):
        check(Augment())
    assert check(Augment(mixup=0, cutmix=0)).loading.repeats == 2
