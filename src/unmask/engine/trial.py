"""How long the parts of a run take on this machine: a few real steps, whose outcome is thrown away."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch import nn

from unmask.config.budget import Costs
from unmask.engine.loop import as_module, take_step
from unmask.engine.machine import autocast, keep_freed_memory
from unmask.engine.metrics import MetricsLog
from unmask.engine.pace import AHEAD
from unmask.engine.session import Session, TrainingState, restore, save
from unmask.engine.signals import StopRequest
from unmask.engine.task import Evaluator

LEAST, MOST = 3, 300
"""Steps that are timed, after two to warm up."""
SHARE, MOST_SECONDS = 0.02, 5.0
"""Share of the remaining time: how long to time steps, unless a few take longer."""
WAITING = 0.05
"""Share of a step spent waiting for data, from which kept images may make later epochs faster."""


class Stopwatch:
    """The seconds that are left of a run's time; the main process's clock decides for all."""

    def __init__(self, session: Session, left: float):
        self._processes, self._ends = session.processes, time.perf_counter() + left

    @property
    def left(self) -> float:
        """Seconds, the same on all processes. Raises TimeoutError if there are none."""
        left = self.agreed(self._ends - time.perf_counter())
        if left <= 0:
            raise TimeoutError
        return left

    def timed(self, part: Callable[[], Any]) -> float:
        """The seconds that a part took, the main process's on all."""
        began = time.perf_counter()
        part()
        return self.agreed(time.perf_counter() - began)

    def agreed(self, value: Any) -> Any:
        """The main process's, on all."""
        return self._processes.from_main(value)


class Pace(NamedTuple):
    """Seconds: the first step, with all that it starts, and each of the others."""

    first: float
    step: float
    waited: float
    """Seconds of a step that wait for data."""


def time_parts(session: Session, left: float) -> Costs:
    """Trains for a moment, evaluates and saves once; what the main process measured, on all.

    `left` is how many seconds the run still has; `Costs.once` is what comes again however long the run
    is: the first step and the first evaluation. Raises TimeoutError if even this takes too long.
    """
    clock = Stopwatch(session, left)
    keep_freed_memory(session.training.device)
    state = restore(session)
    module = as_module(session)
    pace = later = _pace(session, state, module, clock)
    if session.plan.loading.keep_decoded and pace.waited > WAITING * pace.step:
        later = _pace(session, state, module, clock)
    firsts, evaluations = list[float](), list[float]()
    for scheduled in session.evaluators:
        firsts.append(clock.timed(lambda: _evaluate(session, scheduled.evaluator)))  # noqa: B023  # called at once
        evaluations.append(firsts[-1])
        # The first evaluation also reads and prepares the images; if there is time, what others take.
        if firsts[-1] < SHARE * clock.left:
            evaluations[-1] = clock.timed(lambda: _evaluate(session, scheduled.evaluator))  # noqa: B023  # as above
    log = MetricsLog(session.run, None) if session.processes.is_main else None
    if log:
        log.add({"step": state.step})
    return Costs(
        step=pace.step,
        later_step=min(pace.step, later.step),
        once=pace.first + sum(firsts),
        evaluations=tuple(evaluations),
        save=clock.timed(lambda: save(session, state, log)),
    )


def _pace(session: Session, state: TrainingState, module: nn.Module, clock: Stopwatch) -> Pace:
    """Timing of the first steps of the run, with its own images and crops."""
    state.step = 0
    with closing(session.batches.from_step(0, lambda: False)) as batches:
        steps = _steps(session, state, module, batches)
        (_, first), (_, second) = next(steps), next(steps)
        wanted = min(MOST_SECONDS, SHARE * clock.left)
        count = clock.agreed(max(LEAST, min(MOST, int(wanted / second))))
        taken = [next(steps) for _ in range(count)]
    # Batches that were ready before the first of these steps do not tell how fast the loader is.
    ready = AHEAD * session.plan.loading.workers
    taken = taken[ready:] if count > 2 * ready else taken
    waited, seconds = (sum(part) / len(taken) for part in zip(*taken, strict=True))
    return Pace(*map(clock.agreed, (first, seconds, waited)))


def _steps(
    session: Session, state: TrainingState, module: nn.Module, batches: Iterator[list[Any]]
) -> Iterator[tuple[float, float]]:
    """Takes steps; the seconds of each, waiting for data and in all."""
    while True:
        began = time.perf_counter()
        micro_batches = next(batches)
        waited = time.perf_counter() - began
        reading = take_step(session, state, module, micro_batches, StopRequest())
        reading.values.tolist()  # waits for the device
        yield waited, time.perf_counter() - began


def _evaluate(session: Session, evaluator: Evaluator) -> None:
    with torch.inference_mode(), autocast(session.training):
        for _ in evaluator.run(session.model, session.processes):
            pass
