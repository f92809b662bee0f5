"""Batches: the same samples for any number of workers; bad files replaced and written down."""

import fcntl
import json
import os
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch

from faults_support import started
from tests_support import image_spec
from unmask.config.plan import LoadingPlan, TrainingPlan
from unmask.data.bad_images import BadImageLog
from unmask.data.crops import pack
from unmask.data.decode.files import open_file
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.loader import Batches
from unmask.data.paths import PathList
from unmask.data.sampler import SampleKey
from unmask.data.samples import TrainingSamples
from unmask.data.sources.find import find_images
from unmask.data.transforms import random_crop, share_for_crops
from unmask.errors import DataError

IMAGE, PATCHES = image_spec((16, 24)), 24
PLAN = LoadingPlan(
    seed=0, repeats=1, workers=0, keep_decoded=False, timeout=300.0, max_bad_share=0.2,
    max_megapixels=1,
)  # fmt: skip
TRAINING = TrainingPlan(
    device="cpu", precision="fp32", compile=False, activation_checkpointing=False, seed=0, steps=5,
    warmup_steps=1, steps_per_epoch=4.0, batch=6, process_batch=6, micro_batch=4, lr=0.1,
    weight_decay=0.05, betas=(0.9, 0.95), clip=None, ema=None, log_every=1, evaluate_every=1,
    sample_every=1, checkpoint_every=1, keep_checkpoints=2,
)  # fmt: skip


class Crops:
    """See `data.samples.Samples`: a crop and noise."""

    def __init__(self, resize: bool = True):
        self.resize = resize

    def sample(self, picture, key, rng):
        wanted, scale = IMAGE.pixels(), (0.2, 1.0)
        crop = random_crop(picture, wanted, IMAGE.size, scale, True, rng, resize=self.resize)
        return crop, torch.from_numpy(rng.random(PATCHES, dtype="float32"))

    def share(self, image_size):
        return share_for_crops(image_size, IMAGE.size, (0.2, 1.0))

    def collate(self, samples):
        crops, noise = zip(*samples, strict=True)
        return pack(list(crops)), torch.stack(noise)


def samples_of(images, plan=PLAN) -> TrainingSamples:
    return TrainingSamples(images, Crops(), IMAGE, plan)


def batches(folder, tmp_path, plan=PLAN, training=TRAINING, rank=0, resize=True) -> Batches:
    images = find_images((str(folder),))
    log = BadImageLog(tmp_path / "bad_images.jsonl", images=len(images), max_share=plan.max_bad_share)
    how = {"loading": plan, "training": training, "rank": rank, "bad_images": log}
    return Batches(images, Crops(resize), IMAGE, **how)


def flatten(steps) -> tuple:
    """Images, noise, and which images these are."""
    micro = [batch for step in steps for batch in step]
    return tuple(map(torch.cat, zip(*((*b.content, b.samples) for b in micro), strict=True)))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("keep", [False, True])
def test_workers_and_cache_change_nothing(photos, tmp_path, workers, keep):
    expected = flatten(batches(photos, tmp_path).from_step(2))
    plan = replace(PLAN, workers=workers, keep_decoded=keep)
    got = flatten(batches(photos, tmp_path, plan).from_step(2))
    assert all(a.equal(b) for a, b in zip(expected, got, strict=True))


def test_processes_share_the_global_batch(photos, tmp_path):
    whole = flatten(batches(photos, tmp_path).from_step(0))
    half = replace(TRAINING, process_batch=3, micro_batch=3)
    parts = [list(batches(photos, tmp_path, training=half, rank=r).from_step(0)) for r in (0, 1)]
    together = [[*a, *b] for a, b in zip(*parts, strict=True)]
    assert all(a.equal(b) for a, b in zip(whole, flatten(together), strict=True))


def test_samples_change_with_epoch_and_image(photos):
    samples = samples_of(find_images((str(photos),)))
    noises = {tuple(samples[SampleKey(e, i)].content[1].tolist()) for e in (0, 1) for i in (0, 1)}
    assert len(noises) == 4
    _, noise = samples[SampleKey(0, 0)].content
    assert noise.dtype == torch.float32
    assert (noise >= 0).all()
    assert (noise < 1).all()


def test_17_bad_files_are_replaced_the_same_way_each_time(photos, tmp_path):
    folder, names = tmp_path / "mixed", ["a.png", "b.jpg", "c.png", "d.jpg", "e.png"]
    shutil.copytree(photos, folder)
    for name in names:
        (folder / name).write_bytes(b"not an image")
    first = flatten(batches(folder, tmp_path).from_step(0))
    log = [json.loads(line) for line in (tmp_path / "bad_images.jsonl").read_text().splitlines()]
    assert sorted(entry["path"][-5:] for entry in log) == names
    again = flatten(batches(folder, tmp_path, replace(PLAN, workers=2)).from_step(0))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert len((tmp_path / "bad_images.jsonl").read_text().splitlines()) == len(names)


