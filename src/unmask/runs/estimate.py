"""What a run would take on this machine: a step on a few images is measured, the rest is arithmetic."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from unmask.config.plan import Plan
from unmask.cost.memory import saved_bytes
from unmask.distributed.processes import Processes, connected
from unmask.engine.console import RunConsole
from unmask.engine.loop import accumulate, as_module, take_step
from unmask.engine.machine import detect_machine
from unmask.engine.run_directory import RunDirectory
from unmask.engine.session import Session, disk_use, restore
from unmask.engine.signals import StopRequest
from unmask.runs.run import Prepared, assemble, batches_of, prepare_alone, summary_of
from unmask.runs.study import Settings, device_of, stages_of
from unmask.storage import free_space
from unmask.tasks.base import BaseTask
from unmask.units import counted, data_size, duration

ASSUMED_FLOPS = {"cpu": 2e10, "mps": 1e12, "cuda": 1e13}
"""Operations per second, to choose how many images are measured; too low rather than too high."""
AIM_SECONDS, MOST_SECONDS = 2.0, 20.0
"""How long a measured step should take, and how long the shortest that is measured may."""
FEWEST = 2
"""Images, since batch normalisation and mixup need two."""
MEASURED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step on few images took on this machine."""

    images: int
    seconds: float
    """Seconds of arithmetic."""
    reading: float
    """Seconds to read and prepare one image, in one process."""
    image_bytes: int
    """Activations of one image, kept for the backward pass."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run takes on this machine."""

    folder: Path
    lines: tuple[str, ...]
    """What is trained on what."""
    plan: Plan
    step: Step | None
    """None if a step on the fewest images takes too long."""
    state_bytes: int
    """Weights, gradients, the optimizer's state, and EMA weights."""
    checkpoint_bytes: int
    disk_bytes: int
    """Checkpoints and the model; pictures and logs are small beside them."""
    free_bytes: int
    evaluations: int

    @property
    def seconds(self) -> float:
        """The time of all steps, without evaluations: arithmetic or reading, whichever is slower."""
        if self.step is None:
            return math.nan
        t, loading = self.plan.training, self.plan.loading
        samples = t.steps * t.batch
        epoch = self.plan.facts.training_images * loading.repeats
        read = min(samples, epoch) if loading.keep_decoded else samples
        reading = read * self.step.reading / (max(1, loading.workers) * self.plan.processes)
        return max(t.steps * t.process_batch * self.step.seconds / self.step.images, reading)

    def messages(self) -> Iterator[str]:
        """Data, settings and steps; then time, memory and disk."""
        yield from self.lines
        yield from self.needs()

    def needs(self) -> Iterator[str]:
        """Time, memory and disk."""
        yield self._time()
        yield self._memory()
        yield (
            f"disk: up to {data_size(self.disk_bytes)} in {self.folder}, of which a checkpoint takes "
            f"{data_size(self.checkpoint_bytes)}; {data_size(self.free_bytes)} are free"
        )

    def _time(self) -> str:
        if self.step is None:
            return (
                "time: not estimated, since a single step would take minutes on this machine: try a "
                "smaller model or smaller images, or see unmask plan for other devices"
            )
        t = self.plan.training
        return (
            f"time: about {duration(self.seconds)} on this machine for the steps, "
            f"{self.seconds / t.steps:.2g} s each, as measured on {self.step.images} images; "
            f"{self.evaluations} evaluations come on top"
        )

    def _memory(self) -> str:
        t, loading, f = self.plan.training, self.plan.loading, self.plan.facts
        each = " of each process" if self.plan.processes > 1 else ""
        state = f"{data_size(self.state_bytes)} for weights, gradients and optimizer"
        if self.step is None:
            return f"memory{each}: {state}, and more for the activations of {t.micro_batch} images"
        images = data_size(self.step.image_bytes * t.micro_batch)
        kept = (
            f", {data_size(f.training_images * f.decoded_bytes)} for decoded images"
            if loading.keep_decoded
            else ""
        )
        return (
            f"memory{each}: about {state}, {images} for the activations of {t.micro_batch} "
            f"images{kept}, beside what Python and the libraries take"
        )


