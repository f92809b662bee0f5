"""Steps that went wrong, written down so that `unmask replay` can show them.

A step is numbered as metrics.jsonl and checkpoints number it: the first is 1. Nothing of a step is
stored but that: (seed, step) decides its images, crops and masks, and a checkpoint before it the
weights.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unmask.engine.checkpoint import steps_in
from unmask.engine.readings import StepMetrics
from unmask.engine.run_directory import RunDirectory
from unmask.engine.spikes import spikes
from unmask.storage import from_json, read_regular

BAD_STEPS = "bad_steps.jsonl"
SKIPPED, SPIKE = "skipped step", "loss spike"
RECENT = 1000
"""Records that are looked at for spikes, at each checkpoint."""


class Captured(NamedTuple):
    """A step that went wrong."""

    step: int
    reason: str
    before: int
    """Steps done before it began: a spike is somewhere among the steps that its record averages."""


def replay_command(run: Path, step: int) -> str:
    """What to type to see a step again."""
    return shlex.join(["unmask", "replay", str(run), "--step", str(step)])


def bad_step(reading: StepMetrics, seed: int) -> dict[str, Any]:
    """A line of bad_steps.jsonl: `step` counts from 0, as the step's draws do; `replay` from 1."""
    samples = torch.cat(reading.samples).tolist()
    return {"step": reading.step - 1, "seed": seed, "samples": samples, "replay": reading.step}


def captured_in(run: RunDirectory, records: Sequence[dict[str, Any]], log_every: int) -> list[Captured]:
    """Skipped steps and loss spikes of a run, by rising step; `records` are its metrics.

    Lines that are no record of a step are ignored.
    """
    high = {one.step: Captured(one.step, SPIKE, max(0, one.step - log_every)) for one in spikes(records)}
    skipped = {step: Captured(step, SKIPPED, step - 1) for step in _bad_steps(run)}
    return [one for _, one in sorted({**high, **skipped}.items())]


def newest_captured(captured: Sequence[Captured]) -> Captured | None:
    """The newest that does not follow another at once: the cause is in the first of a series."""
    steps = {one.step for one in captured}
    return next((one for one in reversed(captured) if one.step - 1 not in steps), None)


def to_keep(run: RunDirectory, records: Sequence[dict[str, Any]], log_every: int) -> int | None:
    """The step of the checkpoint from which the newest captured step can be replayed soonest."""
    newest = newest_captured(captured_in(run, records[-RECENT:], log_every))
    steps = [step for step, _ in steps_in(run.checkpoints)]
    return max((step for step in steps if newest and step <= newest.before), default=None)


def _bad_steps(run: RunDirectory) -> list[int]:
    try:
        lines = read_regular(run.path / BAD_STEPS).splitlines()
    except OSError:
        return []
    return [step for line in lines if (step := _step_of(line)) is not None]


def _step_of(line: bytes) -> int | None:
    try:
        step = from_json(line)["step"]
    except (ValueError, TypeError, KeyError):
        return None
    return step + 1 if type(step) is int and step >= 0 else None
