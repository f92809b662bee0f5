"""Recipes for fine-tuning, linear probing and training from scratch with few labels; and all by name."""

from collections.abc import Callable
from dataclasses import replace

from unmask.config.classify import Head, LabelledData, LabelledRun, TuneOptim
from unmask.config.commands import FinetuneConfig, ProbeConfig, ScratchConfig
from unmask.config.settings import Encoder
from unmask.recipes.imagenet import (
    PLAIN,
    finetune_base,
    finetune_base_released,
    finetune_huge,
    finetune_huge_448,
    finetune_huge_released,
    finetune_large,
    finetune_large_released,
    partial_large,
    probe,
    scratch_base,
    scratch_huge,
    scratch_large,
)


def small_data() -> FinetuneConfig:
    """A few hundred to a few thousand labels, a small encoder, minutes on two processor cores.

    Claim: none yet; it has not been measured on a data set that others know.
    Cost: 1500 steps of 64 images.
    Command: unmask finetune DATA --recipe small-data --init RUN
    """
    return FinetuneConfig(
        recipe="small-data",
        data=LabelledData(crop_scale=(0.6, 1.0)),
        augment=replace(PLAIN, smoothing=0.1),
        optim=TuneOptim(
            base_lr=4e-3, layer_decay=0.75, weight_decay=0.05, batch=64, steps=1500, warmup_steps=100
        ),
    )


def small_probe() -> ProbeConfig:
    """A linear probe of a small encoder with few labels, minutes on two processor cores.

    Claim: none yet; it has not been measured on a data set that others know.
    Cost: 1500 steps of 256 images, forward only.
    Command: unmask probe DATA --recipe small-probe --init RUN
    """
    base = probe()
    return replace(
        base,
        recipe="small-probe",
        data=replace(base.data, crop_scale=(0.6, 1.0)),
        head=replace(base.head, pool="mean"),
        optim=replace(base.optim, batch=256, steps=1500, warmup_steps=100),
    )


def short_probe() -> ProbeConfig:
    """A linear probe in a few hundred steps, by AdamW: LARS needs more.

    Claim (measured here, benchmarks/classification.md): on ELPV 78.1 %, where the commoner class alone
    makes 68.6 %.
    Cost: 250 steps of 64 images, forward only.
    Command: unmask probe DATA --recipe short-probe --init RUN
    """
    small = small_probe()
    return replace(
        small,
        recipe="short-probe",
        data=replace(small.data, crop_scale=(0.8, 1.0), eval_crop=1.0),
        optim=replace(
            small.optim, optimizer="adamw", base_lr=0.04, batch=64, steps=250, warmup_steps=25
        ),
        run=LabelledRun(evaluate_every=125),
    )


def small_scratch() -> ScratchConfig:
    """The small-data recipe without a pre-trained encoder: what it has to beat.

    Claim: none yet; it has not been measured on a data set that others know.
    Cost: as small-data.
    Command: unmask scratch DATA --recipe small-scratch
    """
    model = Encoder(size="tiny", patch=(8,), depth=6)
    return _from_scratch(small_data(), "small-scratch", 96, model)


def tiny_images_finetune() -> FinetuneConfig:
    """Fine-tuning what tiny-images pre-trained, with a few hundred labels, in minutes on a CPU.

    Claim (measured here, benchmarks/classification.md): on Fashion-MNIST with 600 labels 80.1 %, and
    72.1 % from scratch.
    Cost: 1200 steps of 32 images; three minutes on one processor core.
    Command: unmask finetune fashion-mnist --recipe tiny-images-finetune --init RUN --data.per-class 60
    """
    small = small_data()
    return replace(
        small,
        recipe="tiny-images-finetune",
        data=replace(small.data, eval_crop=1.0),
        optim=replace(small.optim, base_lr=16e-3, batch=32, steps=1200, warmup_steps=120),
        run=LabelledRun(evaluate_every=600),
    )


def tiny_images_scratch() -> ScratchConfig:
    """tiny-images-finetune without the pre-trained encoder, at the best of three learning rates.

    Claim (measured here, benchmarks/classification.md): on Fashion-MNIST with 600 labels 72.1 %.
    Cost: as tiny-images-finetune.
    Command: unmask scratch fashion-mnist --recipe tiny-images-scratch --data.per-class 60
    """
    model = Encoder(size="tiny", patch=(7,), width=160, depth=3, heads=4)
    scratch = _from_scratch(tiny_images_finetune(), "tiny-images-scratch", 28, model)
    return replace(scratch, optim=replace(scratch.optim, base_lr=8e-3))


