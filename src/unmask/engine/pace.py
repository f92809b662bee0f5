"""What a run says of its reading: how much of its time went into waiting for data."""

import math
from typing import Any

from unmask.config.pace import KEEPS_UP, slower
from unmask.config.plan import Plan

AHEAD = 2
"""Batches that each loader process has ready before they are asked for."""
ENOUGH = 50
"""Steps after which a run says that reading is too slow, while it goes on."""


class Pace:
    """Adds up waiting from the second epoch on, when decoded images are in memory if they are kept.

    A run of less than two epochs counts from its second record on. The first batches of each loader
    process never count: they wait for the process to start.
    """

    def __init__(self, plan: Plan, start: int):
        """`start`: the step after which this part of the run begins, with nothing in memory."""
        t = plan.training
        epoch = math.ceil(t.steps_per_epoch)
        self.plan, self._last, self._told = plan, start, False
        usual = epoch if t.steps - start >= 2 * epoch else t.log_every
        self._first = start + max(usual, AHEAD * plan.loading.workers)
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    def add(self, record: dict[str, Any] | None) -> None:
        """The metrics since the last record, if there are any."""
        if record is None:
            return
        began, self._last = self._last, record["step"]
        if began < self._first:
            return
        steps = record["step"] - began
        seconds = steps * self.plan.training.batch / record["images_per_second"]
        self._steps += steps
        self._seconds += seconds
        self._waited += seconds * record["data_wait"]

    @property
    def waiting(self) -> float | None:
        """Share of the time; None before anything counts."""
        return self._waited / self._seconds if self._seconds else None

    def sentence(self, *, at_end: bool) -> str | None:
        """What a user should hear now: once that reading is too slow, and at the end in any case."""
        if self.waiting is None:
            return None
        late = self._steps >= ENOUGH and self.waiting > KEEPS_UP and not self._told
        self._told |= late
        return slower(self.plan, waiting=self.waiting) if at_end or late else None
