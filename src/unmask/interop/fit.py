"""Weights for a model of another image size, patch size or number of channels.

Everything here is a linear map of the weights. What cannot be mapped is an error, or a new decoder.
Legend: R class tokens, N patches, D width, C channels, p x q pixels of a patch, P = p q C values.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.core.mae import Architecture, new_encoder
from unmask.core.patches import Size, grid_of
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.description import Weights
from unmask.interop.models import load_state

PROJECTION = "encoder.patch_embed.proj.weight"
OUTPUTS = ("decoder.decoder_pred.weight", "decoder.decoder_pred.bias")
POSITIONS = ("encoder.pos_embed", "decoder.decoder_pos_embed")

ENCODER = {
    "width": "width",
    "depth": "blocks",
    "heads": "heads",
    "mlp_ratio": "MLP ratio",
    "class_tokens": "class tokens",
}
DECODER = {"decoder_width": "width", "decoder_depth": "blocks", "decoder_heads": "heads"}
"""Fields of an architecture that must agree, and what people call them."""


def fit(weights: Weights, architecture: Architecture) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict for a model of `architecture`, and a sentence for everything that was changed.

    It has no decoder where the weights' own cannot be used, and never a classification head. Weights
    that fit come back untouched. Raises CheckpointError where the encoder is another one.
    """
    was, now = weights.description.architecture, architecture
    _check_encoder(was, now)
    if reason := _why_no_decoder(weights) or _why_new_decoder(was, now):
        state, sentences = _fit_encoder(weights, now)
        return state, [reason, *sentences, *_about_norm(weights)]
    state = dict(weights.state)
    sentences = _fit_state(state, was, now)
    if was.target != now.target:
        sentences.append(f"the decoder has learned {was.target} and goes on with {now.target}")
    return state, sentences


def encoder_for(
    weights: Weights, *, image_size: Size, channels: int, final_norm: bool = True
) -> tuple[VisionTransformer, list[str]]:
    """The encoder of any weights for these images, and a sentence for everything that was changed.

    A mean-pooled classifier's has no final norm: it comes with a new one, which is not worth a sentence
    where nobody will use a `final_norm`. Positions are not trainable.
    """
    body = weights.encoder_only()
    a = replace(body.description.architecture, image_size=image_size, channels=channels)
    state, sentences = _fit_encoder(body, a)
    encoder = new_encoder(a)
    load_state(encoder, {name.removeprefix("encoder."): value for name, value in state.items()})
    about_norm = _about_norm(body) if final_norm else []
    return encoder, [*sentences, *about_norm, *body.description.notes]


def at_size(weights: Weights, size: int | Size) -> Weights:
    """The same model for images of another size, with interpolated positions."""
    image_size = (size, size) if isinstance(size, int) else (size[0], size[1])
    was = weights.description.architecture
    now, state = replace(was, image_size=image_size), dict(weights.state)
    _fit_state(state, was, now)
    return Weights(state, replace(weights.description, architecture=now))


