"""The linear probe's BatchNorm, over all processes, on any device.

Legend: B features of a micro-batch of one process, D width.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class FeatureNorm(nn.BatchNorm1d):
    """BatchNorm without parameters of its own (paper, Table 10).

    In training it takes the statistics of one micro-batch of all processes together, as torch's
    SyncBatchNorm does on GPUs alone: one process that does not divide its batch equals several.
    """

    def __init__(self, width: int):
        super().__init__(width, affine=False, eps=1e-6)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        if not (self.training and dist.is_initialized()):
            return super().forward(features)
        mean, variance, count = _statistics(features.float())
        with torch.no_grad():
            self._follow(mean, variance * count / (count - 1))
        return ((features - mean) * (variance + self.eps).rsqrt()).to(features.dtype)

    def _follow(self, mean: Float[Tensor, "D"], unbiased: Float[Tensor, "D"]) -> None:
        """The running statistics, which evaluation takes."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)


def _statistics(
    features: Float[Tensor, "B D"],
) -> tuple[Float[Tensor, "D"], Float[Tensor, "D"], Float[Tensor, ""]]:
    """Mean and biased variance over all processes, and the number of their features."""
    count = _SumOverProcesses.apply(features.new_full((), len(features)))
    mean = _SumOverProcesses.apply(features.sum(dim=0)) / count
    variance = _SumOverProcesses.apply((features - mean).square().sum(dim=0)) / count
    return mean, variance, count


class _SumOverProcesses(torch.autograd.Function):
    """The sum, whose gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _SumOverProcesses.forward(context, gradient)
