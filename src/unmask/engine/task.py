"""What the loop asks of a task, and nothing more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from unmask.config.plan import Plan
from unmask.distributed.processes import Processes


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that a task measures, and how people see it: on the console, in curves and reports."""

    key: str
    """As in metrics.jsonl."""
    label: str
    format: str = "{:.4f}"
    better: str = "lower"
    """Or higher."""
    baseline: float | None = None
    """The value of a baseline without learning, drawn as a line."""
    baseline_key: str = ""
    """Key of the metric that is this baseline, if it is measured."""
    baseline_label: str = "baseline"
    images_key: str = ""
    """Key of the number of images that a share is of, for the error bars of its curve."""
    explanation: str = ""
    """Explanation of a metric that not everyone knows, in a line."""
    shortfall_words: str = ""
    """The sentence, with {} for the value, if it is no better than the baseline. Default: names of both
    and their values."""
    advice: str = ""
    """What usually helps if it is no better than the baseline."""
    on_console: bool = False
    has_curve: bool = True

    def shown(self, value: float) -> str:
        """The number with its name."""
        return f"{self.label} {self.format.format(value)}"

    def shortfall(self, record: Mapping[str, Any]) -> str:
        """Says that a record is no better than the baseline, and what helps; empty if it is better."""
        value = record.get(self.key)
        level = record.get(self.baseline_key) if self.baseline_key else self.baseline
        if value is None or level is None:
            return ""
        if value > level if self.better == "higher" else value < level:
            return ""
        helps = f": {self.advice}" if self.advice else ""
        if self.shortfall_words:
            return f"{self.shortfall_words.format(self.format.format(value))}{helps}"
        named = f"{self.baseline_label} ({self.format.format(level)})"
        return f"{self.shown(value)} is no better than {named}{helps}"


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What belongs to a step: its plan, its place, and the randomness that a global batch shares."""

    plan: Plan
    device: torch.device
    step: int
    first: int
    """Where this micro-batch begins in the step's batch over all processes."""

    def generator(self, key: int) -> np.random.Generator:
        """A generator of its own for everything that one key decides in this step."""
        return np.random.default_rng((self.plan.training.seed, key, self.step))


class StepOutput(NamedTuple):
    """Loss of a micro-batch, and the true count that it is an average over."""

    loss: Tensor
    weight: float | Tensor
    """Masked patches, labelled pixels, weighted images: what averages are weighted by."""
    scalars: dict[str, Tensor]
    """Further values to log, averaged like the loss."""


class Evaluator(Protocol):
    """Looks at a model from outside."""

    def run(self, model: Any, processes: Processes) -> Iterator[tuple[str, float | Image]]:
        """Yields named scores, for the metrics, and named pictures, for samples/.

        All processes call it, each for its share of the images, and then add up what they found;
        what the main one yields counts.
        """


@dataclass(frozen=True)
class Scheduled:
    """An evaluator and how often it runs; all run before the first step and after the last."""

    evaluator: Evaluator
    every: int


class Task(Protocol):
    """What differs between the training commands, as far as the loop sees it."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """What its evaluators measure; the first is what runs are compared by."""

    @property
    def exact_on_gpus(self) -> bool:
        """Whether the same step gives the same bits on a GPU, too."""

    def step(self, model: Any, batch: Any, draw: Draw) -> StepOutput:
        """The loss of one micro-batch, whose content the task's samples were collated to."""

    def param_groups(self, model: Any, plan: Plan) -> list[dict[str, Any]]:
        """Parameters to train, with their weight decay."""


class TrainingStep(nn.Module):
    """A task's step as a module, so that DDP sees the forward that it has to follow."""

    def __init__(self, task: Task, model: nn.Module):
        super().__init__()
        self.model, self.task = model, task

    def forward(self, batch: Any, draw: Draw) -> StepOutput:
        return self.task.step(self.model, batch, draw)
