"""Evaluations that all processes leave together, on a signal that may have reached only one of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unmask.distributed.processes import Processes
from unmask.engine.signals import SignalReceived, StopRequest


class StoppedTogether(SignalReceived):
    """The same on all processes: each knows that the others stop, too."""


@contextmanager
def stopped_together(processes: Processes, stop: StopRequest) -> Iterator[Processes]:
    """Processes for what a signal to any of them leaves undone. Raises SignalReceived on all or on none.

    One that gets a signal leaves at once, and waits until the others have done their part of what comes
    before their next exchange.
    """
    together = _Stoppable(processes.rank, processes.size, processes.device, stop)
    try:
        with stop.at_once():
            yield together
    except StoppedTogether:
        raise
    except SignalReceived:
        together.vote(stopping=True)
    else:
        together.vote(stopping=False)


@dataclass(frozen=True)
class _Stoppable(Processes):
    """Before each exchange all agree whether to stop: a process that is gone would be waited for."""

    stop: StopRequest

    def vote(self, *, stopping: bool) -> None:
        """Raises StoppedTogether on all if one of them is stopping."""
        if super().sum(torch.tensor([float(stopping)], device=self.device)).item():
            raise StoppedTogether

    def sum(self, values: Tensor) -> Tensor:
        with self.stop.later():
            self.vote(stopping=False)
            return super().sum(values)

    def gather(self, value: Any) -> list[Any]:
        with self.stop.later():
            self.vote(stopping=False)
            return super().gather(value)
