"""Weights for a model of another image size, patch size or number of channels.

Everything here is a linear map of the weights. What cannot be mapped is an error, or a new decoder.
Legend: R class tokens, N patches, D width, C channels, p x q pixels of a patch, P = p q C values.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.config.image import Bands
from unmask.core.position import interpolate_positions
from unmask.core.spec import DecoderSpec, MAESpec, Size, ViTSpec, on_encoder
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.description import Weights
from unmask.interop.models import load_state

PROJECTION = "encoder.patch_embed.proj.weight"
OUTPUTS = ("decoder.decoder_pred.weight", "decoder.decoder_pred.bias")
RGB = ("red", "green", "blue")
POSITIONS = ("encoder.pos_embed", "decoder.decoder_pos_embed")

ENCODER = {
    "width": "width",
    "depth": "blocks",
    "heads": "heads",
    "mlp_ratio": "MLP ratio",
    "class_tokens": "class tokens",
}
DECODER = {"width": "width", "depth": "blocks", "heads": "heads"}
"""Dimensions that must agree, and what people call them."""


def fit(
    weights: Weights, spec: MAESpec, display: Bands | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict for a masked autoencoder, and a sentence for everything that was changed.

    `display` names the bands that are red, green and blue, counted from 1.

    It has no decoder if the weights' own cannot be used, and never a classification head. Weights
    that fit come back untouched. Raises CheckpointError if the encoder is another one.
    """
    was = weights.description
    _check_encoder(was.encoder, spec.encoder)
    if reason := _why_new_decoder(was.autoencoder, spec):
        state, messages = _fit_encoder(weights, spec.encoder, display)
        return state, [reason, *messages, *_about_norm(weights)]
    assert was.autoencoder is not None
    state = dict(weights.state)
    drawn = {} if predicts_pixels(spec) else {name: state.pop(name) for name in OUTPUTS}
    messages = _fit_state(state, was.encoder, spec.encoder, display)
    state |= drawn
    learned, target = was.autoencoder.target.kind, spec.target.kind
    if learned != target:
        messages.append(f"the decoder has learned {learned} and goes on with {target}")
    return state, messages


def encoder_for(
    weights: Weights,
    *,
    image_size: Size,
    channels: int,
    final_norm: bool = True,
    display: Bands | None = None,
) -> tuple[VisionTransformer, list[str]]:
    """The encoder of any weights for these images, and a sentence for everything that was changed.

    A mean-pooled classifier's has no final norm: it comes with a new one, which is not worth a sentence
    if nobody will use a `final_norm`. Positions are not trainable.
    """
    body = weights.encoder_only()
    spec = replace(body.description.encoder, image_size=image_size, channels=channels)
    state, messages = _fit_encoder(body, spec, display)
    encoder = spec.build()
    load_state(encoder, {name.removeprefix("encoder."): value for name, value in state.items()})
    about_norm = _about_norm(body) if final_norm else []
    return encoder, [*messages, *about_norm, *body.description.notes]


def at_size(weights: Weights, size: int | Size) -> Weights:
    """The same model for images of another size, with interpolated positions."""
    image_size = (size, size) if isinstance(size, int) else (size[0], size[1])
    d, state = weights.description, dict(weights.state)
    now = replace(d.encoder, image_size=image_size)
    _fit_state(state, d.encoder, now, None)
    image = replace(d.image, size=image_size)
    return Weights(state, replace(d, model=on_encoder(d.model, now), image=image))


