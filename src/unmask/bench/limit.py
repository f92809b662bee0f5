"""The machine's own limit: the model's matrix multiplications alone, at their shapes and precision."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from unmask.bench.model import Setting
from unmask.bench.products import Product, products_of_step
from unmask.cost.speed import now

SECONDS_PER_PRODUCT = 0.002
"""Short products are repeated for at least this long, so that the clock resolves them."""
MOST_CALLS = 100


class Limit:
    """How long a training step would take if it were its matrix multiplications and nothing else.

    Those of forward and backward are run, attention's per head, as without a fused kernel. What the
    result is divided by is therefore what plain, well-shaped code could reach here, not a peak.
    """

    def __init__(self, setting: Setting):
        self.device = setting.device
        self.products = products_of_step(setting.spec, setting.batch)
        dtype = torch.bfloat16 if setting.plan.training.precision == "bf16" else torch.float32
        # All products share three pieces of memory, so that the limit costs little of it.
        largest = max(max(p.sizes) for p in self.products)
        seed = torch.Generator().manual_seed(0)
        values = torch.randn(largest, generator=seed).to(self.device, dtype)
        self._memory = [values, values.clone(), torch.empty_like(values)]

    @property
    def flops(self) -> int:
        """Operations of the products that are run."""
        return sum(p.flops * times for p, times in self.products.items())

    def measure(self) -> float:
        """Seconds of one step's products, measured now."""
        return sum(times * self._seconds(self._run(p)) for p, times in self.products.items())

    def _run(self, p: Product) -> Callable[[], object]:
        """One product, with its operands laid out as in the step."""
        a, b, c = (memory[:size] for memory, size in zip(self._memory, p.sizes, strict=True))
        x = _matrices(a, p.copies, p.rows, p.inner, p.left_transposed)
        y = _matrices(b, p.copies, p.inner, p.columns, p.right_transposed)
        out = c.view(p.copies, p.rows, p.columns)
        if p.copies == 1:
            return lambda: torch.mm(x[0], y[0], out=out[0])
        return lambda: torch.bmm(x, y, out=out)

    def _seconds(self, run: Callable[[], object]) -> float:
        """Seconds of one call, after one that warms up and says how often to repeat."""
        began = now(self.device)
        run()
        first = now(self.device) - began
        calls = math.ceil(SECONDS_PER_PRODUCT / max(first, SECONDS_PER_PRODUCT / MOST_CALLS))
        began = now(self.device)
        for _ in range(calls):
            run()
        return (now(self.device) - began) / calls


def _matrices(memory: Tensor, copies: int, rows: int, columns: int, transposed: bool) -> Tensor:
    if transposed:
        return memory.view(copies, columns, rows).mT
    return memory.view(copies, rows, columns)