def digits_finetune() -> FinetuneConfig:
    """Fine-tuning what digits pre-trained, with 100 labels, in seconds on a processor.

    Claim (measured here, benchmarks/classification.md): 88.7 % after 1,500 steps of
    pre-training and 225 of this, 3 seeds.
    Cost: 300 steps of 32 images; ten seconds on one processor core.
    Command: unmask finetune digits --recipe digits-finetune --init RUN
    """
    tiny = tiny_images_finetune()
    return replace(
        tiny,
        recipe="digits-finetune",
        data=replace(tiny.data, flip=False, per_class=10),
        optim=replace(tiny.optim, steps=300, warmup_steps=30),
        run=LabelledRun(evaluate_every=300),
    )


def digits_scratch() -> ScratchConfig:
    """digits-finetune without the pre-trained encoder, at the best of four learning rates.

    Claim (measured here, benchmarks/classification.md): 42.5 % in 225 steps, 3 seeds, and
    66.9 % in 400.
    Cost: as digits-finetune.
    Command: unmask scratch digits --recipe digits-scratch
    """
    model = Encoder(size="tiny", patch=(7,), width=160, depth=3, heads=4)
    scratch = _from_scratch(digits_finetune(), "digits-scratch", 28, model)
    return replace(scratch, optim=replace(scratch.optim, base_lr=8e-3))


def quickstart_finetune() -> FinetuneConfig:
    """Fine-tuning for unmask quickstart --data elpv: two minutes on two processor cores.

    Claim (measured here, benchmarks/classification.md): on ELPV 76.0 %, and 76.1 % from scratch: so
    short a pre-training shows no gain.
    Cost: 300 steps of 32 images.
    Command: unmask quickstart --data elpv
    """
    small = small_data()
    return replace(
        small,
        recipe="quickstart-finetune",
        data=replace(small.data, crop_scale=(0.8, 1.0), eval_crop=1.0),
        head=Head(batch_norm=True, drop_path=0.0),
        optim=replace(small.optim, base_lr=8e-3, batch=32, steps=300, warmup_steps=30),
        run=LabelledRun(evaluate_every=150),
    )


def quickstart_scratch() -> ScratchConfig:
    """quickstart-finetune without the pre-trained encoder: the same model, samples and augmentation.

    Claim (measured here, benchmarks/classification.md): on ELPV 76.1 %.
    Cost: as quickstart-finetune.
    Command: unmask quickstart --data elpv
    """
    model = Encoder(size="tiny", patch=(8,), width=128, depth=4, heads=2)
    return _from_scratch(quickstart_finetune(), "quickstart-scratch", 96, model)


def _from_scratch(tuned: FinetuneConfig, name: str, size: int, model: Encoder) -> ScratchConfig:
    """The same training of a new model, all of whose layers learn at one rate."""
    return ScratchConfig(
        recipe=name,
        data=replace(tuned.data, size=(size,)),
        model=model,
        head=tuned.head,
        augment=tuned.augment,
        optim=replace(tuned.optim, layer_decay=1.0),
        run=tuned.run,
    )


FINETUNE: dict[str, Callable[[], FinetuneConfig]] = {
    "finetune-base": finetune_base,
    "finetune-large": finetune_large,
    "finetune-huge": finetune_huge,
    "finetune-huge-448": finetune_huge_448,
    "finetune-base-released": finetune_base_released,
    "finetune-large-released": finetune_large_released,
    "finetune-huge-released": finetune_huge_released,
    "partial-large": partial_large,
    "small-data": small_data,
    "tiny-images-finetune": tiny_images_finetune,
    "digits-finetune": digits_finetune,
    "quickstart-finetune": quickstart_finetune,
}
PROBE: dict[str, Callable[[], ProbeConfig]] = {
    "probe": probe,
    "small-probe": small_probe,
    "short-probe": short_probe,
}
SCRATCH: dict[str, Callable[[], ScratchConfig]] = {
    "scratch-base": scratch_base,
    "scratch-large": scratch_large,
    "scratch-huge": scratch_huge,
    "small-scratch": small_scratch,
    "tiny-images-scratch": tiny_images_scratch,
    "digits-scratch": digits_scratch,
    "quickstart-scratch": quickstart_scratch,
}
