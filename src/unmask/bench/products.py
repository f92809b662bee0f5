"""The matrix products of a training step, as torch asks for them, seen in a step without data."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unmask.core.spec import MAESpec


class Product(NamedTuple):
    """`copies` of [rows, inner] x [inner, columns]; an operand may be stored as its transpose."""

    copies: int
    rows: int
    inner: int
    columns: int
    left_transposed: bool
    right_transposed: bool

    @property
    def flops(self) -> int:
        """Two for each multiply-add."""
        return 2 * self.copies * self.rows * self.inner * self.columns

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Values of the left operand, of the right one and of the result."""
        return (
            self.copies * self.rows * self.inner,
            self.copies * self.inner * self.columns,
            self.copies * self.rows * self.columns,
        )


def products_of_step(spec: MAESpec, batch: int) -> Counter[Product]:
    """How often each product occurs in forward and backward of a batch; attention's are run per head.

    Without a fused kernel for attention, as torch runs it on the meta device.
    """
    with torch.device("meta"):
        model = spec.build()
        images = torch.empty(batch, spec.encoder.channels, *spec.encoder.image_size)
        noise = torch.empty(batch, spec.encoder.patches)
    with _Watch() as watch:
        model(images, noise=noise).loss.backward()
    return watch.products


OPERANDS = {
    torch.ops.aten.mm: 0,
    torch.ops.aten.bmm: 0,
    torch.ops.aten.addmm: 1,
    torch.ops.aten.baddbmm: 1,
}
"""Where the first of the two operands stands among the arguments."""


class _Watch(TorchDispatchMode):
    """Counts the products that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        first = OPERANDS.get(func.overloadpacket)
        if first is not None:
            self.products[_product(*args[first : first + 2])] += 1
        return func(*args, **(kwargs or {}))


def _product(left: Tensor, right: Tensor) -> Product:
    copies = left.shape[0] if left.ndim == 3 else 1
    rows, inner, columns = *left.shape[-2:], right.shape[-1]
    return Product(copies, rows, inner, columns, _is_transposed(left), _is_transposed(right))


def _is_transposed(matrix: Tensor) -> bool:
    return matrix.stride(-2) == 1 and matrix.stride(-1) > 1
