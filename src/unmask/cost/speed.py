"""How fast this machine multiplies."""

import time
from typing import Literal

import torch


def square_rate(
    precision: Literal["bf16", "fp32"], device: torch.device, *, side: int = 1024, rounds: int = 5
) -> float:
    """Operations per second of a square matrix multiplication: the best of a few."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(side, side, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    out = torch.empty_like(matrix)
    seconds = []
    for _ in range(rounds + 1):
        began = now(device)
        torch.mm(matrix, matrix, out=out)
        seconds.append(now(device) - began)
    return 2 * side**3 / min(seconds[1:])


def now(device: torch.device) -> float:
    """Seconds, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
