"""The layout of the official MAE code's checkpoints: one flat dictionary of weights.

Our encoder has timm's names and our decoder the official code's, so the two differ by a prefix. A
fine-tuned model has timm's `head` and `fc_norm`; a linear probe's head is a sequence of BatchNorm and
linear layer.
"""

import math
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unmask.core.spec import DecoderSpec, MAESpec, MaskSpec, Size, TargetSpec, ViTSpec
from unmask.errors import CheckpointError
from unmask.interop.attention_heads import (
    DECODER_HEADS,
    assumed_heads,
    check_heads,
    heads_of_name,
    usual_heads,
)
from unmask.interop.description import IMAGENET_MEAN, IMAGENET_STD, Weights, foreign_description

DECODER_NAMES = ("decoder_", "mask_token")
HEAD_NAMES = ("head.", "fc_norm.")
OFFICIAL_SETTINGS = {"norm_pix_loss", "nb_classes"}
"""Names that the command lines of its pre-training, and of its other two scripts, have."""
OFFICIAL_STATISTICS = (IMAGENET_MEAN, IMAGENET_STD)
"""The official code knows no others."""
TARGET_ASSUMED = (
    "the decoder is taken to predict pixels, since its file does not say: reconstruct takes --target "
    "normalized-pixels"
)
PROBE_NAMES = {"feature_norm.": "head.0.", "head.": "head.1."}
LICENCE = "of unknown origin; the authors' weights are CC BY-NC 4.0"
"""Licence note of files of weights alone, theirs or timm's: both have the same names."""

LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
ENCODER_LAYERS, ENCODER_TABLES = ("patch_embed.proj",), {"cls_token", "pos_embed"}
DECODER_LAYERS = ("decoder_embed", "decoder_norm", "decoder_pred")
DECODER_TABLES = {"mask_token", "decoder_pos_embed"}


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the official code's names."""
    is_probe = any(name.startswith("feature_norm.") for name in state)
    return {_their_name(name, is_probe): value for name, value in state.items()}


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The official code's weights under our names."""
    return {_our_name(name): value for name, value in state.items()}


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What a checkpoint says of its training: the command line of the official code, or of timm's."""

    model: str = ""
    """Name of the architecture."""
    num_heads: int | None = None
    """Attention heads of the encoder, if the command line says them itself."""
    statistics: tuple[Any, Any] | None = None
    """Mean and standard deviation; the official code's are always ImageNet's."""
    normalized: bool | None = None
    """Whether patches were normalised as the target (--norm_pix_loss)."""
    mask_ratio: float | None = None

    @property
    def heads(self) -> int | None:
        """Attention heads of the encoder, if the command line or the name of the model says them."""
        return self.num_heads or heads_of_name(self.model)


NO_TRAINER = Trainer()


def trainer_of(content: Mapping[str, Any]) -> Trainer:
    """From a whole checkpoint: its entry 'args', and 'arch' of timm's and MoCo's trainers."""
    args = content.get("args")
    values = vars(args) if isinstance(args, Namespace) else args if isinstance(args, dict) else {}
    model, normalized = values.get("model", content.get("arch")), values.get("norm_pix_loss")
    ratio, statistics = values.get("mask_ratio"), (values.get("mean"), values.get("std"))
    more = values.get("model_kwargs")
    num_heads = more.get("num_heads") if isinstance(more, dict) else None
    return Trainer(
        num_heads=num_heads if isinstance(num_heads, int) else None,
        statistics=OFFICIAL_STATISTICS if OFFICIAL_SETTINGS & values.keys() else statistics,
        model=model if isinstance(model, str) else "",
        normalized=normalized if isinstance(normalized, bool) else None,
        mask_ratio=float(ratio) if isinstance(ratio, int | float) and 0 < ratio < 1 else None,
    )


def read_official(
    state: dict[str, Tensor], trainer: Trainer = NO_TRAINER, *, heads: int | None = None
) -> Weights:
    """An autoencoder's weights without a description; `heads` of the encoder, if they are known."""
    known = trainer.heads or heads
    encoder, decoder = infer_encoder(state, heads=known), infer_decoder(state)
    check_names(state, encoder, decoder)
    assert decoder is not None
    notes = assumed_heads(encoder, decoder, known)
    if trainer.normalized is None:
        notes = (*notes, TARGET_ASSUMED)
    model = MAESpec(
        encoder=encoder,
        decoder=decoder,
        mask=MaskSpec(ratio=trainer.mask_ratio or MaskSpec().ratio),
        target=TargetSpec(kind="normalized-pixels" if trainer.normalized else "pixels"),
    )
    description = foreign_description(
        model, statistics=OFFICIAL_STATISTICS, licence_note=LICENCE, notes=notes
    )
    return Weights(from_official(state), description)


