"""From what was asked to what will run: one pure function, no files, no devices, no clock."""

import math
from dataclasses import replace
from typing import Any, Literal

from unmask.config.budget import seconds_in
from unmask.config.fields import check, pair
from unmask.config.image import ImageSpec
from unmask.config.plan import DataFacts, LoadingPlan, Machine, Plan, TrainingPlan
from unmask.config.settings import Autoencoder, Encoder, Mask, Optim, PlainRun, Target
from unmask.core.spec import SIZES, DecoderSpec, MAESpec, MaskSpec, ModelSpec, Size, TargetSpec, ViTSpec
from unmask.units import GIB

GPU_MICRO_BATCH = 128
"""Images per forward pass on a GPU unless told otherwise; the batch stays as asked."""
COMPILED_FROM, COMPILED_SECONDS = 10_000, 300.0
"""Micro-batches of a run, or its seconds: compiling takes 40 to 70 seconds, and saves a quarter of a
step (benchmarks/gpu.md)."""


def resolve(
    config: Any,
    *,
    model: ModelSpec,
    image: ImageSpec,
    facts: DataFacts,
    machine: Machine,
    world_size: int,
    licence_note: str = "",
    notes: tuple[str, ...] = (),
) -> Plan:
    """Turns epochs into steps, base learning rate into learning rate and `auto` into values.

    `config` is any training command's, with the sections data, optim and run; `notes` are what is
    known already that a user should hear about.
    Raises ValueError that names the fix if the request does not fit together.
    """
    check(config)
    messages = list(notes)
    training = _training_plan(
        config.optim, config.run, facts, world_size, machine, messages, _repeats(config)
    )
    return Plan(
        model=model,
        image=image,
        loading=_loading_plan(config, facts, machine),
        training=training,
        facts=facts,
        machine=machine,
        processes=world_size,
        licence_note=licence_note,
        notes=tuple(messages),
    )


def resolve_autoencoder(
    model: Autoencoder,
    mask: Mask,
    target: Target,
    *,
    size: Size,
    channels: int,
    given: MaskSpec | None = None,
    vocabulary: int | None = None,
) -> MAESpec:
    """The dimensions and the objective of a masked autoencoder for images of that size.

    `given` is the user's own mask, as read from --mask.file; `vocabulary` is the tokenizer's.
    """
    _check_target(target)
    _check_dimensions("model.decoder-", model.decoder_width, model.decoder_depth, model.decoder_heads)
    spec = MAESpec(
        encoder=resolve_encoder(model, size=size, channels=channels),
        decoder=DecoderSpec(
            width=model.decoder_width,
            depth=model.decoder_depth,
            heads=model.decoder_heads,
            mlp_ratio=model.mlp_ratio,
        ),
        mask=_resolve_mask(mask, given),
        target=TargetSpec(
            kind=target.kind,
            loss_on=target.loss_on,
            components=target.components,
            vocabulary=vocabulary if target.kind == "tokens" else None,
        ),
    )
    spec.mask.visible(spec.encoder.grid)  # a ratio that cannot be met is refused here
    return spec


def _check_target(target: Target) -> None:
    """Raises ValueError if a setting of one target was given with another."""
    for name, kind in (("components", "pca"), ("tokenizer", "tokens")):
        if getattr(target, name) is not None and target.kind != kind:
            raise ValueError(
                f"--target.{name} is of --target.kind {kind}, and this target is {target.kind}: leave "
                f"it out, or write --target.kind {kind}"
            )


def _resolve_mask(mask: Mask, given: MaskSpec | None) -> MaskSpec:
    if mask.file is None:
        strategy, ratio = mask.strategy, mask.ratio
        return MaskSpec(
            strategy=strategy,
            ratio=ratio,
            unit=mask.unit,
            tokens_in_encoder=mask.tokens_in_encoder,
            decode_share=mask.decode_share,
        )
    if mask.strategy != "random" or mask.unit != 1:
        raise ValueError(
            "--mask.file replaces --mask.strategy and --mask.unit: leave out these, or the file"
        )
    assert given is not None, "the task reads the file"
    return replace(given, tokens_in_encoder=mask.tokens_in_encoder, decode_share=mask.decode_share)


