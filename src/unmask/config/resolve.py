"""From what was asked to what will run: one pure function, no files, no devices, no clock."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch

from unmask.config.plan import DataFacts, DataPlan, Machine, PixelFormat, PixelType, Plan, TrainingPlan
from unmask.config.schema import DataConfig, ModelConfig, OptimConfig, PretrainConfig, RunConfig
from unmask.core.blocks import attention_kernel
from unmask.core.mae import Architecture
from unmask.core.masking import kept_patches
from unmask.core.patches import Size, grid_of
from unmask.core.vit import SIZES

GPU_MICRO_BATCH = 128
"""Images per forward pass on a GPU unless told otherwise; the batch stays as asked."""

RANGES: dict[str, tuple[float, float]] = {
    "data.max_bad_share": (0, 1),
    "data.max_megapixels": (0.001, math.inf),
    "data.workers": (0, 1024),
    "data.channels": (1, 65_536),
    "data.repeats": (1, 1e6),
    "optim.batch": (1, math.inf),
    "optim.micro_batch": (1, math.inf),
    "optim.epochs": (1e-6, math.inf),
    "optim.steps": (1, math.inf),
    "optim.warmup_epochs": (0, math.inf),
    "optim.warmup_steps": (0, math.inf),
    "optim.base_lr": (0, math.inf),
    "optim.weight_decay": (0, math.inf),
    "optim.clip": (1e-12, math.inf),
    "optim.ema": (0, 1),
    "model.mlp_ratio": (0.01, math.inf),
    "probe.images": (0, math.inf),
    "probe.every": (1, math.inf),
    "run.seed": (0, 2**63 - 1),
    "run.log_every": (1, math.inf),
    "run.evaluate_every": (1, math.inf),
    "run.sample_every": (1, math.inf),
    "run.checkpoint_every": (1, math.inf),
    "run.keep_checkpoints": (1, math.inf),
}
"""Least and greatest value of each number, both allowed."""


def resolve(config: PretrainConfig, *, facts: DataFacts, machine: Machine, world_size: int) -> Plan:
    """Turns epochs into steps, base rate into rate, sizes into dimensions and `auto` into values.

    Raises ValueError that names the mend where the request does not fit together.
    """
    check_ranges(config)
    notes: list[str] = []
    architecture = resolve_architecture(config, channels=facts.channels)
    grid = grid_of(architecture.image_size, architecture.patch_size)
    kept = kept_patches(grid, config.mask.ratio, config.mask.unit)
    patches = grid[0] * grid[1]
    notes.append(
        f"{grid[0]} x {grid[1]} patches, of which the encoder sees {kept} and the decoder predicts "
        f"{patches - kept}"
    )
    if config.mask.tokens_in_encoder:
        notes.append("the encoder gets mask tokens for the rest: slower and worse (paper, Table 1c)")
    training = training_plan(
        config.optim,
        config.run,
        facts.training_images,
        world_size,
        machine,
        notes,
        repeats=config.data.repeats,
    )
    encoded = patches if config.mask.tokens_in_encoder else kept
    tokens = {"encoder": encoded + architecture.class_tokens}
    tokens["decoder"] = patches + architecture.class_tokens
    dtype = torch.bfloat16 if training.precision == "bf16" else torch.float32
    attention: dict[str, str] = {
        part: attention_kernel(machine.device, dtype, n) for part, n in tokens.items()
    }
    data = data_plan(config.data, config.run.seed, facts, architecture, machine)
    return Plan(
        architecture=architecture,
        attention=attention,
        data=data,
        training=training,
        facts=facts,
        machine=machine,
        processes=world_size,
        probe_every=_either(config.probe.every, max(1, training.steps // 10)),
        notes=tuple(notes),
    )


def resolve_architecture(config: PretrainConfig, *, channels: int) -> Architecture:
    """The dimensions of the model, for images of that many channels."""
    m, size = config.model, SIZES[config.model.size]
    patch = pair("model.patch", m.patch if m.patch is not None else (size["patch"],))
    architecture = Architecture(
        image_size=pair("data.size", config.data.size),
        patch_size=patch,
        channels=channels,
        width=_either(m.width, size["width"]),
        depth=_either(m.depth, size["depth"]),
        heads=_either(m.heads, size["heads"]),
        mlp_ratio=m.mlp_ratio,
        class_tokens=m.class_tokens,
        decoder_width=m.decoder_width,
        decoder_depth=m.decoder_depth,
        decoder_heads=m.decoder_heads,
        mask_ratio=config.mask.ratio,
        mask_unit=config.mask.unit,
        mask_tokens_in_encoder=config.mask.tokens_in_encoder,
        target=config.target.kind,
        loss_on=config.target.loss_on,
    )
    _check_dimensions(m, architecture)
    return architecture


def check_ranges(config: Any, ranges: Mapping[str, tuple[float, float]] = RANGES) -> None:
    """Raises ValueError where a number is outside what makes sense, in the sections that there are."""
    for name, limits in ranges.items():
        if hasattr(config, name.split(".")[0]):
            check_range(config, name, limits)
    if config.data.std is not None and min(config.data.std) <= 0:
        raise ValueError(
            "--data.std must be positive in every channel: leave it out to have it measured"
        )


def check_range(config: Any, name: str, limits: tuple[float, float]) -> None:
    """Raises ValueError where the setting `section.field` is outside of the limits."""
    section, field = name.split(".")
    value, (least, greatest) = getattr(getattr(config, section), field), limits
    if value is not None and not least <= value <= greatest:
        limit = f"{least:g} or more" if greatest == math.inf else f"between {least:g} and {greatest:g}"
        raise ValueError(f"--{name.replace('_', '-')} is {value} and must be {limit}")


def pair(flag: str, numbers: tuple[int, ...]) -> Size:
    """One number means a square; two are height and width."""
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise ValueError(
            f"--{flag} takes one positive number, or two for height and width, and got "
            f"{' '.join(map(str, numbers)) or 'none'}: write --{flag} 224 or --{flag} 96 160"
        )
    return numbers[0], numbers[-1]


def _check_dimensions(m: ModelConfig, a: Architecture) -> None:
    for part, width, depth, heads in (
        ("model.", a.width, a.depth, a.heads),
        ("model.decoder-", a.decoder_width, a.decoder_depth, a.decoder_heads),
    ):
        for name, value in (("width", width), ("depth", depth), ("heads", heads)):
            if value < 1:
                raise ValueError(f"--{part}{name} is {value}: choose 1 or more")
        if width % heads or width % 4:
            raise ValueError(
                f"--{part}width {width} must be a multiple of four and of its {heads} heads: "
                f"choose --{part}width {math.lcm(4, heads) * max(1, round(width / math.lcm(4, heads)))} "
                f"or other --{part}heads"
            )
    if m.class_tokens < 0:
        raise ValueError("--model.class-tokens is negative: choose 0 or more")


def training_plan(
    o: OptimConfig,
    run: RunConfig,
    images: int,
    world_size: int,
    machine: Machine,
    notes: list[str],
    repeats: int = 1,
) -> TrainingPlan:
    """Steps, rates and intervals of any training run; adds to `notes` what a user should hear.

    An epoch decodes every image once, and trains on `repeats` samples of each.
    """
    samples = images * repeats
    _check_batch(o.batch, samples, world_size, repeats)
    steps_per_epoch = samples / o.batch
    steps = max(1, _either(o.steps, math.ceil(o.epochs * steps_per_epoch)))
    warmup = _either(o.warmup_steps, round(o.warmup_epochs * steps_per_epoch))
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
    every = _intervals(run, steps, steps_per_epoch)
    return TrainingPlan(
        device=machine.device,
        precision=_precision(run, machine, notes),
        compile=run.compile == "on" or (run.compile == "auto" and machine.compiles),
        activation_checkpointing=run.activation_checkpointing,
        seed=run.seed,
        steps=steps,
        warmup_steps=warmup,
        steps_per_epoch=steps_per_epoch,
        batch=o.batch,
        process_batch=process_batch,
        micro_batch=_micro_batch(o, process_batch, machine, repeats),
        lr=o.base_lr * o.batch / 256,
        weight_decay=o.weight_decay,
        betas=o.betas,
        clip=o.clip,
        ema=o.ema,
        keep_checkpoints=run.keep_checkpoints,
        optimizer="adamw",
        **every,
    )


def _check_batch(batch: int, samples: int, world_size: int, repeats: int) -> None:
    """Raises ValueError where a batch cannot be divided, or is more than there is."""
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


def _micro_batch(o: OptimConfig, process_batch: int, machine: Machine, repeats: int) -> int:
    """Samples per forward pass; all repeats of an image are in one."""
    if o.micro_batch is None:
        default = GPU_MICRO_BATCH if machine.device == "cuda" else process_batch
        return min(process_batch, max(repeats, default // repeats * repeats))
    if o.micro_batch % repeats and o.micro_batch < process_batch:
        whole = o.micro_batch // repeats * repeats
        choices = " or ".join(str(m) for m in (whole, whole + repeats) if m)
        raise ValueError(
            f"a micro-batch of {o.micro_batch} parts the {repeats} repeats of an image: choose "
            f"--optim.micro-batch {choices}"
        )
    return min(process_batch, o.micro_batch)


def _intervals(run: RunConfig, steps: int, steps_per_epoch: float) -> dict[str, int]:
    epoch = max(500, math.ceil(steps_per_epoch))
    return {
        "log_every": _either(run.log_every, max(1, steps // 1000)),
        "evaluate_every": _either(run.evaluate_every, max(1, steps // 20)),
        "sample_every": _either(run.sample_every, max(1, steps // 10)),
        "checkpoint_every": _either(run.checkpoint_every, max(1, min(steps // 20, epoch))),
    }


def _precision(run: RunConfig, machine: Machine, notes: list[str]) -> Literal["bf16", "fp32"]:
    if run.precision == "auto":
        choice: Literal["bf16", "fp32"] = "bf16" if machine.fast_bf16 else "fp32"
        has = "has" if machine.fast_bf16 else "has no"
        notes.append(f"precision {choice}: {machine.name} {has} fast bf16 arithmetic")
        return choice
    if run.precision == "bf16" and not machine.fast_bf16:
        notes.append(f"bf16 was asked for and {machine.name} emulates it: expect a slow run")
    return run.precision


def data_plan(d: DataConfig, seed: int, facts: DataFacts, a: Architecture, machine: Machine) -> DataPlan:
    """How samples of any training run are made."""
    if not 0 < d.crop_scale[0] <= d.crop_scale[1] <= 1:
        raise ValueError(
            f"--data.crop-scale takes two rising numbers in (0, 1] and got {d.crop_scale[0]:g} "
            f"{d.crop_scale[1]:g}: the paper's are 0.2 1.0"
        )
    grid = grid_of(a.image_size, a.patch_size)
    workers = _either(d.workers, default_workers(machine))
    cache = max(1, workers) * facts.training_images * facts.decoded_bytes
    return DataPlan(
        image_size=a.image_size,
        pixels=pixel_format(d, facts.channels, facts.pixel_type),
        mean=facts.mean,
        std=facts.std,
        display=display_bands(d.display, facts.channels),
        crop_scale=d.crop_scale,
        flip=d.flip,
        max_bad_share=d.max_bad_share,
        workers=workers,
        keep_decoded=cache <= d.cache_gib * 2**30,
        noise_length=grid[0] * grid[1],
        seed=seed,
        repeats=d.repeats,
        resize_on_device=d.resize_on_device,
    )


def display_bands(asked: tuple[int, ...] | None, channels: int) -> tuple[int, ...] | None:
    """Raises ValueError where images of so many channels do not have these bands."""
    if asked is not None and (len(asked) not in (1, 3) or not all(1 <= b <= channels for b in asked)):
        raise ValueError(
            f"--data.display takes one band or three, from 1 to {channels}, and got "
            f"{' '.join(map(str, asked)) or 'none'}: write --data.display {min(3, channels)} for one"
        )
    return asked


def default_workers(machine: Machine) -> int:
    """Processes that decode images: one core is left for the loop."""
    return min(16, max(1, machine.cores - 1))


def pixel_format(d: DataConfig, channels: int, pixel_type: PixelType) -> PixelFormat:
    """How every image of a data set is decoded."""
    return PixelFormat(
        channels=channels, pixel_type=pixel_type, max_pixels=round(d.max_megapixels * 1e6)
    )


def _either(asked: int | None, default: int) -> int:
    return default if asked is None else asked
