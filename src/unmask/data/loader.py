"""From samples to the batches of each step."""

from collections.abc import Callable, Generator
from contextlib import closing
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unmask.config.image import ImageSpec
from unmask.config.plan import LoadingPlan, TrainingPlan
from unmask.data.bad_images import BadImageLog
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.sampler import MicroBatchSampler
from unmask.data.samples import Sample, Samples, TrainingSamples
from unmask.data.workers import Say, load, never, silent

VALUE_BYTES = {"uint8": 1, "float32": 4}
UNRESIZED = 4
"""Assumed size of a sample relative to what the model sees: masks, maps, unresized crops."""


class Batch(NamedTuple):
    """A micro-batch: what the task's samples were collated to, and which images these are."""

    content: Any
    samples: Tensor
    """int64 [B]: indices among the training images."""
    bad: list[BadImage]
    step: int = 0
    first: int = 0
    """Where these samples begin in the step's batch over all processes."""


class Batches:
    """Steps of micro-batches, from any step on."""

    def __init__(
        self,
        images: Images,
        samples: Samples,
        image: ImageSpec,
        *,
        loading: LoadingPlan,
        training: TrainingPlan,
        rank: int,
        bad_images: BadImageLog,
        say: Say = silent,
    ):
        """`say` hears of too little shared memory."""
        self.say = say
        self.samples = TrainingSamples(images, samples, image, loading)
        self.loading, self.training, self.rank, self.bad_images = loading, training, rank, bad_images

    def from_step(
        self, start: int, stopping: Callable[[], bool] = never
    ) -> Generator[list[Batch], None, None]:
        """The micro-batches of each step from `start` to the end of the run.

        Raises DataError; soon, if the next batch is late and `stopping` says that a signal came.
        """
        t = self.training
        sampler = self.sampler(range(start, t.steps))
        batches = load(
            self.samples,
            batch_sampler=sampler,
            workers=self.loading.workers,
            collate=self.collate,
            batch_bytes=UNRESIZED * t.micro_batch * crop_bytes(self.samples.image),
            timeout=self.loading.timeout,
            stopping=stopping,
            say=self.say,
            pin_memory=t.device == "cuda",
        )
        with closing(batches):  # an early end takes the workers with it
            for step in sampler.steps:
                firsts = accumulate(sampler.sizes[:-1], initial=sampler.first)
                micro_batches = [next(batches)._replace(step=step, first=first) for first in firsts]
                self.bad_images.add([bad for batch in micro_batches for bad in batch.bad])
                yield micro_batches

    def sampler(self, steps: range) -> MicroBatchSampler:
        """Which samples these steps take."""
        t = self.training
        return MicroBatchSampler(
            images=len(self.samples.images),
            seed=self.loading.seed,
            batch=t.batch,
            process_batch=t.process_batch,
            micro_batch=t.micro_batch,
            rank=self.rank,
            steps=steps,
            repeats=self.loading.repeats,
        )

    def collate(self, samples: list[Sample]) -> Batch:
        """Stacks samples as the task does."""
        return Batch(
            self.samples.samples.collate([s.content for s in samples]),
            torch.tensor([s.image for s in samples]),
            [bad for s in samples for bad in s.bad],
        )


def crop_bytes(image: ImageSpec) -> int:
    """Bytes of one image as a model sees it."""
    return image.channels * image.size[0] * image.size[1] * VALUE_BYTES[image.dtype]
