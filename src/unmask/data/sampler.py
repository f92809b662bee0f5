"""Which sample comes when: pure functions of (seed, position), with nothing to save or restore."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class SampleKey(NamedTuple):
    """One sample: a pass over the data, an image in it, and which of its repeats."""

    epoch: int
    image: int
    repeat: int = 0


def generator(*key: int) -> np.random.Generator:
    """A generator of its own for everything that one key decides."""
    return np.random.default_rng(key)


@lru_cache(maxsize=2)
def order_of(epoch: int, images: int, seed: int) -> np.ndarray:
    """The order of one epoch: a permutation of the images."""
    return generator(seed, epoch).permutation(images)


def sample_at(position: int, images: int, seed: int, repeats: int = 1) -> SampleKey:
    """The sample at a position in the endless sequence of epochs.

    Batches are cut from this sequence without regard to where an epoch ends, so that every batch
    is full and every image comes exactly once per epoch, with all its repeats one behind another.
    """
    position, repeat = divmod(position, repeats)
    epoch, place = divmod(position, images)
    return SampleKey(epoch, int(order_of(epoch, images, seed)[place]), repeat)


def micro_batch_sizes(process_batch: int, micro_batch: int) -> list[int]:
    """Sizes that add up to the batch exactly; the last may be smaller."""
    whole, rest = divmod(process_batch, micro_batch)
    return [micro_batch] * whole + [rest] * (rest > 0)


class MicroBatchSampler:
    """The keys of each micro-batch of one process, step after step."""

    def __init__(
        self,
        *,
        images: int,
        seed: int,
        batch: int,
        process_batch: int,
        micro_batch: int,
        rank: int,
        steps: range,
        repeats: int = 1,
    ):
        self.images, self.seed, self.batch, self.repeats = images, seed, batch, repeats
        self.first = rank * process_batch
        self.sizes = micro_batch_sizes(process_batch, micro_batch)
        self.steps = steps

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in self.steps:
            position = step * self.batch + self.first
            for size in self.sizes:
                places = range(position, position + size)
                yield [sample_at(p, self.images, self.seed, self.repeats) for p in places]
                position += size

    def __len__(self) -> int:
        return len(self.steps) * len(self.sizes)
