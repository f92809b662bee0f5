"""What is measured along the way."""

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from PIL.Image import Image

from unmask.distributed.processes import Processes
from unmask.engine.captured import replay_command
from unmask.engine.machine import autocast, peak_memory_gib
from unmask.engine.metrics import MetricsLog
from unmask.engine.optim import learning_rate
from unmask.engine.session import Session, TrainingState
from unmask.engine.signals import SignalReceived, StopRequest
from unmask.engine.spikes import newest_spike
from unmask.engine.stoppable import stopped_together
from unmask.engine.task import Evaluator, Scheduled


class Clock:
    """Speed and waiting time since the last record."""

    def __init__(self) -> None:
        self._restart()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time that counts as waiting for the data of one step."""
        began = time.perf_counter()
        yield
        self.waited += time.perf_counter() - began
        self.steps += 1

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Time that is not training: evaluation, pictures, saving."""
        began = time.perf_counter()
        yield
        self.aside += time.perf_counter() - began

    def lap(self, batch: int) -> dict[str, float]:
        """Images per second and share of time waiting for data; starts again from zero."""
        seconds = time.perf_counter() - self.started - self.aside
        lap = {"images_per_second": self.steps * batch / seconds, "data_wait": self.waited / seconds}
        self._restart()
        return lap

    def _restart(self) -> None:
        self.started, self.waited, self.aside, self.steps = time.perf_counter(), 0.0, 0.0, 0


def progress_record(session: Session, state: TrainingState, clock: Clock) -> dict[str, Any]:
    """What the steps since the last record came to."""
    plan, step = session.training, state.step
    speed = clock.lap(plan.batch)
    return {
        "step": step,
        "epoch": round(step / plan.steps_per_epoch, 4),
        "lr": learning_rate(step - 1, plan),
        **state.meter.averages(),
        **speed,
        "memory_gib": round(peak_memory_gib(session.processes.device), 3),
        "skipped_steps": state.meter.skipped_steps,
    }


def report(
    session: Session,
    state: TrainingState,
    metrics: MetricsLog | None,
    record: dict[str, Any] | None,
    stop: StopRequest,
    stopping: bool = False,
) -> bool:
    """Evaluates what is due on all processes; the main one writes it down.

    False if all processes are stopping, or a signal to one of them stops the evaluation: the record then
    stays in `state.unreported`.
    """
    step, last = state.step, state.step == session.training.steps
    due = [s for s in session.evaluators if step == 0 or last or step % s.every == 0]
    if record is None and due:
        record = {"step": step, "epoch": round(step / session.training.steps_per_epoch, 4)}
    state.unreported = record
    if due and stopping:
        return False
    try:
        measured = _scores(session, state, due, stop) if due else {}
    except SignalReceived:
        return False
    state.unreported = None
    if metrics is None or record is None:
        return True
    record |= measured
    metrics.add(record)
    session.console.record(record)
    if spike := newest_spike(metrics.records):
        see = replay_command(session.run.path, spike.step)
        session.console.say(f"{spike.message()}; see the step again with {see}")
    return True


def _scores(
    session: Session, state: TrainingState, due: Sequence[Scheduled], stop: StopRequest
) -> dict[str, float]:
    """Scores of what a run leaves behind: the average of the weights, if there is one.

    Raises SignalReceived on all processes if one of them got a signal.
    """

    def evaluate(processes: Processes) -> dict[str, float]:
        scores: dict[str, float] = {}
        for scheduled in due:
            scores |= _evaluate(session, scheduled.evaluator, state.step, processes)
        return scores

    with state.average.applied(session.model) if state.average else nullcontext():
        return stopped_together(session.processes, stop, evaluate)


def _evaluate(
    session: Session, evaluator: Evaluator, step: int, processes: Processes
) -> dict[str, float]:
    """Scores are returned; the main process saves pictures under samples/."""
    scores = {}
    with torch.inference_mode(), autocast(session.training):
        for name, value in evaluator.run(session.model, processes):
            if isinstance(value, Image):
                if not processes.is_main:
                    continue
                value.save(png := io.BytesIO(), format="png")
                session.run.write(f"samples/{name}-{step:08d}.png", png.getvalue())
            else:
                scores[name] = value
    return scores
