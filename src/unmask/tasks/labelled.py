"""Labelled images as classification trains on them, and what of the settings does not fit together."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unmask.config.commands import ClassifyConfig
from unmask.config.image import ImageSpec
from unmask.config.plan import Plan
from unmask.data.augment import rand_augment, random_erasing
from unmask.data.crops import Crops, pack
from unmask.data.decode.pictures import Picture
from unmask.data.images import checksum
from unmask.data.labels import find_labelled
from unmask.data.records import Labelled, Split
from unmask.data.sampler import SampleKey
from unmask.data.samples import RandomCrops
from unmask.data.split import class_weights
from unmask.units import counted


class LabelledBatch(NamedTuple):
    """`images` [B, C, H, W], or crops of several sizes; int64 `labels` and float32 `weights` [B]."""

    images: Tensor | Crops
    labels: Tensor
    weights: Tensor


class LabelledSample(NamedTuple):
    """A row of a `LabelledBatch`."""

    image: Tensor
    label: int
    weight: float


class LabelledSamples(RandomCrops):
    """See `data.samples.Samples`: a random crop, augmented, with its class and its weight in the
    loss."""

    def __init__(self, config: ClassifyConfig, plan: Plan, training: Labelled):
        super().__init__(config.data, plan)
        self.augment = config.augment
        self.rand_augment = config.augment.rand_augment and is_picture(plan.image)
        self.labels = training.labels
        self.weights = sample_weights(training, balance=config.data.balance)

    def sample(self, picture: Picture, key: SampleKey, rng: np.random.Generator) -> LabelledSample:
        """[C, H, W] before normalisation, with its label."""
        image, crop = self.image, self.crop(picture, rng)
        if self.rand_augment:
            crop = rand_augment(crop, image.mean, rng)
        if self.augment.erasing:
            crop = random_erasing(crop, image.mean, image.std, rng, self.augment.erasing)
        return LabelledSample(crop, int(self.labels[key.image]), float(self.weights[key.image]))

    def collate(self, samples: list[LabelledSample]) -> LabelledBatch:
        """Stacks crops, labels and weights."""
        return LabelledBatch(
            pack([s.image for s in samples]),
            torch.tensor([s.label for s in samples]),
            torch.tensor([s.weight for s in samples], dtype=torch.float32),
        )


def find_split(d: Any) -> Split:
    """The labelled images that the sections Source and Labels name, divided as training divides them."""
    return find_labelled(
        d.source,
        val=d.val,
        root=d.root,
        download=d.download,
        label_column=d.label_column,
        val_share=d.val_share,
    )


def fingerprint_of(labelled: Labelled) -> str:
    """Changes when an image or a label does."""
    return f"{labelled.images.fingerprint()}, labels {checksum(labelled.labels)}"


def sample_weights(training: Labelled, *, balance: bool) -> np.ndarray:
    """float32 [n]: how much each training image counts in the loss."""
    weights = np.ones(len(training), np.float32) if training.weights is None else training.weights
    if balance:
        weights = class_weights(training.labels, len(training.classes))[training.labels] * weights
    return weights.astype(np.float32)


def is_picture(image: ImageSpec) -> bool:
    """RandAugment knows pictures of 8 bits only."""
    return image.channels in (1, 3) and image.dtype == "uint8"


def check_mixing(config: ClassifyConfig, plan: Plan) -> None:
    """Pairs of neighbours are mixed: every part of a batch is even, and they are different images."""
    a, t, repeats = config.augment, plan.training, plan.loading.repeats
    if (a.mixup or a.cutmix) and repeats > 1:
        raise ValueError(
            f"mixup and cutmix would mix crops of one image if --data.repeats is {repeats}: leave "
            f"that out, or choose --augment.mixup 0 --augment.cutmix 0"
        )
    if (a.mixup or a.cutmix) and (t.process_batch % 2 or t.micro_batch % 2):
        raise ValueError(
            f"mixup and cutmix pair images, and {t.process_batch} per process in micro-batches of "
            f"{t.micro_batch} are not all pairs: choose even numbers, or --augment.mixup 0 "
            f"--augment.cutmix 0"
        )


def check_batch_norm(config: ClassifyConfig, plan: Plan) -> Iterator[str]:
    """It takes the statistics of one micro-batch of all processes: one image has none."""
    t, world = plan.training, plan.processes
    smallest = t.process_batch % t.micro_batch or t.micro_batch
    if config.head.batch_norm and smallest * world < 2:
        raise ValueError(
            f"--head.batch-norm needs two images in every micro-batch, and --optim.micro-batch "
            f"{t.micro_batch} leaves one alone: choose another"
        )
    if config.head.batch_norm and t.micro_batch < t.process_batch:
        yield f"BatchNorm sees {t.micro_batch * world} images at a time, not all {t.batch} of a step"


def check_resizing(config: ClassifyConfig) -> None:
    """What works on resized crops needs them in the loader."""
    if config.data.resize_on_device and (config.augment.rand_augment or config.augment.erasing):
        raise ValueError(
            "RandAugment and erasing work on resized crops, in the loader: leave out "
            "--data.resize-on-device, or choose --augment.no-rand-augment --augment.erasing 0"
        )


def without_effect(config: ClassifyConfig) -> Iterator[str]:
    """A sentence on a setting of another optimizer that is not the usual one."""
    o, usual = config.optim, type(config.optim)()
    name = "momentum" if o.optimizer == "adamw" else "betas"
    if getattr(o, name) != getattr(usual, name):
        yield f"--optim.{name} changes nothing here"


def augmentation(config: ClassifyConfig, image: ImageSpec) -> str:
    """How samples are augmented, in words."""
    g, (least, most) = config.augment, config.data.crop_scale
    amounts = {"erasing": g.erasing, "mixup": g.mixup, "cutmix": g.cutmix, "smoothing": g.smoothing}
    parts = [
        f"crops of {least:g} to {most:g} of the area",
        *(["flips"] if config.data.flip else []),
        *(["RandAugment"] if g.rand_augment and is_picture(image) else []),
        *(f"{name} {value:g}" for name, value in amounts.items() if value),
    ]
    return ", ".join(parts)


def trained_blocks(blocks: float | None) -> str:
    """What of a classifier is trained, in words."""
    if blocks is None:
        return "encoder and head"
    return f"the head and {counted(blocks, 'block')}" if blocks else "the head alone"