def _fit_encoder(weights: Weights, architecture: Architecture) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder alone, with a final norm, and a sentence for what depends on sizes and channels."""
    state = dict(weights.encoder_only().state)
    sentences = _fit_state(state, weights.description.architecture, architecture)
    if not weights.has_norm:
        state["encoder.norm.weight"] = torch.ones(architecture.width)
        state["encoder.norm.bias"] = torch.zeros(architecture.width)
    return state, sentences


def _about_norm(weights: Weights) -> list[str]:
    return [] if weights.has_norm else ["the encoder's final norm is new"]


def _fit_state(state: dict[str, Tensor], was: Architecture, now: Architecture) -> list[str]:
    """Changes what depends on image size, patch size and channels; a sentence for each."""
    sentences = []
    if was.channels != now.channels:
        sentences.append(_fit_channels(state, was, now))
    if was.patch_size != now.patch_size:
        sentences.append(_fit_patches(state, was, now))
    old, new = (grid_of(a.image_size, a.patch_size) for a in (was, now))
    if old != new:
        for name in state.keys() & set(POSITIONS):
            state[name] = interpolate_positions(state[name], old, new)
        sentences.append(f"positions interpolated from {_size(old)} to {_size(new)}")
    return sentences


def interpolate_positions(table: Tensor, old: Size, new: Size) -> Tensor:
    """Bicubic, as the reference does in fine-tuning; [1, R + N, D], the R prefix rows stay."""
    prefix, patches = table.split([table.shape[1] - old[0] * old[1], old[0] * old[1]], dim=1)
    grid = patches.unflatten(1, old).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return torch.cat([prefix, grid.flatten(2).mT], dim=1)


def resize_projection(kernel: Tensor, new: Size) -> Tensor:
    """Weights [D, C, p, q] that give a resized patch what they gave the patch.

    Exactly so where patches grow, in the sense of least squares where they shrink (FlexiViT, Beyer et
    al. 2022).
    """
    old = (kernel.shape[2], kernel.shape[3])
    return (kernel.flatten(2) @ torch.linalg.pinv(_resizing(old, new))).unflatten(2, new)


def resize_outputs(value: Tensor, old: Size, new: Size) -> Tensor:
    """Weights [P, D] or biases [P] of a head that predicts patches: what they draw is resized."""
    values = value.unflatten(0, (old[0] * old[1], -1))
    return torch.tensordot(_resizing(old, new), values, dims=1).flatten(0, 1)


def adapt_inputs(kernel: Tensor, channels: int) -> Tensor:
    """Input weights [D, C, p, q] for other channels.

    One channel gets the sum: an image that is grey in all channels gives what it gave. More get the
    weights in turn, scaled so that the sum stays near.
    """
    had = kernel.shape[1]
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    return kernel[:, [c % had for c in range(channels)]] * (had / channels)


def adapt_outputs(value: Tensor, had: int, channels: int) -> Tensor:
    """Weights [P, D] or biases [P] of a head that predicts patches of other channels.

    One channel gets the average, more get the channels in turn.
    """
    values = value.unflatten(0, (-1, had))
    if channels == 1:
        return values.mean(dim=1)
    return values[:, [c % had for c in range(channels)]].flatten(0, 1)


def _fit_channels(state: dict[str, Tensor], was: Architecture, now: Architecture) -> str:
    state[PROJECTION] = adapt_inputs(state[PROJECTION], now.channels)
    for name in state.keys() & set(OUTPUTS):
        state[name] = adapt_outputs(state[name], was.channels, now.channels)
    if now.channels == 1:
        return f"input weights of {was.channels} channels summed into one"
    return f"input weights of {was.channels} channel(s) repeated for {now.channels}"


def _fit_patches(state: dict[str, Tensor], was: Architecture, now: Architecture) -> str:
    state[PROJECTION] = resize_projection(state[PROJECTION], now.patch_size)
    for name in state.keys() & set(OUTPUTS):
        state[name] = resize_outputs(state[name], was.patch_size, now.patch_size)
    return f"patches resized from {_size(was.patch_size)} to {_size(now.patch_size)} pixels"


def _resizing(old: Size, new: Size) -> Tensor:
    """The matrix [new pixels, old pixels] of bicubic resizing."""
    pixels = torch.eye(old[0] * old[1]).unflatten(1, old)[None]
    resized = F.interpolate(pixels, size=new, mode="bicubic", antialias=True, align_corners=False)
    return resized[0].flatten(1).mT


def _check_encoder(was: Architecture, now: Architecture) -> None:
    differing = [name for name in ENCODER if getattr(was, name) != getattr(now, name)]
    if _hidden(was) == _hidden(now) and "mlp_ratio" in differing:
        differing.remove("mlp_ratio")
    if not differing:
        return
    had, has = (
        ", ".join(f"{ENCODER[name]} {getattr(a, name):g}" for name in differing) for a in (was, now)
    )
    flags = " ".join(f"--model.{n.replace('_', '-')} {getattr(was, n):g}" for n in differing)
    raise CheckpointError(
        f"the weights' encoder has {had}, and the model's {has}: add {flags}, or choose other weights"
    )


def _hidden(a: Architecture) -> tuple[int, int]:
    """Widths within the MLPs: other ratios may give the same, since the product is truncated."""
    return int(a.width * a.mlp_ratio), int(a.decoder_width * a.mlp_ratio)


def _why_no_decoder(weights: Weights) -> str:
    return "" if weights.description.has_decoder else "the decoder, which it does not have, is new"


def _why_new_decoder(was: Architecture, now: Architecture) -> str:
    """Empty where the weights' decoder fits."""
    if was.mask_tokens_in_encoder != now.mask_tokens_in_encoder:
        return "the decoder is new, since mask tokens are on the other side"
    differing = [name for name in DECODER if getattr(was, name) != getattr(now, name)]
    if not differing:
        return ""
    had, has = (", ".join(f"{DECODER[n]} {getattr(a, n)}" for n in differing) for a in (was, now))
    return f"the decoder is new: the weights' has {had}, and the model's {has}"


def _size(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
