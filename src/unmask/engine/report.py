"""What is measured along the way."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from PIL.Image import Image

from unmask.engine.captured import replay_command
from unmask.engine.machine import autocast, peak_memory_gib
from unmask.engine.metrics import MetricsLog
from unmask.engine.optim import learning_rate
from unmask.engine.session import Session, TrainingState
from unmask.engine.spikes import newest_spike
from unmask.engine.task import Evaluator


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
    session: Session, state: TrainingState, metrics: MetricsLog | None, record: dict[str, Any] | None
) -> None:
    """Evaluates what is due on all processes; the main one writes it down."""
    step, last = state.step, state.step == session.training.steps
    due = [s for s in session.evaluators if step == 0 or last or step % s.every == 0]
    measured: dict[str, float] = {}
    # What a run leaves behind is what is measured: the average, if there is one.
    model = session.model
    with state.average.applied(model) if state.average and due else nullcontext():
        for scheduled in due:
            measured |= _evaluate(session, scheduled.evaluator, step)
    if metrics is None:
        return
    if record is None and measured:
        record = {"step": step, "epoch": round(step / session.training.steps_per_epoch, 4)}
    if record is not None:
        record |= measured
        metrics.add(record)
        session.console.record(record)
        if spike := newest_spike(metrics.records):
            see = replay_command(session.run.path, spike.step)
            session.console.say(f"{spike.message()}; see the step again with {see}")


def _evaluate(session: Session, evaluator: Evaluator, step: int) -> dict[str, float]:
    """Scores are returned; the main process saves pictures under samples/."""
    scores = {}
    with torch.inference_mode(), autocast(session.training):
        for name, value in evaluator.run(session.model, session.processes):
            if isinstance(value, Image):
                if not session.processes.is_main:
                    continue
                value.save(png := io.BytesIO(), format="png")
                session.run.write(f"samples/{name}-{step:08d}.png", png.getvalue())
            else:
                scores[name] = value
    return scores
