"""The exponential moving average (EMA) of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """average <- decay x average + (1 - decay) x weights, after each step."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    def update(self, model: nn.Module) -> None:
        """Follows the model's weights."""
        current = [p.detach() for _, p in model.named_parameters()]
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - self.decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model holds the averages inside the context, and its own weights again after it."""
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._copy(self.weights, model)
        try:
            yield
        finally:
            self._copy(own, model)

    @staticmethod
    @torch.no_grad()
    def _copy(weights: dict[str, Tensor], model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])

    def load(self, weights: dict[str, Tensor]) -> None:
        """Restores saved averages."""
        for name, value in self.weights.items():
            value.copy_(weights[name])
