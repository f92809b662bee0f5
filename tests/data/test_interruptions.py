"""Faults 1 to 3 as properties: whatever interrupts a run, and however it goes on, it sees the same."""

from collections import Counter
from contextlib import closing, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests_support import resolved
from unmask.config.commands import PretrainConfig
from unmask.config.plan import Plan
from unmask.data.bad_images import BadImageLog
from unmask.data.images import Images
from unmask.data.loader import Batches
from unmask.data.paths import PathList
from unmask.data.transforms import ReducedPicture


class Part(NamedTuple):
    """What one command does until it is interrupted, or the run ends."""

    steps: int
    lost: int
    """Steps since its newest checkpoint, which the next command takes again."""
    processes: int
    micro_batch: int
    workers: int


class Seen:
    """Samples that say what they are, and what was drawn for them. See `data.samples.Samples`."""

    def sample(self, picture, key, rng):
        return (*key, int(picture.decoded), rng.random())

    def share(self, image_size):
        return 1.0

    def collate(self, samples):
        return samples


def opened(name, reading):
    return nullcontext(ReducedPicture(torch.tensor(int(name), dtype=torch.uint8).view(1, 1, 1), (1, 1)))


def settings_of(*, repeats: int, batch: int, steps: int, seed: int) -> PretrainConfig:
    config = PretrainConfig()
    return replace(
        config,
        data=replace(config.data, repeats=repeats),
        optim=replace(config.optim, batch=batch, steps=steps, warmup_steps=0),
        run=replace(config.run, seed=seed),
    )


NONE = st.just(0)


@st.composite
def interrupted(draw, workers=NONE) -> tuple[PretrainConfig, int, list[Part]]:
    """Settings, a number of images, and the parts of a run."""
    images, repeats = draw(st.integers(1, 24)), draw(st.integers(1, 3))
    batch = repeats * draw(st.integers(1, images))
    steps = draw(st.integers(1, 3 * images * repeats // batch + 1))
    seed = draw(st.integers(0, 2**32 - 1))
    config = settings_of(repeats=repeats, batch=batch, steps=steps, seed=seed)
    sizes = [n for n in range(1, batch // repeats + 1) if batch % (n * repeats) == 0]
    parts = st.builds(
        Part,
        steps=st.integers(0, steps),
        lost=st.integers(0, 3),
        processes=st.sampled_from(sizes),
        micro_batch=st.integers(1, batch // repeats).map(lambda n: n * repeats),
        workers=workers,
    )
    return config, images, draw(st.lists(parts, max_size=4))


def plan_of(config: PretrainConfig, images: int, part: Part) -> Plan:
    asked = replace(
        config,
        data=replace(config.data, workers=part.workers),
        optim=replace(config.optim, micro_batch=part.micro_batch),
    )
    return resolved(asked, images, world_size=part.processes)


def seen(plan: Plan, images: int, start: int, stop: int) -> list[list[tuple]]:
    """The global batch of each step: what all processes see, one behind another."""
    found = [list[tuple]() for _ in range(start, stop)]
    for rank in range(plan.processes):
        batches = Batches(
            Images("test", PathList([str(i) for i in range(images)]), opener=opened),
            Seen(),
            plan.image,
            loading=plan.loading,
            training=plan.training,
            rank=rank,
            bad_images=BadImageLog(Path("never written"), images=images, max_share=0.0),
        )
        with closing(batches.from_step(start)) as steps:
            for step in range(start, stop):
                found[step - start] += chain.from_iterable(batch.content for batch in next(steps))
    return found


def check(config: PretrainConfig, images: int, parts: list[Part]) -> None:
    steps, batch, repeats = config.optim.steps, config.optim.batch, config.data.repeats
    whole = Part(steps, 0, processes=1, micro_batch=batch, workers=0)
    expected = seen(plan_of(config, images, whole), images, 0, steps)
    found: list[list[tuple]] = []
    for part in (*parts, whole):
        start = len(found)
        found += seen(plan_of(config, images, part), images, start, min(steps, start + part.steps))
        del found[max(start, len(found) - part.lost) :]
    assert found == expected
    times = Counter((epoch, image) for epoch, image, *_ in chain.from_iterable(found))
    for epoch in range(steps * batch // (images * repeats)):
        assert [times[epoch, image] for image in range(images)] == [repeats] * images
    assert max(times.values()) <= repeats
    assert all(image == decoded for _, image, _, decoded, _ in chain.from_iterable(found))


@settings(max_examples=60)
@given(interrupted())
def test_01_any_interruptions_change_nothing(run):
    """Any seed, numbers of images and of processes, batches, repeats, and series of interruptions."""
    check(*run)


SURELY_INTERRUPTED = [
    Part(steps=2, lost=1, processes=2, micro_batch=2, workers=1),
    Part(steps=2, lost=0, processes=1, micro_batch=4, workers=2),
]
"""Few examples are tried, and some of them lose all that loader processes do."""


@pytest.mark.slow
@settings(max_examples=8)
@example((settings_of(repeats=2, batch=4, steps=5, seed=3), 5, SURELY_INTERRUPTED))
@given(interrupted(workers=st.integers(0, 2)))
def test_02_any_interruptions_and_loader_processes_change_nothing(run):
    check(*run)