def resolve_encoder(model: Encoder, *, size: Size, channels: int) -> ViTSpec:
    """The dimensions of an encoder for images of that size."""
    usual = SIZES[model.size]
    spec = ViTSpec(
        image_size=size,
        patch_size=pair("model.patch", model.patch if model.patch is not None else (usual["patch"],)),
        channels=channels,
        width=either(model.width, usual["width"]),
        depth=either(model.depth, usual["depth"]),
        heads=either(model.heads, usual["heads"]),
        mlp_ratio=model.mlp_ratio,
        class_tokens=model.class_tokens,
    )
    _check_dimensions("model.", spec.width, spec.depth, spec.heads)
    if model.class_tokens < 0:
        raise ValueError("--model.class-tokens is negative: choose 0 or more")
    assert spec.grid  # raises if patches do not divide images
    return spec


def display_bands(asked: tuple[int, ...] | None, channels: int) -> tuple[int, ...] | None:
    """Raises ValueError if images of so many channels do not have these bands."""
    if asked is not None and (len(asked) not in (1, 3) or not all(1 <= b <= channels for b in asked)):
        raise ValueError(
            f"--data.display takes one band or three, from 1 to {channels}, and got "
            f"{' '.join(map(str, asked)) or 'none'}: write --data.display {min(3, channels)} for one"
        )
    return asked


def default_workers(machine: Machine) -> int:
    """Processes that decode images: one core is left for the loop."""
    return min(16, max(1, machine.cores - 1))


def either(asked: int | None, default: int) -> int:
    """What was asked for, or else the default."""
    return default if asked is None else asked


def _repeats(config: Any) -> int:
    return getattr(config.data, "repeats", 1)


def _check_dimensions(part: str, width: int, depth: int, heads: int) -> None:
    for name, value in (("width", width), ("depth", depth), ("heads", heads)):
        if value < 1:
            raise ValueError(f"--{part}{name} is {value}: choose 1 or more")
    if width % heads or width % 4:
        unit = math.lcm(4, heads)
        raise ValueError(
            f"--{part}width {width} must be a multiple of four and of its {heads} heads: "
            f"choose --{part}width {unit * max(1, round(width / unit))} or other --{part}heads"
        )


def _training_plan(
    o: Optim,
    run: PlainRun,
    facts: DataFacts,
    world_size: int,
    machine: Machine,
    notes: list[str],
    repeats: int,
) -> TrainingPlan:
    """Steps, learning rates and intervals; adds to `notes` what a user should hear.

    An epoch decodes every image once, and trains on `repeats` samples of each.
    """
    samples = facts.training_images * repeats
    _check_batch(o.batch, samples, world_size, repeats)
    _check_betas(o.betas)
    steps_per_epoch = samples / o.batch
    steps = max(1, either(o.steps, math.ceil(o.epochs * steps_per_epoch)))
    warmup = either(o.warmup_steps, round(o.warmup_epochs * steps_per_epoch))
    if warmup > steps:
        raise ValueError(
            f"the warm-up of {warmup} steps is longer than the run of {steps}: choose "
            f"--optim.warmup-steps {steps // 10}, or a longer run"
        )
    process_batch = o.batch // world_size
    if repeats > 1:
        notes.append(
            f"each image is decoded once an epoch and gives {repeats} samples: an epoch has {samples}"
        )
    lr = o.base_lr * o.batch / 256
    micro_batch = _micro_batch(o, process_batch, machine, repeats)
    return TrainingPlan(
        device=machine.device,
        precision=_precision(run, machine, notes),
        compile=_compiles(run, machine, steps * math.ceil(process_batch / micro_batch)),
        activation_checkpointing=run.activation_checkpointing,
        seed=run.seed,
        steps=steps,
        warmup_steps=warmup,
        steps_per_epoch=steps_per_epoch,
        batch=o.batch,
        process_batch=process_batch,
        micro_batch=micro_batch,
        lr=lr,
        weight_decay=o.weight_decay,
        betas=o.betas,
        clip=o.clip,
        ema=o.ema,
        keep_checkpoints=run.keep_checkpoints,
        keep_every=run.keep_every,
        optimizer=o.optimizer,
        momentum=o.momentum,
        min_lr=min(o.min_lr, lr),
        schedule=o.schedule,
        **_intervals(run, steps, steps_per_epoch, evaluation=math.ceil(facts.held_out_images / o.batch)),
    )