def infer_encoder(
    state: dict[str, Tensor], *, image_sizes: Sequence[Size] = (), heads: int | None = None
) -> ViTSpec:
    """Reads the encoder's dimensions off the weights' shapes.

    What shapes do not show is as in the official MAE code: square images, heads by width.
    Raises CheckpointError if the weights are of something else, or if those heads cannot be.

    Args:
        image_sizes: what may be known of the images; the first that fits the positions counts.
        heads: attention heads of the encoder, if known.
    """
    try:
        width, channels, p, q = state["patch_embed.proj.weight"].shape
        class_tokens = state["cls_token"].shape[1]
        tokens = state["pos_embed"].shape[1] - class_tokens
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"these weights are not a masked autoencoder or Vision Transformer in the layout of the "
            f"official MAE code or of timm (no {error}): give a checkpoint of theirs, a folder with its "
            f"config.json, or a run of unmask"
        ) from error
    heads = heads or usual_heads(width)
    check_heads(width, heads)
    h, w = _grid(tokens, [(height // p, width // q) for height, width in image_sizes])
    return ViTSpec(
        image_size=(h * p, w * q),
        patch_size=(p, q),
        channels=channels,
        width=width,
        depth=_depth(state, "blocks."),
        heads=heads,
        mlp_ratio=mlp_ratio(hidden, width),
        class_tokens=class_tokens,
    )


def infer_decoder(state: dict[str, Tensor]) -> DecoderSpec | None:
    """The decoder's dimensions, with 16 heads as in the official MAE code; None if there is none."""
    if "decoder_embed.weight" not in state:
        return None
    try:
        width = state["decoder_embed.weight"].shape[0]
        hidden = state["decoder_blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(
            f"these weights have no whole decoder (no {error}): give a complete checkpoint"
        ) from error
    return DecoderSpec(
        width=width,
        depth=_depth(state, "decoder_blocks."),
        heads=DECODER_HEADS,
        mlp_ratio=mlp_ratio(hidden, width),
    )


def mlp_ratio(hidden: int, width: int) -> float:
    """The ratio that gives exactly this hidden width, whose product is truncated."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def check_names(
    names: Iterable[str], encoder: ViTSpec, decoder: DecoderSpec | None, *, has_norm: bool = True
) -> None:
    """Raises CheckpointError if weights are missing, or stand for what our model does not have.

    `has_norm`: whether a norm stands behind the encoder's blocks.
    """
    expected = ENCODER_TABLES | _parameters(ENCODER_LAYERS) | _blocks("blocks", encoder.depth)
    if has_norm:
        expected |= _parameters(["norm"])
    if decoder:
        expected |= DECODER_TABLES | _parameters(DECODER_LAYERS)
        expected |= _blocks("decoder_blocks", decoder.depth)
    found = set(names)
    odd = [f"they hold {name}, for which it has no place" for name in sorted(found - expected)]
    odd += [f"they lack {name}" for name in sorted(expected - found)]
    if odd:
        raise CheckpointError(
            f"these weights are not of the plain Vision Transformer that masked autoencoders have: "
            f"{odd[0]}; choose weights of a plain one, such as timm's vit_base_patch16_224"
        )


def _their_name(name: str, is_probe: bool) -> str:
    if name.startswith(("encoder.", "decoder.")):
        return name.split(".", 1)[1]
    for ours, theirs in PROBE_NAMES.items() if is_probe else ():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _our_name(name: str) -> str:
    for ours, theirs in PROBE_NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    if name.startswith(HEAD_NAMES):
        return name
    return f"{'decoder' if name.startswith(DECODER_NAMES) else 'encoder'}.{name}"


def _parameters(layers: Iterable[str]) -> set[str]:
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def _blocks(prefix: str, depth: int) -> set[str]:
    return _parameters(f"{prefix}.{i}.{layer}" for i in range(depth) for layer in LAYERS)


def _grid(tokens: int, likely: Sequence[Size]) -> Size:
    side = math.isqrt(tokens)
    for h, w in [*likely, (side, side)]:
        if h * w == tokens:
            return h, w
    raise CheckpointError(
        f"{tokens} positions are no square grid, and weights alone do not say which grid they are: give "
        f"the run directory, whose model.json does, or the folder with the weights' config.json"
    )


def _depth(state: dict[str, Tensor], prefix: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(prefix)})
