"""BatchNorm over all processes, on any device: torch's SyncBatchNorm refuses the CPU.

Legend: B features or maps of a micro-batch of one process, D width, h x w places of a map.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm  # the public ones take one number of dimensions


class FeatureNorm(_BatchNorm):
    """BatchNorm of vectors or maps, over all processes (Ioffe & Szegedy 2015).

    In training it takes the statistics of one micro-batch of all processes together, whose sizes may
    differ and be zero: one process that does not divide its batch equals several.

    The linear probe's has no parameters of its own and an eps of 1e-6 (paper, Table 10).
    """

    def __init__(self, width: int, *, affine: bool = False, eps: float = 1e-6):
        super().__init__(width, affine=affine, eps=eps)

    def forward(self, features: Float[Tensor, "B D *places"]) -> Float[Tensor, "B D *places"]:
        if not self.training or (len(features) and not dist.is_initialized()):
            return super().forward(features)
        if not dist.is_initialized():
            return self._scaled(features.movedim(1, -1)).movedim(-1, 1)
        values = features.float().movedim(1, -1)
        mean, variance, count = _statistics(values.flatten(0, -2))
        with torch.no_grad():
            self._follow(mean, variance, count)
        normal = (values - mean) * (variance + self.eps).rsqrt()
        return self._scaled(normal).movedim(-1, 1).to(features.dtype)

    def _scaled(self, normal: Float[Tensor, "B *places D"]) -> Float[Tensor, "B *places D"]:
        return normal * self.weight + self.bias if self.affine else normal

    def _check_input_dim(self, features: Tensor) -> None:
        assert features.dim() >= 2, "features are vectors or maps"

    def _follow(
        self, mean: Float[Tensor, "D"], variance: Float[Tensor, "D"], count: Float[Tensor, ""]
    ) -> None:
        """The running statistics, which evaluation takes; without features they stay."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        share = self.momentum * (count > 0)
        self.num_batches_tracked += count > 0
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)


def _statistics(
    features: Float[Tensor, "B D"],
) -> tuple[Float[Tensor, "D"], Float[Tensor, "D"], Float[Tensor, ""]]:
    """Mean and biased variance over all processes, and the number of their features."""
    count = _SumOverProcesses.apply(features.new_full((), len(features)))
    n = count.clamp(min=1)
    mean = _SumOverProcesses.apply(features.sum(dim=0)) / n
    variance = _SumOverProcesses.apply((features - mean).square().sum(dim=0)) / n
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
