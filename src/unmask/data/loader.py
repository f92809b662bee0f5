"""From images to batches.

A sample is a pure function of (seed, epoch, index, repeat): its crop, its flip and the noise of its
mask do not depend on the number of workers, the process or the clock.
"""

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unmask.config.plan import DataPlan, PixelFormat, TrainingPlan
from unmask.core.patches import Size
from unmask.data.augment import rand_augment, random_erasing
from unmask.data.bad_images import BadImageLog, none_readable
from unmask.data.crops import Crops, pack
from unmask.data.decode.pictures import BadImage, DecodedPicture, Picture, ReusedPicture
from unmask.data.images import Images
from unmask.data.sampler import MicroBatchSampler, SampleKey, generator
from unmask.data.transforms import centre_crop, may_be_kept, random_crop
from unmask.errors import DataError

WORKER_TIMEOUT_SECONDS = 300
REPLACEMENT_TRIES = 100
SECONDS_AFTER_SIGTERM = 600
WORKER_IS_GONE = ("exited unexpectedly", "killed by signal", "timed out")


class Batch(NamedTuple):
    """`images` [B, C, H, W]; `noise` float32 [B, N]; `samples` int64 [B]: which training images."""

    images: Tensor | Crops
    noise: Tensor
    samples: Tensor
    bad: list[BadImage]
    step: int = 0
    first: int = 0
    """Where these samples begin in the step's batch over all processes."""


class Sample(NamedTuple):
    """One row of a batch, and the images that it had to pass over."""

    image: Tensor
    noise: Tensor
    number: int
    bad: list[BadImage]


class TrainingSamples(Dataset[Sample]):
    """Decodes, crops and draws mask noise for a key."""

    def __init__(self, images: Images, plan: DataPlan):
        self.images, self.plan = images, plan
        self._decoded: dict[int, Tensor] = {}
        self._known_bad: dict[int, BadImage] = {}

    def __getitem__(self, key: SampleKey) -> Sample:
        return self._samples([key])[0]

    def __getitems__(self, keys: list[SampleKey]) -> list[Sample]:
        """The samples of a micro-batch: an image whose repeats stand together is decoded once."""
        groups = groupby(keys, lambda key: key[:2])
        return [sample for _, group in groups for sample in self._samples(list(group))]

    def _samples(self, keys: list[SampleKey]) -> list[Sample]:
        """Of repeats of one image; where it is broken, of another that depends on these keys alone."""
        index, bad = keys[0].image, list[BadImage]()
        for _ in range(min(REPLACEMENT_TRIES, len(self.images) + 1)):
            drawn = self._draw(index, keys)
            if not isinstance(drawn, BadImage):
                return [Sample(*one, index, bad) for one in drawn]
            if not bad:
                replacements = generator(self.plan.seed, keys[0].image, REPLACEMENT_TRIES)
            bad.append(drawn)
            index = int(replacements.integers(len(self.images)))
        raise DataError(
            f"{len(bad)} images in a row cannot be read, the first is {bad[0].path} ({bad[0].reason}): "
            f"run `unmask check` on the folder and remove what it lists"
        )

    def _draw(self, index: int, keys: list[SampleKey]) -> list[tuple[Tensor, Tensor]] | BadImage:
        """Bad images are opened once per worker, and so are all where the plan says that they fit."""
        if index in self._known_bad:
            return self._known_bad[index]
        if index in self._decoded:
            kept = DecodedPicture(self._decoded[index])
            return [self._crop_and_noise(kept, key) for key in keys]

        def use(picture: Picture) -> list[tuple[Tensor, Tensor]]:
            if self.plan.keep_decoded and may_be_kept(picture, self.plan.image_size):
                self._decoded[index] = picture.pixels(self.plan.pixels)
                picture = DecodedPicture(self._decoded[index])
            elif len(keys) > 1:
                picture = ReusedPicture(
                    picture, lambda: self.images.open(index, self.plan.pixels.channels)
                )
            return [self._crop_and_noise(picture, key) for key in keys]

        drawn = self.images.take(index, self.plan.pixels, use)
        if isinstance(drawn, BadImage):
            self._known_bad[index] = drawn
        return drawn

    def _crop_and_noise(self, picture: Picture, key: SampleKey) -> tuple[Tensor, Tensor]:
        plan, rng = self.plan, generator(self.plan.seed, *(key if key.repeat else key[:2]))
        crop = random_crop(
            picture,
            plan.pixels,
            plan.image_size,
            plan.crop_scale,
            plan.flip,
            rng,
            resize=not plan.resize_on_device,
        )
        if plan.rand_augment:
            crop = rand_augment(crop, plan.mean, rng)
        if plan.erasing:
            crop = random_erasing(crop, plan.mean, plan.std, rng, plan.erasing)
        return crop, torch.from_numpy(rng.random(plan.noise_length, dtype=np.float32))


