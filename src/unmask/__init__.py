"""Masked autoencoders on your own images."""

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.api import (
        ablate,
        bench,
        check,
        detect,
        embed,
        evaluate,
        export,
        finetune,
        knn,
        load,
        plan,
        predict,
        pretrain,
        probe,
        quickstart,
        read,
        reconstruct,
        replay,
        scratch,
        segment,
        tokenizer,
        train,
    )

    __version__: str

__all__ = [
    "__version__",
    "ablate",
    "bench",
    "check",
    "detect",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "knn",
    "load",
    "plan",
    "predict",
    "pretrain",
    "probe",
    "quickstart",
    "read",
    "reconstruct",
    "replay",
    "scratch",
    "segment",
    "tokenizer",
    "train",
]


def __getattr__(name: str) -> Any:
    """Public functions are imported when they are first used: `unmask --help` needs no torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("unmask")
    if name in __all__:
        return getattr(importlib.import_module("unmask.api"), name)
    likely = difflib.get_close_matches(name, __all__, n=1)
    hint = f"; did you mean {likely[0]}?" if likely else ""
    raise AttributeError(f"module 'unmask' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return __all__
