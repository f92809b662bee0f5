"""Evaluations that all processes leave together, on a signal that may have reached only one of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from unmask.distributed.processes import Processes
from unmask.engine.signals import SignalReceived, StopRequest

T = TypeVar("T")


class StoppedTogether(SignalReceived):
    """The same on all processes: each knows that the others stop, too."""


def stopped_together(processes: Processes, stop: StopRequest, act: Callable[[Processes], T]) -> T:
    """What `act` returns, which a signal to any of the processes leaves undone on all of them.

    One that gets a signal leaves at once, and waits until the others have done their part of what comes
    before their next exchange. Raises SignalReceived on all or on none.
    """
    together = _Stoppable(processes.rank, processes.size, processes.device, stop)
    try:
        done = stop.at_once(lambda: act(together))
    except StoppedTogether:
        raise
    except SignalReceived:
        together.vote(stopping=True)
        raise
    together.vote(stopping=False)
    return done


@dataclass(frozen=True)
class _Stoppable(Processes):
    """Before each exchange all agree whether to stop: a process that is gone would be waited for."""

    stop: StopRequest

    def vote(self, *, stopping: bool) -> None:
        """Raises StoppedTogether on all if one of them is stopping."""
        if Processes.sum(self, torch.tensor([float(stopping)], device=self.device)).item():
            raise StoppedTogether

    def sum(self, values: Tensor) -> Tensor:
        return self._exchanged(lambda: Processes.sum(self, values))

    def gather(self, value: Any) -> list[Any]:
        return self._exchanged(lambda: Processes.gather(self, value))

    def _exchanged(self, exchange: Callable[[], T]) -> T:
        def unless_stopping() -> T:
            self.vote(stopping=False)
            return exchange()

        return self.stop.later(unless_stopping)
