"""How many attention heads an encoder has: its weights do not show it, and another number of heads
gives other features.
"""

import re

from unmask.core.spec import DecoderSpec, ViTSpec
from unmask.errors import CheckpointError

USUAL_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Heads of the usual encoders, by width."""
DECODER_HEADS = 16
"""Heads of every decoder of the official MAE code."""
HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16, "giant": 16, "gigantic": 16}
"""Heads of timm's models, by the size in their names."""
PLAIN_NAME = re.compile(r"(?:vit|deit)_(?P<size>tiny|small|base|large|huge|giant|gigantic)_patch\d+_\d+")
"""timm's plain Vision Transformers."""
OFFICIAL_NAME = re.compile(r"(?:mae_)?vit_(?P<size>base|large|huge)_patch\d+(?:_dec\d+d\d+b)?")
"""Models of the official MAE code, which has no smaller ones; others' code has, with other heads."""


def heads_of_name(name: str) -> int | None:
    """Those of a model of timm or of the official MAE code; None if the name does not say."""
    match = PLAIN_NAME.fullmatch(name) or OFFICIAL_NAME.fullmatch(name)
    return HEADS[match["size"]] if match else None


def usual_heads(width: int) -> int:
    """What an encoder of this width usually has: one for each 64 channels if it is no usual one."""
    return USUAL_HEADS.get(width, max(1, width // 64))


def check_heads(width: int, heads: int) -> None:
    """Raises CheckpointError if the width is not divided by the heads."""
    if width % heads:
        raise CheckpointError(
            f"these weights do not say how many attention heads they have, and {heads} do not divide "
            f"their width of {width}: give the number with --model.heads"
        )


def assumed_heads(encoder: ViTSpec, decoder: DecoderSpec | None, known: int | None) -> tuple[str, ...]:
    """A note on the heads that weights do not say; `known` are those of the encoder, if it is known."""
    notes = []
    if known is None:
        notes.append(
            f"{encoder.heads} attention heads are assumed, as is usual for a width of {encoder.width}; "
            f"--model.heads gives another number"
        )
    if decoder and known is None:
        notes.append(f"{decoder.heads} attention heads are assumed in the decoder")
    return tuple(notes)
