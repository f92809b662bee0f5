"""The machine's own limit: the model's matrix multiplications alone, at their shapes and precision."""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from unmask.bench.setting import Setting, now
from unmask.config.cost import Product, products

SECONDS_PER_PRODUCT = 0.002
"""Short products are repeated for at least this long, so that the clock resolves them."""
MOST_CALLS = 100


class Limit:
    """How long a training step would take if it were its matrix multiplications and nothing else.

    Of each product of the forward these are run: itself, and the two of its backward (one, where
    the input needs no gradient). Attention's are run per head, as without a fused kernel. What the
    result is divided by is therefore what plain, well-shaped code could reach here, not a peak.
    """

    def __init__(self, setting: Setting):
        self.device = setting.device
        encoder, decoder = products(setting.architecture)
        self.products = [_of_batch(p, setting.batch) for p in (*encoder, *decoder)]
        dtype = torch.bfloat16 if setting.plan.training.precision == "bf16" else torch.float32
        # All products share three pieces of memory, so that the limit costs little of it.
        largest = max(max(_sizes(p)) for p in self.products)
        seed = torch.Generator().manual_seed(0)
        numbers = torch.randn(largest, generator=seed).to(self.device, dtype)
        self._memory = [numbers, numbers.clone(), torch.empty_like(numbers)]

    @property
    def flops(self) -> int:
        """Of the products that are run."""
        return sum(p.flops * (3 if p.inputs_need_gradient else 2) for p in self.products)

    def measure(self) -> float:
        """Seconds of one step's products, measured now."""
        return sum(p.times * self._seconds(run) for p in self.products for run in self._runs(p))

    def _runs(self, p: Product) -> Iterator[Callable[[], object]]:
        """Forward, and the backward's products, with operands laid out as linear layers have them."""
        a, b, c = self._memory
        left, right, out = p.rows * p.inner, p.columns * p.inner, p.rows * p.columns
        x = a[: p.copies * left].view(p.copies, p.rows, p.inner)
        w = b[: p.copies * right].view(p.copies, p.columns, p.inner)
        yield _multiply(x, w.mT, c[: p.copies * out].view(p.copies, p.rows, p.columns))
        g = a[: p.copies * out].view(p.copies, p.rows, p.columns)
        if p.inputs_need_gradient:
            yield _multiply(g, w, c[: p.copies * left].view(p.copies, p.rows, p.inner))
        x = b[: p.copies * left].view(p.copies, p.rows, p.inner)
        yield _multiply(g.mT, x, c[: p.copies * right].view(p.copies, p.columns, p.inner))

    def _seconds(self, run: Callable[[], object]) -> float:
        """Of one call, after one that warms up and says how often to repeat."""
        began = now(self.device)
        run()
        first = now(self.device) - began
        calls = math.ceil(SECONDS_PER_PRODUCT / max(first, SECONDS_PER_PRODUCT / MOST_CALLS))
        began = now(self.device)
        for _ in range(calls):
            run()
        return (now(self.device) - began) / calls


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


def _of_batch(p: Product, batch: int) -> Product:
    """Linear layers take the whole batch as one matrix, heads are one each."""
    if p.copies == 1:
        return p._replace(rows=p.rows * batch)
    return p._replace(copies=p.copies * batch)


def _sizes(p: Product) -> tuple[int, int, int]:
    return (
        p.copies * p.rows * p.inner,
        p.copies * p.inner * p.columns,
        p.copies * p.rows * p.columns,
    )


def _multiply(x: Tensor, y: Tensor, out: Tensor) -> Callable[[], object]:
    if len(x) == 1:
        return lambda: torch.mm(x[0], y[0], out=out[0])
    return lambda: torch.bmm(x, y, out=out)