def _fit_encoder(
    weights: Weights, now: ViTSpec, display: Bands | None
) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder alone, with a final norm, and a sentence for what depends on sizes and channels."""
    state = dict(weights.encoder_only().state)
    messages = _fit_state(state, weights.description.encoder, now, display)
    if not weights.has_norm:
        state["encoder.norm.weight"] = torch.ones(now.width)
        state["encoder.norm.bias"] = torch.zeros(now.width)
    return state, messages


def _about_norm(weights: Weights) -> list[str]:
    return [] if weights.has_norm else ["the encoder's final norm is new"]


def _fit_state(state: dict[str, Tensor], was: ViTSpec, now: ViTSpec, display: Bands | None) -> list[str]:
    """Changes what depends on image size, patch size and channels; a sentence for each."""
    messages = []
    if was.channels != now.channels:
        messages.append(_fit_channels(state, was, now, display))
    if was.patch_size != now.patch_size:
        messages.append(_fit_patches(state, was, now))
    if was.grid != now.grid:
        for name in state.keys() & set(POSITIONS):
            state[name] = interpolate_positions(state[name], was.grid, now.grid)
        messages.append(f"positions interpolated from {_size(was.grid)} to {_size(now.grid)}")
    return messages


def resize_projection(kernel: Tensor, new: Size) -> Tensor:
    """Weights [D, C, p, q] that give a resized patch what they gave the patch.

    Exactly so if patches grow, in the sense of least squares if they shrink (FlexiViT, Beyer et
    al. 2022).
    """
    old = (kernel.shape[2], kernel.shape[3])
    return (kernel.flatten(2) @ torch.linalg.pinv(_resizing(old, new))).unflatten(2, new)


def resize_outputs(value: Tensor, old: Size, new: Size) -> Tensor:
    """Weights [P, D] or biases [P] of a head that predicts patches: what they draw is resized."""
    values = value.unflatten(0, (old[0] * old[1], -1))
    return torch.tensordot(_resizing(old, new), values, dims=1).flatten(0, 1)


def adapt_inputs(kernel: Tensor, channels: int, display: Bands | None = None) -> Tensor:
    """Input weights [D, C, p, q] for other channels.

    One channel gets the sum: an image that is grey in all channels gives what it gave. More get shares
    of the weights (`channel_shares`), scaled so that the sum stays.
    """
    had = kernel.shape[1]
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    shares = channel_shares(had, channels, display)
    return torch.einsum("cb,dbpq->dcpq", shares, kernel) * (had / channels)


def adapt_outputs(value: Tensor, had: int, channels: int, display: Bands | None = None) -> Tensor:
    """Weights [P, D] or biases [P] of a head that predicts patches of other channels."""
    values = value.unflatten(0, (-1, had))
    return torch.einsum("cb,pb...->pc...", channel_shares(had, channels, display), values).flatten(0, 1)


def channel_shares(had: int, channels: int, display: Bands | None = None) -> Tensor:
    """[channels, had]: which of the weights' channels each new one starts from; rows sum to 1.

    The bands that `display` names as red, green and blue, counted from 1, start from the weights of
    these; every other one from the mean of all, since nothing says what it shows.
    """
    shares = torch.full((channels, had), 1 / had)
    if display is not None and had == len(display) == len(RGB):
        for colour, band in enumerate(display):
            shares[band - 1] = torch.eye(had)[colour]
    return shares


def _fit_channels(state: dict[str, Tensor], was: ViTSpec, now: ViTSpec, display: Bands | None) -> str:
    state[PROJECTION] = adapt_inputs(state[PROJECTION], now.channels, display)
    for name in state.keys() & set(OUTPUTS):
        state[name] = adapt_outputs(state[name], was.channels, now.channels, display)
    if now.channels == 1:
        return f"input weights of {was.channels} channels summed into one"
    if display is not None and was.channels == len(display) == len(RGB):
        placed = ", ".join(f"{name} to band {band}" for name, band in zip(RGB, display, strict=True))
        return f"input weights of {placed}; {now.channels - len(RGB)} other bands start from their mean"
    hint = ""
    if was.channels == len(RGB) and now.channels > len(RGB):
        hint = " (--data.display RED GREEN BLUE gives these bands the weights of their colours)"
    mean = f"the mean of the input weights of {was.channels}"
    return f"each of {now.channels} channels starts from {mean}{hint}"


def _fit_patches(state: dict[str, Tensor], was: ViTSpec, now: ViTSpec) -> str:
    state[PROJECTION] = resize_projection(state[PROJECTION], now.patch_size)
    for name in state.keys() & set(OUTPUTS):
        state[name] = resize_outputs(state[name], was.patch_size, now.patch_size)
    return f"patches resized from {_size(was.patch_size)} to {_size(now.patch_size)} pixels"


def _resizing(old: Size, new: Size) -> Tensor:
    """The matrix [new pixels, old pixels] of bicubic resizing."""
    pixels = torch.eye(old[0] * old[1]).unflatten(1, old)[None]
    resized = F.interpolate(pixels, size=new, mode="bicubic", antialias=True, align_corners=False)
    return resized[0].flatten(1).mT


def _check_encoder(was: ViTSpec, now: ViTSpec) -> None:
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


def _hidden(a: ViTSpec | DecoderSpec) -> int:
    """Width within the MLPs: other ratios may give the same, since the product is truncated."""
    return int(a.width * a.mlp_ratio)


def _why_new_decoder(was: MAESpec | None, now: MAESpec) -> str:
    """Empty if the weights' decoder fits."""
    if was is None:
        return "decoder, which it does not have, initialised randomly"
    if was.mask.tokens_in_encoder != now.mask.tokens_in_encoder:
        return "decoder initialised randomly, since mask tokens are on the other side"
    if not _predict_alike(was, now):
        return f"decoder, which predicts {now.target.kind} of these patches, initialised randomly"
    mine, theirs = was.decoder, now.decoder
    differing = [name for name in DECODER if getattr(mine, name) != getattr(theirs, name)]
    if differing:
        had, has = (
            ", ".join(f"{DECODER[n]} {getattr(a, n)}" for n in differing) for a in (mine, theirs)
        )
        return f"decoder initialised randomly: the weights' has {had}, and the model's {has}"
    if _hidden(mine) != _hidden(theirs):
        return "decoder initialised randomly: its MLPs are of another width"
    return ""


def predicts_pixels(spec: MAESpec) -> bool:
    """Whether a decoder's outputs are the values of a patch, normalised or not."""
    return spec.target.kind in ("pixels", "normalized-pixels")


def _predict_alike(was: MAESpec, now: MAESpec) -> bool:
    """Whether what one decoder learned means something to the other's target."""
    if predicts_pixels(was) and predicts_pixels(now):
        return True
    same_patch = was.encoder.patch_size == now.encoder.patch_size
    same_values = same_patch and was.encoder.channels == now.encoder.channels
    alike = was.target.kind == now.target.kind and was.outputs == now.outputs
    return alike and (now.target.kind == "tokens" or same_values)


def _size(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
