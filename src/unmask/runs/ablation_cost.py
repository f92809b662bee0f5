"""What an ablation will take: time on this machine and space on the disk; and whether every value can
run."""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from unmask.config.fields import check, pair
from unmask.config.plan import Plan
from unmask.config.resolve import resolve
from unmask.config.tokenizer import TokenizerConfig
from unmask.core.spec import MAESpec, TargetSpec
from unmask.cost.count import BACKWARD_FACTOR, FLOAT, count, count_tokenizer
from unmask.cost.setting import planned_model
from unmask.cost.speed import training_rate
from unmask.data.centre_crops import load_centre_crops
from unmask.data.statistics import MEASURED_IMAGES
from unmask.models.classifier_spec import EncoderSpec
from unmask.models.tokenizer_spec import TokenizerSpec
from unmask.runs.ablation import Ablation, Step, Unit
from unmask.runs.run import dry_run
from unmask.storage import free_space
from unmask.tasks.base import Data
from unmask.tasks.pretrain import Pretrain
from unmask.tasks.reconstruction import pictured
from unmask.tasks.tokens import read_tokens
from unmask.units import data_size

TIMED_IMAGES = 4
RUN_SECONDS = 3.5
"""Seconds of a run beside its steps: files, pictures, curves, report; measured on one core."""
PICTURES_BYTES = 2**20
"""Bytes of the pictures, logs and the report of a run."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """How the encoder of a value will be trained, and what that costs."""

    plan: Plan
    tokenizer: TokenizerSpec | None
    """If tokens are the target."""

    @property
    def spec(self) -> MAESpec:
        """What is trained."""
        return planned_model(self.plan)

    @property
    def training_flops(self) -> int:
        """Operations of training on one image, those that make its tokens included."""
        flops = count(self.spec).training_flops
        if self.tokenizer:
            flops += count_tokenizer(self.tokenizer, self.spec.encoder.grid).encoder_flops
        return flops


@dataclass(frozen=True, kw_only=True)
class AblationEstimate:
    """What a call of `ablate` will do."""

    values: dict[str, Planned]
    seconds: dict[str, float]
    """Seconds of all runs of a value with one seed, on this machine."""
    todo: list[Unit]
    kept_bytes: int
    """That these units leave on the disk."""
    working_bytes: int
    """More while a run is in progress: its checkpoints."""
    free_bytes: int

    @property
    def total_seconds(self) -> float:
        """Seconds of what is left to do."""
        return sum(self.seconds[unit.value.name] for unit in self.todo)

    def record(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "values": {
                name: {"training_flops_per_image": one.training_flops, "seconds": self.seconds[name]}
                for name, one in self.values.items()
            },
            "runs": [unit.folder.name for unit in self.todo],
            "seconds": self.total_seconds,
            "kept_bytes": self.kept_bytes,
            "working_bytes": self.working_bytes,
            "free_bytes": self.free_bytes,
        }


def estimate_ablation(ablation: Ablation) -> AblationEstimate:
    """Plans every value, and measures the speed of this machine by a few steps and a few images.

    Raises ValueError with a fix if a value cannot be met, or the disk is too small.
    """
    values, data = _plan_values(ablation)
    some = values[ablation.baseline]
    t, device = some.plan.training, torch.device(some.plan.training.device)
    stand_in = replace(some.spec, target=TargetSpec(kind="pixels"))
    rate = training_rate(stand_in, t.precision, device, batch=min(16, t.micro_batch))
    reading = _seconds_to_read(data, some.plan)
    todo = [unit for unit in ablation.part if not unit.is_finished]
    one_of_each = {unit.value.name: unit for unit in ablation.units}
    estimate = AblationEstimate(
        values=values,
        seconds={
            name: _seconds(ablation, unit, values[name], rate, reading)
            for name, unit in one_of_each.items()
        },
        todo=todo,
        kept_bytes=sum(_kept_bytes(unit, values[unit.value.name]) for unit in todo),
        working_bytes=max((_working_bytes(values[unit.value.name]) for unit in todo), default=0),
        free_bytes=free_space(ablation.out),
    )
    needed = estimate.kept_bytes + estimate.working_bytes
    if needed > estimate.free_bytes:
        raise ValueError(
            f"the runs need about {data_size(needed)} on the disk of {ablation.out}, which has "
            f"{data_size(estimate.free_bytes)}: choose another --out, fewer --values or a --part of the "
            f"runs"
        )
    return estimate


def _plan_values(ablation: Ablation) -> tuple[dict[str, Planned], Data]:
    """The plan of each value; the images are measured once. Names the value that is refused."""
    start = _without_tokens(ablation.units[0])
    measured, data = dry_run(start), start.find()
    planned = {}
    for value in ablation.values:
        unit = ablation.of(value.name)[0]
        try:
            planned[value.name] = _plan(unit, measured, data)
            for step in unit.steps:
                check(step.task.config)
        except ValueError as error:
            raise type(error)(
                f"{ablation.name} {value.name}: {error}; or leave this value out of --values"
            ) from error
    return planned, data


def _plan(unit: Unit, measured: Plan, data: Data) -> Planned:
    task, tokenizer = _without_tokens(unit), _tokenizer(unit, measured)
    spec = task.spec(data, measured.image, None)
    plan = resolve(
        task.config,
        model=spec,
        image=measured.image,
        facts=measured.facts,
        machine=measured.machine,
        world_size=measured.processes,
    )
    list(task.check(plan, data))  # raises what a run would
    if tokenizer:
        tokens = TargetSpec(kind="tokens", loss_on=spec.target.loss_on, vocabulary=tokenizer.vocabulary)
        plan = replace(plan, model=replace(spec, target=tokens))
    return Planned(plan=plan, tokenizer=tokenizer)


def _without_tokens(unit: Unit) -> Pretrain:
    """Its pre-training, with pixels for tokens whose tokenizer is not there yet."""
    config = unit.pretraining
    if config.target.kind == "tokens":
        config = replace(config, target=replace(config.target, kind="pixels", tokenizer=None))
    return Pretrain(config)


def _tokenizer(unit: Unit, measured: Plan) -> TokenizerSpec | None:
    """The tokenizer of its target: the one that a step of its own trains, or the one that was given."""
    target = unit.pretraining.target
    if target.kind != "tokens":
        return None
    trained = [s.task.config for s in unit.steps if isinstance(s.task.config, TokenizerConfig)]
    if not trained:
        assert target.tokenizer is not None
        encoder = planned_model(measured).encoder
        return read_tokens(target.tokenizer, measured.image, encoder).model.spec
    config = trained[0]
    return TokenizerSpec(
        image_size=pair("data.size", config.data.size),
        channels=measured.image.channels,
        **vars(config.model),
    )


def _seconds(ablation: Ablation, unit: Unit, planned: Planned, rate: float, reading: float) -> float:
    """Arithmetic at the measured rate, images read once for each run, and what every run takes."""
    return sum(
        _step_flops(ablation, step, planned) / rate
        + RUN_SECONDS
        + reading * _images_read(ablation, step, planned.plan)
        for step in unit.steps
    )


def _step_flops(ablation: Ablation, step: Step, planned: Planned) -> float:
    config, spec = step.task.config, planned.spec
    if isinstance(step.task, Pretrain):
        t = planned.plan.training
        return float(planned.training_flops * t.batch * t.steps)
    if isinstance(config, TokenizerConfig):
        assert planned.tokenizer is not None
        each = count_tokenizer(planned.tokenizer, spec.encoder.grid).training_flops
        return each * _samples(config, planned.plan.facts.training_images)
    assert ablation.labels is not None
    whole = count(EncoderSpec(encoder=spec.encoder)).flops
    factor = 1 if config.head.tune_blocks == 0 else BACKWARD_FACTOR
    return factor * whole * _samples(config, len(ablation.labels.training))


def _samples(config: object, images: int) -> float:
    o = config.optim  # type: ignore[attr-defined]  # every training configuration has this section
    return o.steps * o.batch if o.steps is not None else o.epochs * images


def _images_read(ablation: Ablation, step: Step, plan: Plan) -> float:
    """To be measured, to be kept or read again for each sample, and to be evaluated."""
    labels, f = ablation.labels, plan.facts
    labelled = len(labels.training) + len(labels.validation) if labels else 0
    if isinstance(step.task, Pretrain):
        training, others = f.training_images, f.held_out_images + labelled
    elif isinstance(step.task.config, TokenizerConfig):
        training, others = f.training_images, f.held_out_images
    else:
        assert labels is not None
        training, others = len(labels.training), len(labels.validation)
    samples = _samples(step.task.config, training)
    read = training if plan.loading.keep_decoded else samples
    return min(MEASURED_IMAGES, training) + (read + others) / max(1, plan.loading.workers)


def _seconds_to_read(data: Data, plan: Plan) -> float:
    """Operations for one image."""
    some = pictured(data.training, TIMED_IMAGES)
    began = time.perf_counter()
    load_centre_crops(some, plan.image, max_megapixels=plan.loading.max_megapixels)
    return (time.perf_counter() - began) / len(some)


def _kept_bytes(unit: Unit, planned: Planned) -> int:
    cost, total = count(planned.spec), 0
    for step in unit.steps:
        if isinstance(step.task, Pretrain):
            total += FLOAT * cost.parameters
        elif not isinstance(step.task.config, TokenizerConfig):
            total += FLOAT * cost.encoder_parameters
        total += PICTURES_BYTES
    if planned.tokenizer:  # its own run has it, and so has the one that predicts its tokens
        grid = planned.spec.encoder.grid
        total += 2 * FLOAT * count_tokenizer(planned.tokenizer, grid).parameters
    return total


def _working_bytes(planned: Planned) -> int:
    """Checkpoints hold weights and both averages of AdamW; one more is being written."""
    t = planned.plan.training
    copies = 3 + (t.ema is not None)
    return FLOAT * copies * count(planned.spec).parameters * (t.keep_checkpoints + 1)
