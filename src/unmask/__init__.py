"""Masked autoencoders on your own images."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.api import (
        check,
        embed,
        evaluate,
        export,
        knn,
        load,
        plan,
        plan_pretraining,
        predict,
        pretrain,
        read,
        reconstruct,
    )

__all__ = [
    "check",
    "embed",
    "evaluate",
    "export",
    "knn",
    "load",
    "plan",
    "plan_pretraining",
    "predict",
    "pretrain",
    "read",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    """Public functions are imported when they are first used: `unmask --help` needs no torch."""
    if name in __all__:
        return getattr(importlib.import_module("unmask.api"), name)
    raise AttributeError(f"module 'unmask' has no attribute {name!r}")
