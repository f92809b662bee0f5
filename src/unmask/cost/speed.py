"""How fast this machine multiplies, and trains."""

import time
from typing import Literal

import torch

from unmask.core.spec import MAESpec
from unmask.cost.count import count
from unmask.engine.machine import arithmetic

TRAINED_STEPS = 3


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


def training_rate(
    spec: MAESpec, precision: Literal["bf16", "fp32"], device: torch.device, *, batch: int = 16
) -> float:
    """Operations per second that training of an autoencoder reaches: the best of a few steps on noise.

    Less than `square_rate`, the more so the smaller the model.
    """
    generator = torch.Generator().manual_seed(0)
    e = spec.encoder
    images = torch.randn(batch, e.channels, *e.image_size, generator=generator).to(device)
    noise = torch.rand(batch, e.patches, generator=generator).to(device)
    model = spec.build().to(device)
    seconds = []
    for _ in range(TRAINED_STEPS + 1):
        began = now(device)
        with arithmetic(device.type, precision):
            output = model(images, noise=noise)
        output.loss.backward()
        seconds.append(now(device) - began)
    return batch * count(spec).training_flops / min(seconds[1:])
