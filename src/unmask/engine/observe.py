"""What happens inside of one step: activations by module, gradients by block, the first bad value.

It looks on: the step's numbers are those that it has without an observer.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from unmask.models.finite import first_not_finite


@dataclass
class Observation:
    """One forward and backward."""

    bad_weight: str | None = None
    """The first weight or buffer that holds NaN or an infinity."""
    bad_module: str | None = None
    """The first module whose output does, in the order of the computation."""
    bad_gradient: str | None = None
    """The first parameter whose gradient does, in the order of the backward pass."""
    largest: dict[str, float] = field(default_factory=dict)
    """The largest finite absolute value that each module gave."""
    gradients: dict[str, float] = field(default_factory=dict)
    """The gradient's norm by group of parameters, a block each; NaN if it is not finite."""


@contextmanager
def observed(model: nn.Module) -> Iterator[Observation]:
    """Watches what is computed with a model inside of the context; `note_gradients` ends it.

    torch.compile is set aside meanwhile: what it compiles has no modules to watch.
    """
    seen = Observation(bad_weight=first_not_finite(model.state_dict()))
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(_watch_module(seen, name or "the model")))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            handles.append(parameter.register_post_accumulate_grad_hook(_watch_gradient(seen, name)))
    try:
        with torch.compiler.set_stance("force_eager"):
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def note_gradients(seen: Observation, model: nn.Module, scale: float) -> None:
    """Adds the norms of the gradients times `scale`, which stay as they are."""
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            norm = scale * parameter.grad.detach().double().norm().item()
            group = group_of(name)
            squares[group] = squares.get(group, 0.0) + norm**2
    seen.gradients = {g: math.sqrt(x) if math.isfinite(x) else math.nan for g, x in squares.items()}


def group_of(name: str) -> str:
    """The group of a parameter: its block, or else the first two parts of its name.

    `encoder.blocks.3.attn.qkv.weight` is in `encoder.blocks.3`, `head.weight` in `head`.
    """
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal():
            return ".".join(parts[: i + 1])
    return ".".join((parts[:-1] if parts[-1] in ("weight", "bias") else parts)[:2])


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of nested tuples, lists, dictionaries and dataclasses, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (tensor for one in value.values() for tensor in tensors_in(one))
    elif isinstance(value, list | tuple):
        yield from (tensor for one in value for tensor in tensors_in(one))
    elif is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, each.name) for each in fields(value))
        yield from (tensor for one in parts for tensor in tensors_in(one))


def _watch_module(seen: Observation, name: str) -> Any:
    def look(module: nn.Module, given: Any, output: Any) -> None:
        for tensor in tensors_in(output):
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            values = tensor.detach()
            finite = values.isfinite()
            if seen.bad_module is None and not finite.all():
                seen.bad_module = name
            largest = values.where(finite, values.new_zeros(())).abs().max().item()
            seen.largest[name] = max(seen.largest.get(name, 0.0), largest)

    return look


def _watch_gradient(seen: Observation, name: str) -> Any:
    def look(parameter: Tensor) -> None:
        gradient = parameter.grad
        if seen.bad_gradient is None and gradient is not None and not gradient.isfinite().all():
            seen.bad_gradient = name

    return look