class Batches:
    """Steps of micro-batches, from any step on."""

    def __init__(
        self,
        images: Images,
        plan: DataPlan,
        training: TrainingPlan,
        *,
        rank: int,
        bad_images: BadImageLog,
    ):
        self.samples = TrainingSamples(images, plan)
        self.plan, self.training, self.rank, self.bad_images = plan, training, rank, bad_images

    def from_step(self, start: int) -> Generator[list[Batch], None, None]:
        """The micro-batches of each step from `start` to the end of the run."""
        t = self.training
        sampler = MicroBatchSampler(
            images=len(self.samples.images),
            seed=self.plan.seed,
            batch=t.batch,
            process_batch=t.process_batch,
            micro_batch=t.micro_batch,
            rank=self.rank,
            steps=range(start, t.steps),
            repeats=self.plan.repeats,
        )
        loader = _loader(
            self.samples,
            batch_sampler=sampler,
            workers=self.plan.workers,
            collate=collate,
            pin_memory=t.device == "cuda",
        )
        batches = _name_worker_failures(loader)
        with closing(batches):  # an early end takes the workers with it
            for step in sampler.steps:
                firsts = accumulate(sampler.sizes[:-1], initial=sampler.first)
                micro_batches = [next(batches)._replace(step=step, first=first) for first in firsts]
                self.bad_images.add([bad for batch in micro_batches for bad in batch.bad])
                yield micro_batches


def collate(samples: list[Sample]) -> Batch:
    """Stacks samples."""
    return Batch(
        pack([s.image for s in samples]),
        torch.stack([s.noise for s in samples]),
        torch.tensor([s.number for s in samples]),
        [bad for s in samples for bad in s.bad],
    )


class CentreCrops(Dataset[Tensor | BadImage]):
    """Each image's centre crop, or why it has none."""

    def __init__(self, images: Images, *, size: Size, wanted: PixelFormat, share: float = 1.0):
        """`share` of the side of the largest part that fits is taken."""
        self.images, self.size, self.wanted, self.share = images, size, wanted, share

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor | BadImage:
        def crop(picture: Picture) -> Tensor:
            return centre_crop(picture, self.wanted, self.size, self.share)

        return self.images.take(index, self.wanted, crop)

    def batches(self, size: int, workers: int = 0) -> Generator["CropBatch", None, None]:
        """All images in order."""
        numbers = iter(range(len(self)))
        own = torch.Generator()  # a loader draws seeds for its workers: not from the global generator
        loader = _loader(
            self, batch_size=size, workers=workers, collate=lambda items: items, generator=own
        )
        with closing(_name_worker_failures(loader)) as batches:
            for items in batches:
                mine = [next(numbers) for _ in items]
                good = [i for i, item in zip(mine, items, strict=True) if isinstance(item, Tensor)]
                crops = [item for item in items if isinstance(item, Tensor)]
                bad = [item for item in items if isinstance(item, BadImage)]
                empty = torch.empty(0, self.wanted.channels, *self.size)
                yield CropBatch(torch.stack(crops) if crops else empty, good, bad)


class CropBatch(NamedTuple):
    """`images` [n, C, H, W] of the readable ones, whose numbers in the data set are `numbers`."""

    images: Tensor
    numbers: list[int]
    bad: list[BadImage]


def load_centre_crops(images: Images, *, size: Size, wanted: PixelFormat, share: float = 1.0) -> Tensor:
    """Readable images as [n, C, H, W], each centrally cropped as `CentreCrops` does."""
    crops = CentreCrops(images, size=size, wanted=wanted, share=share)
    batches = list(crops.batches(max(1, len(images))))
    if not any(batch.numbers for batch in batches):
        raise none_readable([bad for batch in batches for bad in batch.bad])
    return torch.cat([batch.images for batch in batches])


def _loader(
    dataset: Dataset, *, workers: int, collate: Callable[[list[Any]], Any], **options: Any
) -> DataLoader:
    return DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_leave_signals_to_the_main_process,
        timeout=WORKER_TIMEOUT_SECONDS if workers else 0,
        # Forked workers share the list of paths, and need no guard in the caller's script.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        **options,
    )


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Signals often reach all processes; the main one still needs a batch to finish its step.

    A worker therefore outlives SIGTERM for a while, and then leaves in peace: a death by signal
    would make the loader raise in the middle of that step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(SECONDS_AFTER_SIGTERM))


def _name_worker_failures(loader: DataLoader) -> Generator[Any, None, None]:
    try:
        with lost_workers_named():
            yield from loader
    except DataError as error:  # raised in a worker, it comes with the worker's traceback
        raise DataError(str(error).strip().splitlines()[-1].split("DataError: ")[-1]) from error


@contextmanager
def lost_workers_named() -> Iterator[None]:
    """DataError for the errors that follow from a lost loader process.

    Torch raises its own wherever the program is when the system reports a dead process; a process
    that dies while it writes leaves half a message.
    """
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in WORKER_IS_GONE):
            raise
        raise DataError(
            f"a loader process died or hung ({error or type(error).__name__}): this is often too "
            f"little memory or shared memory (/dev/shm); try --data.workers 0, and run the same command "
            f"again to resume"
        ) from error
