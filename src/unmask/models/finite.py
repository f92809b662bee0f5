"""Whether weights are all numbers."""

from collections.abc import Mapping

import torch
from torch import Tensor


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or an infinity; None if all are finite.

    Waits for the device once, if all are.
    """
    real = {name: w for name, w in weights.items() if w.is_floating_point() and w.numel()}
    if not real:
        return None
    finite = torch.stack([w.detach().isfinite().all().cpu() for w in real.values()])
    return None if finite.all() else list(real)[int(finite.int().argmin())]
