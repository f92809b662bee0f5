"""What the loop asks of a command, and nothing more."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from PIL.Image import Image
from torch import Tensor, nn


class StepOutput(NamedTuple):
    """Loss of a micro-batch, and the true count that it is an average over."""

    loss: Tensor
    weight: float
    """Masked patches, labelled pixels, weighted images: what averages are weighted by."""
    scalars: dict[str, Tensor]
    """Further values to log, averaged like the loss."""


class Evaluator(Protocol):
    """Looks at a model from outside."""

    def run(self, model: Any) -> Iterator[tuple[str, float | Image]]:
        """Yields named numbers, for the metrics, and named pictures, for samples/."""


@dataclass(frozen=True)
class Scheduled:
    """An evaluator and how often it runs; all run before the first step and after the last."""

    evaluator: Evaluator
    every: int


class Task(Protocol):
    """What differs between commands."""

    @property
    def model(self) -> nn.Module:
        """Its state is what checkpoints hold."""

    def step(self, batch: Any, progress: float) -> StepOutput:
        """The loss of one micro-batch, at a share `progress` of the run."""

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters to train, with their weight decay."""

    def evaluators(self) -> Sequence[Scheduled]:
        """What to measure and draw along the way."""
