"""timm's Vision Transformer: our encoder under the same names, with a config.json beside it.

A decoder has no place on the other side, nor has a probe's BatchNorm, which becomes part of the head;
class tokens beyond the first are timm's registers.
"""

from typing import Any

import torch
from torch import Tensor

from unmask.config.io import plain
from unmask.core.spec import Size, ViTSpec
from unmask.errors import CheckpointError
from unmask.interop.attention_heads import HEADS, PLAIN_NAME, assumed_heads
from unmask.interop.description import (
    HEAD_LEFT_OUT,
    NORM_LEFT_OUT,
    OUR_ENTRY,
    UNKNOWN_LICENCE,
    Description,
    Weights,
    foreign_description,
)
from unmask.interop.heads import ReadHead, read_head
from unmask.interop.official import (
    HEAD_NAMES,
    LICENCE,
    NO_TRAINER,
    Trainer,
    check_names,
    from_official,
    infer_encoder,
    to_official,
)
from unmask.models.classifier_spec import ClassifierSpec, EncoderSpec, HeadPool

NAMES = {
    (192, 12, 3): "vit_tiny_patch16_224",
    (384, 12, 6): "vit_small_patch16_224",
    (1024, 24, 16): "vit_large_patch16_224",
    (1280, 32, 16): "vit_huge_patch14_224",
}
"""By width, depth and heads; every dimension is given in model_args all the same."""
BASE = "vit_base_patch16_224"

READ_OR_IGNORED = {
    "img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio", "num_classes",
    "class_token", "reg_tokens", "no_embed_class", "global_pool", "fc_norm", "pool_include_prefix",
    "dynamic_img_size", "dynamic_img_pad", "strict_img_size", "drop_rate", "pos_drop_rate",
    "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "weight_init", "fix_init",
    "final_norm",
}  # fmt: skip
PLAIN_VALUES = {"qkv_bias": True, "proj_bias": True, "pos_embed": "learn", "act_layer": "gelu"}
"""What other arguments must be; those that are not named here must be absent, false or null."""


def to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our encoder under timm's names, and a head without BatchNorm."""
    theirs = to_official({n: v for n, v in state.items() if n.startswith(("encoder.", *HEAD_NAMES))})
    tokens = theirs.pop("cls_token")
    if tokens.shape[1]:
        theirs["cls_token"] = tokens[:, :1]
    if tokens.shape[1] > 1:
        theirs["reg_token"] = tokens[:, 1:]
    return theirs


def from_timm(state: dict[str, Tensor], *, prefix_has_positions: bool = True) -> dict[str, Tensor]:
    """timm's weights under the official MAE code's names: tokens in one, and a position for each."""
    if "pos_embed" not in state:
        return state
    positions = state["pos_embed"]
    found = [state[name] for name in ("cls_token", "reg_token") if name in state]
    tokens = torch.cat([positions[:, :0], *found], dim=1)
    if not prefix_has_positions:
        positions = torch.cat([torch.zeros_like(tokens), positions], dim=1)
    others = {name: value for name, value in state.items() if name != "reg_token"}
    return {**others, "cls_token": tokens, "pos_embed": positions}


def read_timm(
    state: dict[str, Tensor],
    config: dict[str, Any] | None = None,
    *,
    trainer: Trainer = NO_TRAINER,
    heads: int | None = None,
) -> Weights:
    """timm's weights and, if there is one, its config.json; the official MAE code's have its names.

    `heads` of the encoder are those that are known without the file. Raises CheckpointError if the
    model is not the plain Vision Transformer.
    """
    config = config or {}
    arguments, data = config.get("model_args") or {}, config.get("pretrained_cfg") or config
    size = _check_plain(config.get("architecture"), arguments)
    top = {name: v for name, v in state.items() if name.startswith(HEAD_NAMES)}
    body = {name: v for name, v in state.items() if name not in top}
    theirs = from_timm(body, prefix_has_positions=not arguments.get("no_embed_class"))
    written = arguments.get("num_heads") or (HEADS[size] if size else trainer.heads)
    encoder = infer_encoder(
        theirs,
        image_sizes=[_pair(s) for s in (arguments.get("img_size"), _last_two(data)) if s],
        heads=written or heads,
    )
    has_norm = arguments.get("final_norm") is not False and "fc_norm.weight" not in top
    check_names(theirs, encoder, None, has_norm=has_norm)
    pool = _pool(state, arguments, config, has_norm=has_norm)
    head = _read_head(from_official(top), config, pool, encoder)
    licence, origin = data.get("license"), UNKNOWN_LICENCE if config else LICENCE
    notes = head.notes if head else _left_out(top)
    statistics = (data.get("mean"), data.get("std")) if config else trainer.statistics
    description = foreign_description(
        head.classifier if head else EncoderSpec(encoder=encoder, final_norm=has_norm),
        eval_crop=head.eval_crop if head else 1.0,
        statistics=statistics,
        licence_note=f"{licence}, says timm's config.json" if licence else origin,
        notes=(*notes, *assumed_heads(encoder, None, written or heads)),
        recorded=config.get(OUR_ENTRY),
    )
    return Weights(from_official(theirs | top if head else theirs), description)


