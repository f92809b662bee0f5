"""What steps measured: computed on the device, and read by the host without making the device wait."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Measured(NamedTuple):
    """What one step came to, as numbers."""

    sums: dict[str, float]
    """Over all images, multiplied by their weights."""
    weight: float
    stops: bool
    """Whether any process was asked to stop."""
    norm: float
    """The gradient's norm before clipping; not finite if the step was skipped."""


class StepMetrics(NamedTuple):
    """Measurements of one step, over all processes."""

    step: int
    """Steps done with this one."""
    names: tuple[str, ...]
    samples: list[Tensor]
    """Indices of this process's images, by micro-batch."""
    values: Tensor
    """Sums under `names`, their weight, processes that were asked to stop, the gradient's norm."""

    def measured(self) -> Measured:
        """As numbers; waits for the device if they are still there."""
        *sums, weight, stops, norm = self.values.tolist()
        return Measured(dict(zip(self.names, sums, strict=True)), weight, stops > 0, norm)


class Readings:
    """A queue: a GPU's readings are taken one step late, when the next step is already asked for."""

    def __init__(self, *, late: int):
        """`late`: how many of the newest readings stay in the queue."""
        self.late = late
        self._queue: deque[tuple[StepMetrics, torch.cuda.Event | None]] = deque()

    @classmethod
    def on(cls, device: torch.device) -> "Readings":
        """As it suits the device."""
        return cls(late=1 if device.type == "cuda" else 0)

    def add(self, reading: StepMetrics) -> None:
        """Asks for a copy in the host's memory."""
        arrives = None
        if reading.values.is_cuda:
            reading = reading._replace(values=reading.values.to("cpu", non_blocking=True))
            arrives = torch.cuda.Event()
            arrives.record()
        self._queue.append((reading, arrives))

    def take(self, *, wait: bool) -> Iterator[StepMetrics]:
        """Those that are due, in order; with `wait` all of them."""
        while len(self._queue) > (0 if wait else self.late):
            reading, arrives = self._queue.popleft()
            if arrives:
                arrives.synchronize()
            yield reading
