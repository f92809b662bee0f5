"""The parts of a run, and how they are saved and restored."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from unmask.config.plan import Plan, TrainingPlan
from unmask.distributed.processes import Processes
from unmask.engine import checkpoint
from unmask.engine.captured import to_keep
from unmask.engine.console import RunConsole
from unmask.engine.ema import WeightAverage
from unmask.engine.metrics import Meter, MetricsLog, finite, is_record
from unmask.engine.optim import build_optimizer, restore_optimizer
from unmask.engine.run_directory import RunDirectory
from unmask.engine.task import Scheduled, Task
from unmask.errors import CheckpointError, DivergenceError
from unmask.models.finite import first_not_finite
from unmask.storage import free_space, need_space
from unmask.units import data_size


class BatchSource(Protocol):
    """Gives each step its micro-batches, from any step on."""

    def from_step(
        self, start: int, stopping: Callable[[], bool]
    ) -> Generator[list[Any], None, None]: ...


@dataclass
class TrainingState:
    """What changes from step to step."""

    step: int
    """Steps done."""
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    meter: Meter = field(default_factory=Meter)
    bad_in_a_row: int = 0
    unreported: dict[str, Any] | None = None
    """The record of this step, if its evaluation is still to be done: a signal stopped it."""


@dataclass(frozen=True)
class Session:
    """The parts of a run that do not change."""

    task: Task
    model: nn.Module
    """On its device; its state is what checkpoints hold."""
    evaluators: Sequence[Scheduled]
    batches: BatchSource
    plan: Plan
    run: RunDirectory
    processes: Processes
    console: RunConsole

    @property
    def training(self) -> TrainingPlan:
        """What the loop does."""
        return self.plan.training


def restore(session: Session) -> TrainingState:
    """The state after the newest whole checkpoint, or at step 0.

    Raises CheckpointError if none of them can be used.
    """
    state = first_state(session)
    folder, say, main = session.run.checkpoints, session.console.say, session.processes.is_main
    # The main process tidies up first, then all read the same checkpoint.
    found = checkpoint.load_newest(folder, say, check_loop) if main else None
    step = session.processes.from_main(found.step if found else None)
    if step is None:
        return state
    go_on_from(found or checkpoint.read(folder / checkpoint.step_name(step)), session, state)
    say(_resuming(session, step))
    return state


def first_state(session: Session) -> TrainingState:
    """The state before the first step."""
    model, training = session.model, session.training
    optimizer = build_optimizer(session.task.param_groups(model, session.plan), training)
    average = WeightAverage(model, training.ema) if training.ema else None
    return TrainingState(0, optimizer, average, unreported={"step": 0, "epoch": 0.0})


def go_on_from(found: checkpoint.Checkpoint, session: Session, state: TrainingState) -> None:
    """Model and state as a checkpoint has them. Raises CheckpointError if it is of another model."""
    model = session.model
    try:
        model.load_state_dict(found.tensors["model"])
        restore_optimizer(state.optimizer, model, found.tensors.get("optimizer", {}))
        if state.average:
            state.average.load(found.tensors["average"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint of step {found.step} in {session.run.checkpoints} is of another model "
            f"({error}): resume with the version of unmask that wrote it, or start a new run with "
            f"another --out"
        ) from error
    state.step = found.step
    state.meter = Meter.from_state(found.loop["meter"])
    state.bad_in_a_row = found.loop["bad_in_a_row"]
    state.unreported = found.loop.get("unreported")


def _resuming(session: Session, step: int) -> str:
    steps = session.training.steps
    if changed := session.run.changed:
        return f"resuming after step {step} of {steps}, but not exactly: {changed}"
    if differs := session.run.differs:
        listed = "; ".join(differs)
        return f"resuming after step {step} of {steps}: the same up to rounding, not exactly ({listed})"
    if session.training.device != "cpu" and not session.task.exact_on_gpus:
        return (
            f"resuming after step {step} of {steps}: the same up to rounding, since a GPU adds some "
            f"gradients of this model in no fixed order"
        )
    return f"resuming exactly after step {step} of {steps}"


def check_loop(found: checkpoint.Checkpoint) -> None:
    """Raises CheckpointError if a checkpoint's counters are not what `save` writes."""
    try:
        Meter.from_state(found.loop.get("meter"))
        if type(bad := found.loop.get("bad_in_a_row")) is not int or bad < 0:
            raise ValueError(f"the number of skipped steps in a row is {bad!r}")
        record = found.loop.get("unreported")
        if record is not None and not (is_record(record) and record["step"] == found.step):
            raise ValueError(f"the record of its step is {record!r}")
    except ValueError as error:
        raise CheckpointError(f"the state of step {found.step} is damaged: {error}") from error


