"""The layout of the reference implementation's checkpoints: one flat dictionary of weights.

Our encoder has timm's names and our decoder the reference's, so the two differ by a prefix.
"""

import math
from typing import Any

from torch import Tensor

from unmask.core.mae import Architecture
from unmask.errors import CheckpointError

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Of the usual encoders, by width: weights do not show their heads."""
DECODER_HEADS = 16
DECODER_NAMES = ("decoder_", "mask_token")


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the reference's names."""
    return {name.split(".", 1)[1]: value for name, value in state.items()}


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's weights under our names."""
    sides = {True: "decoder", False: "encoder"}
    return {f"{sides[name.startswith(DECODER_NAMES)]}.{name}": v for name, v in state.items()}


def infer_architecture(state: dict[str, Tensor]) -> Architecture:
    """Reads the dimensions off the weights' shapes.

    What shapes do not show is the reference's: square images, one class token, heads by width,
    a decoder of 16 heads, a mask ratio of 75 % and plain pixels as target.
    Raises CheckpointError where the weights are of something else.
    """
    try:
        width, channels, p, q = state["patch_embed.proj.weight"].shape
        tokens = state["pos_embed"].shape[1] - 1
        side = math.isqrt(tokens)
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
        decoder: dict[str, Any] = {}
        if "decoder_embed.weight" in state:
            decoder = {
                "decoder_width": state["decoder_embed.weight"].shape[0],
                "decoder_depth": _depth(state, "decoder_blocks."),
                "decoder_heads": DECODER_HEADS,
            }
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"these weights are not a masked autoencoder in the reference's layout (no {error}): "
            f"give a checkpoint of the reference, or a run of unmask"
        ) from error
    if side * side != tokens:
        raise CheckpointError(
            f"{tokens} positions are no square grid, and the reference's layout does not say which "
            f"grid they are: give the run directory, whose model.json does"
        )
    return Architecture(
        image_size=(side * p, side * q),
        patch_size=(p, q),
        channels=channels,
        width=width,
        depth=_depth(state, "blocks."),
        heads=HEADS.get(width, max(1, width // 64)),
        mlp_ratio=hidden / width,
        target="pixels",
        **decoder,
    )


def _depth(state: dict[str, Tensor], prefix: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(prefix)})
