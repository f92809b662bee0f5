"""A running average of the weights."""

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

    def load(self, weights: dict[str, Tensor]) -> None:
        """Restores saved averages."""
        for name, value in self.weights.items():
            value.copy_(weights[name])