def test_17_a_bad_file_is_opened_once(photos, tmp_path):
    """By each process: a storage that does not answer would cost its time in every epoch."""
    (tmp_path / "bad.png").write_bytes(b"not an image")
    paths, opened = [str(tmp_path / "bad.png"), *find_images((str(photos),)).paths], list[str]()

    def opener(name, reading):
        opened.append(name)
        return open_file(name, reading)

    samples = samples_of(Images("mixed", PathList(paths), opener=opener))
    for epoch in range(3):
        assert [bad.path for bad in samples[SampleKey(epoch, 0)].bad] == paths[:1]
    assert opened.count(paths[0]) == 1


@pytest.mark.timeout(20)
def test_17_a_replacement_is_not_sought_without_end(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"not an image")
    samples = samples_of(find_images((str(tmp_path),)))
    with pytest.raises(DataError, match=r"4 images in a row cannot be read, the first is .*a\.png"):
        samples[SampleKey(0, 0)]


def test_17_too_many_bad_files_stop_the_run(photos, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(photos, folder)
    for i in range(12):
        (folder / f"bad{i}.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"more than --data.max-bad-share 0.2.*bad\d+.png"):
        list(batches(folder, tmp_path).from_step(0))


@pytest.mark.parametrize("rest", ["", '\n{"path": "b.p'])
def test_17_list_of_bad_files_cut_short_by_a_kill(tmp_path, rest):
    file = tmp_path / "bad_images.jsonl"
    file.write_text('{"path": "a.png", "reason": "x"}' + rest)
    log = BadImageLog(file, images=100, max_share=0.5)
    assert log.known == {"a.png"}
    log.add([BadImage("c.png", "y")])
    assert [json.loads(line)["path"] for line in file.read_text().splitlines()] == ["a.png", "c.png"]


def test_17_processes_count_together(tmp_path):
    """What one process of a run has met is not written again by another, and counts there too."""
    file = tmp_path / "bad_images.jsonl"
    one, two = (BadImageLog(file, images=4, max_share=0.5) for _ in range(2))
    one.add([BadImage("a.png", "x")])
    two.add([BadImage("a.png", "x"), BadImage("b.png", "x")])
    assert [json.loads(line)["path"] for line in file.read_text().splitlines()] == ["a.png", "b.png"]
    one.add([])
    assert one.known == {"a.png", "b.png"}
    with pytest.raises(DataError, match="3 of 4 images cannot be read"):
        two.add([BadImage("c.png", "x")])
    with pytest.raises(DataError, match="3 of 4 images cannot be read"):
        one.add([])


def test_17_processes_wait_for_each_other(tmp_path):
    """Otherwise two that meet a file at the same time would both write it down."""
    file = tmp_path / "bad_images.jsonl"
    (ready, is_ready), line = os.pipe(), b'{"path": "a.png", "reason": "x"}\n'

    def other() -> None:
        with file.open("ab") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            os.write(is_ready, b".")
            time.sleep(0.3)
            held.write(line)

    child = started(other)
    assert os.read(ready, 1)
    BadImageLog(file, images=4, max_share=1).add([BadImage("a.png", "x")])
    assert os.waitpid(child, 0)[1] == 0
    assert file.read_bytes() == line
    os.close(ready)
    os.close(is_ready)


def test_17_parts_are_counted_apart(tmp_path):
    def log(**part):
        return BadImageLog(tmp_path / "bad_images.jsonl", images=2, max_share=0.5, **part)

    log(part="validation").add([BadImage("a.png", "x")])
    log().add([BadImage("b.png", "x")])
    assert (log().known, log(part="validation").known) == ({"b.png"}, {"a.png"})
    with pytest.raises(DataError, match="2 of 2 validation images cannot be read"):
        log(part="validation").add([BadImage("c.png", "x")])


@pytest.fixture
def no_news_of_children():
    """Torch raises wherever the program happens to be when a worker's death is reported to it."""
    before = signal.getsignal(signal.SIGCHLD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


def test_21_killed_worker_is_an_error_that_names_the_cause(
    children, photos, tmp_path, no_news_of_children
):
    plan, longer = replace(PLAN, workers=1), replace(TRAINING, steps=500)
    next(batches(photos, tmp_path, plan).from_step(4))  # torch sets its handler once
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    steps = batches(photos, tmp_path, plan, longer).from_step(0)
    next(steps)
    os.kill(children()[0], signal.SIGKILL)
    with pytest.raises(DataError, match="/dev/shm"):
        list(steps)


def test_10_worker_goes_on_after_the_signals_of_a_group(children, photos, tmp_path):
    steps = batches(photos, tmp_path, replace(PLAN, workers=1)).from_step(0)
    first = next(steps)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(children()[0], number)
    rest = list(steps)
    assert len([first, *rest]) == 5