def estimate(task: BaseTask) -> Estimate:
    """Plans a run, measures a step of it on few images, and writes nothing that stays.

    Raises ValueError, DataError or CheckpointError with a fix, as a run does.
    """
    began, machine = perf_counter(), detect_machine(task.config.run.device)
    with connected(machine.device) as processes:
        task, prepared = prepare_alone(task, machine, processes, began)
        return processes.from_main(_estimate(task, prepared, processes))


def estimate_sweep(runs: Sequence[tuple[Settings, BaseTask]], *, base: BaseTask) -> dict[str, Estimate]:
    """The same of each run of a sweep, by the name of its directory."""
    with connected(device_of([base])) as processes:
        return {one.name: estimate(one.task) for one in stages_of(runs, base, processes)}


def summary_of_sweep(estimates: dict[str, Estimate]) -> Iterator[str]:
    """The sentences of each run below its name, and how long all of them take."""
    for name, one in estimates.items():
        yield f"{name}:"
        yield from (f"  {sentence}" for sentence in (one.lines[-1], *one.needs()))
    total = sum(one.seconds for one in estimates.values())
    took = "" if math.isnan(total) else f", about {duration(total)} in all"
    yield f"{counted(len(estimates), 'run')}{took}"


def _estimate(task: BaseTask, prepared: Prepared, processes: Processes) -> Estimate:
    plan, folder = prepared.plan, task.path()
    with TemporaryDirectory() as place:
        trial = type(task)(replace(task.config, out=place))
        console, directory = RunConsole(speaks=False), RunDirectory(Path(place))
        session = assemble(trial, prepared, directory, processes, console)
        one, whole = disk_use(session, restore(session))
        step = None
        if images := _images(session):
            few = replace(prepared, plan=_on_few(plan, images))
            batches = batches_of(trial, few, directory, processes, console)
            step = _measure(replace(session, plan=few.plan, batches=batches), images)
    gradients = sum(p.nbytes for p in session.model.parameters() if p.requires_grad)
    every = min((one.every for one in session.evaluators), default=plan.training.steps)
    return Estimate(
        folder=folder,
        lines=tuple(summary_of(task, prepared, folder)),
        plan=plan,
        step=step,
        state_bytes=one + gradients,
        checkpoint_bytes=one,
        disk_bytes=whole,
        free_bytes=free_space(folder),
        evaluations=1 + math.ceil(plan.training.steps / every),
    )


def _images(session: Session) -> int:
    """How many images to measure; 0 if the fewest take too long. Guessed from the parameters' number."""
    plan = session.plan
    h, w = plan.image.size
    try:
        tokens = plan.model.encoder.patches
    except ValueError:  # a tokenizer has no Vision Transformer
        tokens = h * w // 64
    parameters = sum(p.numel() for p in session.model.parameters())
    each = 6 * parameters * tokens / ASSUMED_FLOPS[plan.training.device]
    unit = math.lcm(FEWEST, plan.loading.repeats)
    if unit * each > MOST_SECONDS:
        return 0
    return unit * max(1, min(int(AIM_SECONDS / each), plan.training.micro_batch) // unit)


def _on_few(plan: Plan, images: int) -> Plan:
    """Steps of two micro-batches in each process, of so many images and of half as many more."""
    t, mine = plan.training, 3 * images
    few = replace(
        t,
        steps=MEASURED_STEPS,
        batch=mine * plan.processes,
        process_batch=mine,
        micro_batch=2 * images,
        compile=False,
    )
    return replace(plan, training=few, loading=replace(plan.loading, workers=0))


def _measure(session: Session, images: int) -> Step:
    """The fastest of a few steps, or the first if it takes long."""
    state, module = restore(session), as_module(session)
    times = list[float]()
    began = perf_counter()
    with closing(session.batches.from_step(0, lambda: False)) as batches:
        micro_batches = next(batches)
        reading = (perf_counter() - began) / (3 * images)
        kept = [
            saved_bytes(session.model, lambda: accumulate(session, module, [batch], 0))  # noqa: B023  # called at once
            for batch in micro_batches
        ]
        while len(times) < MEASURED_STEPS and sum(times) < AIM_SECONDS:
            began = perf_counter()
            take_step(session, state, module, micro_batches[1:], StopRequest()).values.tolist()
            times.append(perf_counter() - began)
    return Step(
        images=images,
        seconds=min(times),
        reading=reading,
        image_bytes=max(0, (kept[0] - kept[1]) // images),
    )
