"""A run says whether reading or arithmetic was slower, and what helps."""

import pytest

from tests_support import resolved
from unmask.config.commands import PretrainConfig, PretrainData
from unmask.config.settings import Optim
from unmask.engine.pace import ENOUGH, Pace


def pace(*, images: int = 320, steps: int = 1000, start: int = 0, workers: int = 1) -> Pace:
    config = PretrainConfig(
        optim=Optim(steps=steps, warmup_steps=1, batch=32), data=PretrainData(workers=workers)
    )
    return Pace(resolved(config, images=images, cores=2), start)


def record(step: int, data_wait: float, images_per_second: float = 320.0) -> dict:
    return {"step": step, "data_wait": data_wait, "images_per_second": images_per_second}


def test_the_first_epoch_does_not_count():
    one = pace()
    one.add(record(10, 0.9))
    assert one.waiting is None
    assert one.sentence(at_end=True) is None
    one.add(record(20, 0.1))
    one.add(None)
    one.add(record(50, 0.02, images_per_second=960))
    assert one.waiting == pytest.approx((0.1 + 0.02) / 2), "one second of each"


def test_a_resumed_run_reads_everything_anew():
    one = pace(start=500)
    one.add(record(510, 0.9))
    assert one.waiting is None


def test_a_run_of_less_than_two_epochs_counts_from_its_second_record():
    one = pace(images=100_000, workers=0)
    one.add(record(1, 0.9))
    one.add(record(2, 0.5))
    one.add(record(3, 0.5))
    assert one.waiting == pytest.approx(0.5)


@pytest.mark.parametrize("images", [100_000, 32])
def test_the_start_of_the_loader_does_not_count(images):
    """Two processes have four batches ready: a short run may wait for all of these."""
    one = pace(images=images, steps=8, workers=2)
    for step in (1, 2, 3, 4):
        one.add(record(step, 0.9))
        assert one.waiting is None
    for step in (5, 6, 7, 8):
        one.add(record(step, 0.01))
    told = one.sentence(at_end=True)
    assert told is not None
    assert told.startswith("computation is the bottleneck")


def test_slow_reading_is_told_once_and_at_the_end():
    one = pace(images=10_000, steps=10_000)
    one.add(record(313, 0.9))
    one.add(record(313 + ENOUGH - 1, 0.5))
    assert one.sentence(at_end=False) is None
    one.add(record(313 + ENOUGH, 0.5))
    told = one.sentence(at_end=False)
    assert told is not None
    assert told.startswith("data loading is the bottleneck: 50% of the time")
    assert "--data.cache-gib" in told
    assert "--data.workers 2 in place of 1" in told
    assert one.sentence(at_end=False) is None
    assert one.sentence(at_end=True) == told


def test_a_run_that_waits_for_nothing_says_what_makes_it_faster():
    one = pace()
    for step in (10, 20):
        one.add(record(step, 0.02))
    assert one.sentence(at_end=False) is None
    told = one.sentence(at_end=True)
    assert told is not None
    assert told.startswith("computation is the bottleneck: 2% of the time")
    assert "a GPU" in told