def timm_config(description: Description, *, has_norm: bool = True) -> dict[str, Any]:
    """config.json of a folder that timm loads as `local-dir:FOLDER`, or from the hub.

    `has_norm`: whether a norm stands behind the encoder's blocks.
    """
    e, head = description.encoder, description.classifier
    classes = head.classes if head else ()
    return {
        "architecture": NAMES.get((e.width, e.depth, e.heads), BASE),
        "num_classes": len(classes),
        "num_features": e.width,
        **({"label_names": classes} if head and head.named else {}),
        "model_args": model_arguments(e, head, has_norm=has_norm),
        "pretrained_cfg": {
            "tag": OUR_ENTRY,
            "custom_load": False,
            "input_size": [e.channels, *e.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": description.image.eval_crop,
            "crop_mode": "center",
            "mean": description.image.mean,
            "std": description.image.std,
            "num_classes": len(classes),
            "pool_size": None,
            # timm 1.0.16 adapts every first convolution from three channels, its own too.
            "first_conv": "patch_embed.proj" if e.channels == 3 else None,
            "classifier": "head",
        },
        OUR_ENTRY: plain(description),
    }


def model_arguments(e: ViTSpec, head: ClassifierSpec | None = None, *, has_norm: bool) -> dict[str, Any]:
    """What timm's VisionTransformer needs to be our encoder, or our classifier."""
    arguments: dict[str, Any] = {
        "img_size": e.image_size,
        "patch_size": e.patch_size,
        "in_chans": e.channels,
        "embed_dim": e.width,
        "depth": e.depth,
        "num_heads": e.heads,
        "mlp_ratio": e.mlp_ratio,
    }
    if e.class_tokens == 0:
        arguments["class_token"] = False
    if head:
        arguments["global_pool"] = "avg" if head.pool == "mean" else "token"
    elif e.class_tokens == 0:  # without fc_norm the final norm stays before the pooling, as ours does
        arguments |= {"global_pool": "avg", "fc_norm": False}
    if not (head or has_norm):
        arguments["final_norm"] = False
    if e.class_tokens > 1:
        arguments["reg_tokens"] = e.class_tokens - 1
    return arguments


def _check_plain(name: str | None, arguments: dict[str, Any]) -> str | None:
    """The size in timm's name, if there is a name."""
    odd = [f"{key}={value!r}" for key, value in arguments.items() if not _is_plain(key, value)]
    match = PLAIN_NAME.fullmatch(name) if name else None
    if odd or (name and not match):
        raise CheckpointError(
            f"timm's {name or 'model'}{' with ' + odd[0] if odd else ''} is not the plain Vision "
            f"Transformer that masked autoencoders have: choose one such as {BASE}"
        )
    return match["size"] if match else None


def _pool(
    state: dict[str, Tensor], arguments: dict[str, Any], config: dict[str, Any], *, has_norm: bool
) -> HeadPool | None:
    """What timm's head is given; None if ours cannot be given it."""
    places = (arguments, config.get("pretrained_cfg") or {}, config)
    usual = "avg" if "fc_norm.weight" in state else "token"
    name = next((place["global_pool"] for place in places if place.get("global_pool")), usual)
    if name == "token" and has_norm and "cls_token" in state:
        return "class"
    if name == "avg" and "fc_norm.weight" in state and not arguments.get("pool_include_prefix"):
        return "mean"
    return None


def _read_head(
    top: dict[str, Tensor], config: dict[str, Any], pool: HeadPool | None, encoder: ViTSpec
) -> ReadHead | None:
    """The head, if there is one that ours can be."""
    if "head.weight" not in top or not pool:
        return None
    data = config.get("pretrained_cfg") or config
    names = config.get("label_names") or data.get("label_names")
    return read_head(top, encoder, names=names, pool=pool, crop=data.get("crop_pct"))


def _left_out(top: dict[str, Tensor]) -> tuple[str, ...]:
    left_out = [HEAD_LEFT_OUT] * ("head.weight" in top) + [NORM_LEFT_OUT] * ("fc_norm.weight" in top)
    return tuple(left_out)


def _is_plain(key: str, value: Any) -> bool:
    if key in READ_OR_IGNORED or value is None:
        return True
    return value == PLAIN_VALUES[key] if key in PLAIN_VALUES else not value


def _last_two(data: dict[str, Any]) -> Any:
    return (data.get("input_size") or ())[-2:]


def _pair(size: Any) -> Size:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