def _check_batch(batch: int, samples: int, world_size: int, repeats: int) -> None:
    """Raises ValueError if a batch cannot be divided, or is more than there is."""
    unit = world_size * repeats
    if batch % unit:
        whole = batch // unit * unit
        choices = " or ".join(str(b) for b in (whole, whole + unit) if b)
        dividers = {"processes": world_size, "repeats": repeats}
        who = " and ".join(f"{count} {name}" for name, count in dividers.items() if count > 1)
        raise ValueError(f"{who} do not divide a batch of {batch}: choose --optim.batch {choices}")
    if batch > samples:
        of_each = f" with {repeats} repeats" if repeats > 1 else ""
        fits = unit << max(0, (samples // unit).bit_length() - 1)
        raise ValueError(
            f"a batch of {batch} is more than the {samples // repeats} training images{of_each}: "
            f"choose --optim.batch {fits} or give more images"
        )


def _check_betas(betas: tuple[float, float]) -> None:
    """Raises ValueError if an average would never take in what is new."""
    if not all(0 <= beta < 1 for beta in betas):
        got = " ".join(f"{beta:g}" for beta in betas)
        raise ValueError(
            f"--optim.betas takes two numbers from 0 to below 1 and got {got}: write --optim.betas "
            f"0.9 0.95"
        )


def _compiles(run: PlainRun, machine: Machine, micro_batches: int) -> bool:
    """Whether to compile the model: `auto` does so where that is faster and the run long enough."""
    if run.compile != "auto":
        return run.compile == "on"
    long = seconds_in(run.time) >= COMPILED_SECONDS if run.time else micro_batches >= COMPILED_FROM
    return machine.compiles and long


def _micro_batch(o: Optim, process_batch: int, machine: Machine, repeats: int) -> int:
    """Samples per forward pass; all repeats of an image are in one."""
    if o.micro_batch is None:
        default = GPU_MICRO_BATCH if machine.device == "cuda" else process_batch
        return min(process_batch, max(repeats, default // repeats * repeats))
    if o.micro_batch % repeats and o.micro_batch < process_batch:
        whole = o.micro_batch // repeats * repeats
        choices = " or ".join(str(m) for m in (whole, whole + repeats) if m)
        raise ValueError(
            f"a micro-batch of {o.micro_batch} would split the {repeats} repeats of an image: choose "
            f"--optim.micro-batch {choices}"
        )
    return min(process_batch, o.micro_batch)


def _intervals(run: PlainRun, steps: int, steps_per_epoch: float, *, evaluation: int) -> dict[str, int]:
    """An evaluation, which costs about so many steps, takes no longer than the training between two."""
    epoch = max(500, math.ceil(steps_per_epoch))
    return {
        "log_every": either(run.log_every, max(1, steps // 1000)),
        "evaluate_every": either(run.evaluate_every, max(1, steps // 20, evaluation)),
        "sample_every": either(run.sample_every, max(1, steps // run.pictures)),
        "checkpoint_every": either(run.checkpoint_every, max(1, min(steps // 20, epoch))),
    }


def _precision(run: PlainRun, machine: Machine, notes: list[str]) -> Literal["bf16", "fp32"]:
    if run.precision == "auto":
        choice: Literal["bf16", "fp32"] = "bf16" if machine.fast_bf16 else "fp32"
        has = "has" if machine.fast_bf16 else "has no"
        notes.append(f"precision {choice}: {machine.name} {has} fast bf16 arithmetic")
        return choice
    if run.precision == "bf16" and not machine.fast_bf16:
        notes.append(f"bf16 was asked for and {machine.name} emulates it: expect a slow run")
    return run.precision


def _loading_plan(config: Any, facts: DataFacts, machine: Machine) -> LoadingPlan:
    d = config.data
    workers = either(d.workers, default_workers(machine))
    cache = facts.training_images * facts.decoded_bytes
    return LoadingPlan(
        seed=config.run.seed,
        repeats=_repeats(config),
        workers=workers,
        keep_decoded=cache <= d.cache_gib * GIB,
        max_bad_share=d.max_bad_share,
        max_megapixels=d.max_megapixels,
        timeout=d.timeout,
        cache_bytes=int(d.cache_gib * GIB),
    )
