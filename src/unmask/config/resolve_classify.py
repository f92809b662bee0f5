"""From a request for classification to its plan: pure, as `resolve`."""

import math
from dataclasses import dataclass, replace

from unmask.config.plan import DataFacts, DataPlan, Machine, TrainingPlan
from unmask.config.resolve import RANGES as GENERAL_RANGES
from unmask.config.resolve import check_ranges, data_plan, training_plan
from unmask.config.schema_classify import AugmentConfig, ClassifyConfig, HeadConfig
from unmask.core.mae import Architecture

RANGES: dict[str, tuple[float, float]] = {
    **GENERAL_RANGES,
    "data.val_share": (0.01, 0.99),
    "data.fraction": (1e-6, 1),
    "data.per_class": (1, 1e9),
    "data.repeats": (1, 1e6),
    "data.eval_crop": (0.01, 1),
    "head.drop_path": (0, 0.99),
    "augment.erasing": (0, 1),
    "augment.mixup": (0, 100),
    "augment.cutmix": (0, 100),
    "augment.smoothing": (0, 0.99),
    "optim.momentum": (0, 1),
    "optim.layer_decay": (0.01, 1),
    "optim.min_lr": (0, 1e9),
}
USUAL_CROP, LARGEST_CROPPED = 224 / 256, 224
"""Evaluation resizes to 256 and crops 224; above that it takes the whole image."""


@dataclass(frozen=True, kw_only=True)
class ClassifyPlan:
    """A classification run with every `auto` turned into a value; saved as plan.json."""

    architecture: Architecture
    """Of the encoder; what it says of a decoder is not used."""
    classes: tuple[str, ...]
    head: HeadConfig
    augment: AugmentConfig
    layer_decay: float
    data: DataPlan
    training: TrainingPlan
    facts: DataFacts
    machine: Machine
    processes: int
    notes: tuple[str, ...]


def resolve_classification(
    config: ClassifyConfig,
    architecture: Architecture,
    *,
    classes: tuple[str, ...],
    facts: DataFacts,
    machine: Machine,
    world_size: int,
) -> ClassifyPlan:
    """Raises ValueError that names the mend where the request does not fit together.

    Validation takes no more images than the training between two of them.
    """
    check_ranges(config, RANGES)
    notes: list[str] = []
    o = config.optim
    repeats, images = config.data.repeats, facts.training_images
    training = training_plan(o, config.run, images, world_size, machine, notes, repeats)
    training = replace(
        training,
        optimizer=o.optimizer,
        momentum=o.momentum,
        min_lr=min(o.min_lr, training.lr),
        sample_every=training.steps if config.run.sample_every is None else training.sample_every,
        evaluate_every=training.evaluate_every
        if config.run.evaluate_every is not None
        else max(training.evaluate_every, math.ceil(facts.held_out_images / o.batch)),
    )
    _check_mixing(config.augment, training, repeats)
    _check_batch_norm(config.head, training, world_size, notes)
    if config.data.resize_on_device and (config.augment.rand_augment or config.augment.erasing):
        raise ValueError(
            "RandAugment and erasing work on resized crops, in the loader: leave out "
            "--data.resize-on-device, or choose --augment.no-rand-augment --augment.erasing 0"
        )
    data = data_plan(config.data, config.run.seed, facts, architecture, machine)
    return ClassifyPlan(
        architecture=architecture,
        classes=classes,
        head=config.head,
        augment=config.augment,
        layer_decay=o.layer_decay,
        data=replace(
            data,
            noise_length=0,
            rand_augment=config.augment.rand_augment and _is_picture(facts, notes),
            erasing=config.augment.erasing,
            eval_crop=eval_crop(config.data.eval_crop, architecture),
        ),
        training=training,
        facts=facts,
        machine=machine,
        processes=world_size,
        notes=tuple(notes),
    )


def _is_picture(facts: DataFacts, notes: list[str]) -> bool:
    """RandAugment knows pictures of 8 bits only."""
    fits = facts.channels in (1, 3) and facts.pixel_type == "uint8"
    if not fits:
        notes.append("RandAugment is left out: it takes 8 bits in 1 or 3 channels")
    return fits


def _check_mixing(a: AugmentConfig, t: TrainingPlan, repeats: int) -> None:
    """Pairs of neighbours are mixed: every part of a batch is even, and they are different images."""
    if (a.mixup or a.cutmix) and repeats > 1:
        raise ValueError(
            f"mixup and cutmix would mix crops of one image where --data.repeats is {repeats}: leave "
            f"that out, or choose --augment.mixup 0 --augment.cutmix 0"
        )
    if (a.mixup or a.cutmix) and (t.process_batch % 2 or t.micro_batch % 2):
        raise ValueError(
            f"mixup and cutmix pair images, and {t.process_batch} per process in micro-batches of "
            f"{t.micro_batch} are not all pairs: choose even numbers, or --augment.mixup 0 "
            f"--augment.cutmix 0"
        )


def _check_batch_norm(head: HeadConfig, t: TrainingPlan, world_size: int, notes: list[str]) -> None:
    """It takes the statistics of one micro-batch of all processes: one image has none."""
    smallest = t.process_batch % t.micro_batch or t.micro_batch
    if head.batch_norm and smallest * world_size < 2:
        raise ValueError(
            f"--head.batch-norm needs two images in every micro-batch, and --optim.micro-batch "
            f"{t.micro_batch} leaves one alone: choose another"
        )
    if head.batch_norm and t.micro_batch < t.process_batch:
        notes.append(
            f"BatchNorm sees {t.micro_batch * world_size} images at a time, not all {t.batch} of a step"
        )


def eval_crop(asked: float | None, a: Architecture) -> float:
    """Share of an image's side that evaluation crops."""
    if asked is not None:
        return asked
    return USUAL_CROP if max(a.image_size) <= LARGEST_CROPPED else 1.0
