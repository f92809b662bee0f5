"""The paper: masking, encoder, decoder, targets. Torch only; no configuration, no input or output."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.core.mae import MAEOutput, MaskedAutoencoder
    from unmask.core.spec import SIZES, DecoderSpec, MAESpec, MaskSpec, TargetSpec, ViTSpec
    from unmask.core.vit import VisionTransformer

PLACES = {
    "MAEOutput": "mae",
    "MaskedAutoencoder": "mae",
    "VisionTransformer": "vit",
    **dict.fromkeys(("SIZES", "DecoderSpec", "MAESpec", "MaskSpec", "TargetSpec", "ViTSpec"), "spec"),
}

__all__ = [
    "SIZES",
    "DecoderSpec",
    "MAEOutput",
    "MAESpec",
    "MaskSpec",
    "MaskedAutoencoder",
    "TargetSpec",
    "ViTSpec",
    "VisionTransformer",
]


def __getattr__(name: str) -> Any:
    """Names are imported when they are first used: specs need no torch."""
    if name in PLACES:
        return getattr(importlib.import_module(f"unmask.core.{PLACES[name]}"), name)
    raise AttributeError(f"module 'unmask.core' has no attribute {name!r}")