def check_room(session: Session, state: TrainingState) -> None:
    """Says what the run takes on the disk. Raises CheckpointError, on all ranks, if there is less."""
    problem = None
    if session.processes.is_main:
        one, whole = disk_use(session, state)
        folder = session.run.path
        free = free_space(folder)
        session.console.say(
            f"a checkpoint takes {data_size(one)}, the run up to {data_size(whole)} more; the "
            f"disk of {folder} has {data_size(free)} free"
        )
        try:
            need_space(folder, whole, "the checkpoints and the model need up to")
        except CheckpointError as error:
            problem = str(error)
    if problem := session.processes.from_main(problem):
        raise CheckpointError(problem)


def disk_use(session: Session, state: TrainingState) -> tuple[int, int]:
    """Bytes of one checkpoint, and of what is still to be written at most at one time."""
    model = session.model
    weights = sum(value.nbytes for value in model.state_dict().values())
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    moments = 2 if session.training.optimizer == "adamw" else 1
    averages = sum(value.nbytes for value in state.average.weights.values()) if state.average else 0
    one = weights + moments * trained + averages
    training, there = session.training, len(checkpoint.steps_in(session.run.checkpoints))
    every = training.keep_every
    stay = training.steps // every - state.step // every if every else 0
    # While one is written, all that are kept are still there.
    return one, one * (max(1, training.keep_checkpoints + 1 - there) + stay) + weights


def check_finite(session: Session, state: TrainingState) -> None:
    """Raises DivergenceError, on all ranks, if the weights or their average are no longer numbers."""
    weights = dict(session.model.state_dict())
    if state.average:
        weights |= {f"average of {name}": w for name, w in state.average.weights.items()}
    if name := first_not_finite(weights):
        raise DivergenceError(
            f"after step {state.step} the weights are not finite (the first is the {name}), and no "
            f"checkpoint of them is written: start a new run with a lower --optim.base-lr and "
            f"another --out"
        )


def save(session: Session, state: TrainingState, metrics: MetricsLog | None) -> None:
    """Collects a checkpoint on all processes; the main one writes it and the table of metrics.

    Raises DivergenceError if the weights are not finite, CheckpointError if they cannot be written.
    """
    check_finite(session, state)
    loop = {"meter": state.meter.state(), "bad_in_a_row": state.bad_in_a_row}
    if state.unreported is not None:
        loop["unreported"] = finite(state.unreported)
    content = checkpoint.collect(
        state.step,
        session.model,
        state.optimizer,
        state.average,
        loop,
    )
    if metrics:
        metrics.sync()
        training = session.training
        checkpoint.save(
            session.run.checkpoints,
            content,
            training.keep_checkpoints,
            session.console.say,
            every=training.keep_every,
            stay=to_keep(session.run, metrics.records, training.log_every),
        )
        metrics.write_csv()
    session.processes.wait()


def check_success(session: Session, state: TrainingState) -> None:
    """Raises DivergenceError if a run that is at its end skipped more steps than it took."""
    skipped = state.meter.skipped_steps
    if skipped > state.step - skipped:
        raise DivergenceError(
            f"{skipped} of {state.step} steps were skipped, since their gradient was not finite: the "
            f"model has learned little; start a new run with a lower --optim.base-lr, or with "
            f"--run.precision fp32, and another --out"
        )
