"""Order and batches as pure functions of the position."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unmask.data.sampler import MicroBatchSampler, micro_batch_sizes, sample_at

counts = st.integers(1, 40)


@given(images=counts, epochs=st.integers(1, 3), seed=st.integers(0, 5))
def test_each_image_once_per_epoch(images, epochs, seed):
    keys = [sample_at(p, images, seed) for p in range(images * epochs)]
    for epoch in range(epochs):
        assert sorted(k.image for k in keys if k.epoch == epoch) == list(range(images))


def test_epochs_and_seeds_differ():
    orders = {
        tuple(sample_at(e * 50 + i, 50, seed).image for i in range(50))
        for e in (0, 1)
        for seed in (0, 1)
    }
    assert len(orders) == 4


@given(batch=counts, micro=counts)
def test_micro_batches_lose_no_remainder(batch, micro):
    sizes = micro_batch_sizes(batch, micro)
    assert sum(sizes) == batch
    assert all(0 < size <= micro for size in sizes)


def keys(processes: int, micro: int, start: int) -> list[list]:
    """The global batches of steps `start` to 4, however they are divided."""
    batch, per_process = 12, 12 // processes
    parts = []
    for rank in range(processes):
        sampler = MicroBatchSampler(
            images=17,
            seed=3,
            batch=batch,
            process_batch=per_process,
            micro_batch=min(micro, per_process),
            rank=rank,
            steps=range(start, 5),
        )
        flat = [key for micro_batch in sampler for key in micro_batch]
        parts.append([flat[i : i + per_process] for i in range(0, len(flat), per_process)])
    return [[key for part in step for key in part] for step in zip(*parts, strict=True)]


def test_division_changes_no_global_batch():
    expected = keys(processes=1, micro=12, start=0)
    for processes, micro in [(1, 5), (2, 6), (2, 4), (3, 1)]:
        assert keys(processes, micro, start=0) == expected
        assert keys(processes, micro, start=3) == expected[3:]


def test_order_is_not_the_folder_order():
    assert not np.array_equal([sample_at(p, 30, 0).image for p in range(30)], np.arange(30))
