"""The paper: masking, encoder, decoder, targets. Torch only; no configuration, no input or output."""

from unmask.core.mae import Architecture, MAEOutput, MaskedAutoencoder
from unmask.core.vit import SIZES, VisionTransformer

__all__ = ["SIZES", "Architecture", "MAEOutput", "MaskedAutoencoder", "VisionTransformer"]
