"""A run's length as time: from 10m to seconds, and from what things take to a number of steps. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass

UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
FORM = re.compile("".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit})?" for unit in UNITS))
MOST_STEPS = 10**9


def seconds_in(time: str) -> float:
    """Seconds of 90s, 10m or 1h30m. Raises ValueError that shows how to write it."""
    found = FORM.fullmatch(time.strip().lower())
    parts = found.groups() if found else ()
    seconds = sum(float(part or 0) * unit for part, unit in zip(parts, UNITS.values(), strict=False))
    if not seconds > 0:
        raise ValueError(f"--time takes a length such as 90s, 10m or 1h30m, and got {time!r}: write 10m")
    return seconds


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the parts of a run take on this machine, in seconds."""

    step: float
    """In the first epoch, if decoded images are kept, and in all others."""
    later_step: float
    """In the epochs after it."""
    once: float
    """What is still to come whatever the number of steps: building the model, starting the loader, the
    first look at held-out images, the report."""
    evaluations: tuple[float, ...]
    """Each evaluation, in the order of the task's evaluators."""
    save: float
    """A checkpoint."""


@dataclass(frozen=True)
class Layout:
    """A run of so many steps: how often it evaluates, in the order of `Costs.evaluations`, and saves."""

    steps: int
    steps_per_epoch: float
    evaluations: tuple[int, ...]
    saves: int

    def seconds(self, costs: Costs) -> float:
        """What it takes."""
        first = min(self.steps, self.steps_per_epoch)
        evaluations = zip(self.evaluations, costs.evaluations, strict=True)
        evaluating = sum(count * cost for count, cost in evaluations)
        training = first * costs.step + (self.steps - first) * costs.later_step
        return costs.once + training + evaluating + self.saves * costs.save


def steps_within(seconds: float, costs: Costs, layout: Callable[[int], Layout]) -> int:
    """The most steps that end in time; 0 if not even one does.

    `layout` says what a run of so many steps does; more steps take longer.
    """

    def fits(steps: int) -> bool:
        return layout(steps).seconds(costs) <= seconds

    least, most = 0, 1
    while most < MOST_STEPS and fits(most):
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least
