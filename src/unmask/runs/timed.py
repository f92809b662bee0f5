"""A run whose length was asked for as time: a few steps are timed, then laid out as steps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from unmask.config.budget import Layout, seconds_in, steps_within
from unmask.config.plan import EarlierPlan, Plan
from unmask.engine.run_directory import RunDirectory
from unmask.engine.session import Session
from unmask.engine.task import Scheduled
from unmask.engine.trial import time_parts
from unmask.storage import remove
from unmask.units import duration

TRIAL_STEPS = 100_000
"""The length that the timed steps are laid out for: intervals that are shares of a run show as such."""
PREFIX = ".timed-"
"""How the name of the folder begins that what is timed is written to; a kill leaves it."""
RESERVE = 0.01
"""Share of the time for what is not measured: the report, the model's file."""

Assemble = Callable[[Any, Plan, RunDirectory], Session]
"""Builds the parts of a task's run in a folder."""


@dataclass(frozen=True)
class Length:
    """Length of a run in steps, and a sentence on how that was found."""

    steps: int
    warmup: int
    note: str = ""


def with_length(config: Any, length: Length | None) -> Any:
    """The configuration with its length in steps; as it is if there is none."""
    if length is None:
        return config
    optim = replace(config.optim, steps=length.steps, warmup_steps=length.warmup)
    return replace(config, optim=optim)


def length_in_time(
    task: Any,
    plan: Callable[[Any], Plan],
    assemble: Assemble,
    directory: RunDirectory | None,
    began: float,
) -> Length:
    """How many steps fit into --time, which began at `began` of time.perf_counter().

    `plan` resolves a configuration; the warm-up keeps its share of the task's own. What is built and
    written for the timing is thrown away. All processes get the same answer.
    Raises ValueError if the time is over before the first step.
    """
    asked, usual = task.config.run.time, plan(task.config).training
    share = usual.warmup_steps / usual.steps

    def of(steps: int) -> Length:
        return Length(steps, math.floor(share * steps))

    ends, building = began + (1 - RESERVE) * seconds_in(asked), perf_counter()
    with TemporaryDirectory(dir=directory.path if directory else None, prefix=PREFIX) as folder:
        trial = type(task)(replace(task.config, out=folder))
        drawn = plan(with_length(task.config, of(TRIAL_STEPS)))
        session = assemble(trial, drawn, RunDirectory(Path(folder)))
        building = perf_counter() - building
        try:
            costs = time_parts(session, ends - perf_counter())
        except TimeoutError as error:
            raise _too_short(asked, perf_counter() - began) from error
    costs = replace(costs, once=costs.once + building)

    def layout(steps: int) -> Layout:
        return _layout(session.evaluators, drawn, plan(with_length(task.config, of(steps))))

    started = perf_counter() - began
    left = ends - perf_counter()
    steps = session.processes.from_main(steps_within(left, costs, layout))
    if not steps:
        raise _too_short(asked, started + costs.once)
    per_step = layout(steps).seconds(replace(costs, once=0.0)) / steps
    note = (
        f"--time {asked}: {steps} steps, of {per_step:.3g} s each with the evaluations, after "
        f"{duration(started + costs.once)} of start-up"
    )
    return replace(of(steps), note=session.processes.from_main(note))


def remove_leftovers(folder: Path) -> None:
    """Removes what a run that was killed during its timing left in its directory."""
    for leftover in folder.glob(f"{PREFIX}*"):
        remove(leftover)


def length_of(plan: EarlierPlan) -> Length:
    """As an earlier part of the run laid it out in its plan.json."""
    return Length(plan.training.steps, plan.training.warmup_steps)


def _layout(evaluators: Sequence[Scheduled], drawn: Plan, plan: Plan) -> Layout:
    """What a run does, with evaluators that were built for the plan `drawn`."""
    was, t = drawn.training, plan.training
    now = {
        was.evaluate_every: t.evaluate_every,
        was.sample_every: t.sample_every,
    }
    return Layout(
        t.steps,
        t.steps_per_epoch,
        tuple(math.ceil(t.steps / now.get(one.every, one.every)) for one in evaluators),
        math.ceil(t.steps / t.checkpoint_every),
    )


def _too_short(asked: str, took: float) -> ValueError:
    return ValueError(
        f"--time {asked} is over before the first step, since starting and evaluating take "
        f"{duration(took)} here: write --time {math.ceil(max(5 * took, 60) / 60)}m"
    )
