"""The parts of a run, and how they are saved and restored."""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from unmask.config.plan import TrainingPlan
from unmask.distributed.processes import Processes
from unmask.engine import checkpoint
from unmask.engine.console import RunConsole
from unmask.engine.ema import WeightAverage
from unmask.engine.metrics import Meter, MetricsLog
from unmask.engine.optim import build_optimizer
from unmask.engine.run_directory import RunDirectory
from unmask.engine.task import Task


class BatchSource(Protocol):
    """Gives each step its micro-batches, from any step on."""

    def from_step(self, start: int) -> Generator[list[Any], None, None]: ...


@dataclass
class TrainingState:
    """What changes from step to step."""

    step: int
    """Steps done."""
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    meter: Meter = field(default_factory=Meter)
    bad_in_a_row: int = 0


@dataclass(frozen=True)
class Session:
    """The parts of a run that do not change."""

    task: Task
    batches: BatchSource
    plan: TrainingPlan
    run: RunDirectory
    processes: Processes
    console: RunConsole


def restore(session: Session) -> TrainingState:
    """The state after the newest whole checkpoint, or at step 0."""
    optimizer = build_optimizer(session.task.param_groups(), session.plan)
    model = session.task.model
    average = WeightAverage(model, session.plan.ema) if session.plan.ema else None
    state = TrainingState(0, optimizer, average)
    say = session.console.say
    # The main process tidies up first, then all read the same checkpoint.
    found = checkpoint.load_newest(session.run.checkpoints, say) if session.processes.is_main else None
    step = session.processes.from_main(found.step if found else None)
    if step is None:
        return state
    found = found or checkpoint.read(session.run.checkpoints / f"step-{step:08d}")
    model.load_state_dict(found.tensors["model"])
    checkpoint.restore_optimizer(optimizer, model, found.tensors["optimizer"])
    if average:
        average.load(found.tensors["average"])
    state.step = step
    state.meter = Meter(**found.loop["meter"])
    state.bad_in_a_row = found.loop["bad_in_a_row"]
    say(f"resuming exactly after step {step} of {session.plan.steps}")
    return state


def save(session: Session, state: TrainingState, metrics: MetricsLog | None) -> None:
    """Writes a checkpoint and the table of metrics, on the main process."""
    if metrics:
        content = checkpoint.collect(
            state.step,
            session.task.model,
            state.optimizer,
            state.average,
            {"meter": state.meter.state(), "bad_in_a_row": state.bad_in_a_row},
        )
        checkpoint.save(session.run.checkpoints, content, session.plan.keep_checkpoints)
        metrics.write_csv()
    session.processes.wait()
