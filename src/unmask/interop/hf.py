"""Hugging Face's ViTMAE and ViT, classifiers too: names and config.json.

We write the names of transformers 4, which version 5 reads too. We read those, version 5's own inside
names, and what its save_pretrained writes: its renaming of encoder layers catches the decoder's as well
(`decoder.decoder_encoder.layer.0` in 5.23).
"""

import re
from typing import Any

import torch
from torch import Tensor

from unmask.config.io import plain
from unmask.core.spec import DecoderSpec, MAESpec, MaskSpec, ModelSpec, Size, TargetSpec, ViTSpec
from unmask.errors import CheckpointError
from unmask.interop.description import (
    OUR_ENTRY,
    UNKNOWN_LICENCE,
    Description,
    Weights,
    foreign_description,
)
from unmask.interop.heads import ReadHead, placeholders, read_head
from unmask.interop.hf_images import read_preprocessor
from unmask.interop.official import check_names, from_official, mlp_ratio
from unmask.models.classifier_spec import EncoderSpec

MODEL_TYPES = ("vit_mae", "vit")
EPS = 1e-6
POOLER, CLASSIFIER = ("pooler.", "vit.pooler."), "classifier."

OURS_TO_THEIRS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
EMBEDDINGS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
PARTS = ("query", "key", "value")

THEIRS_TO_OURS = [
    (r"^decoder\.(?:decoder_layers|decoder_encoder\.layer)\.", "decoder_blocks."),
    (r"^decoder\.", ""),
    (r"^vit\.", ""),
    (r"^(?:encoder\.layer|layers)\.", "blocks."),
    (r"\.attention\.(?:attention\.query|q_proj)\.", ".attn.0."),
    (r"\.attention\.(?:attention\.key|k_proj)\.", ".attn.1."),
    (r"\.attention\.(?:attention\.value|v_proj)\.", ".attn.2."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.cls_token$", "cls_token"),
]
"""Applied one after the other."""


def is_hf(names: Any) -> bool:
    """Whether weights carry Hugging Face's names."""
    return any("patch_embeddings.projection" in name for name in names)


def to_hf(state: dict[str, Tensor], *, has_decoder: bool) -> dict[str, Tensor]:
    """Our weights under the names of ViTMAEForPreTraining, ViTForImageClassification or ViTModel."""
    theirs = {}
    has_head = "head.weight" in state
    for name, value in state.items():
        side, rest = name.split(".", 1)
        if side == "head":
            theirs[CLASSIFIER + rest] = value
            continue
        prefix = "decoder." if side == "decoder" else "vit." if has_decoder or has_head else ""
        rest = prefix + _their_name(rest)
        if ".attn.qkv." not in rest:
            theirs[rest] = value
            continue
        for part, third in zip(PARTS, value.chunk(3), strict=True):
            theirs[rest.replace("attn.qkv", f"attention.attention.{part}")] = third
    return theirs


def from_hf(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's weights under the names of the official MAE code."""
    ours: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        renamed = _our_name(name)
        if match := re.fullmatch(r"(.*\.attn)\.([012])\.(weight|bias)", renamed):
            thirds.setdefault(f"{match[1]}.qkv.{match[3]}", {})[match[2]] = value
        else:
            ours[renamed] = value
    whole = {n: torch.cat([t[i] for i in "012"]) for n, t in thirds.items() if len(t) == len(PARTS)}
    return ours | whole


def read_hf(state: dict[str, Tensor], config: dict[str, Any], preprocessor: dict[str, Any]) -> Weights:
    """A Hugging Face folder's weights and settings.

    Raises CheckpointError if the model is not the plain Vision Transformer.
    """
    _check_plain(config)
    top = {n.replace(CLASSIFIER, "head."): v for n, v in state.items() if n.startswith(CLASSIFIER)}
    body = {name: v for name, v in state.items() if not name.startswith((*POOLER, CLASSIFIER))}
    ours = from_hf(body)
    try:
        encoder = _encoder(config)
        decoder = _decoder(config) if "decoder_embed.weight" in ours else None
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"config.json does not describe a {config['model_type']} ({error}): get a fresh copy"
        ) from error
    check_names(ours, encoder, decoder)
    seen = read_preprocessor(preprocessor)
    head = _read_head(top, config, encoder, seen.crop)
    description = foreign_description(
        head.classifier if head else _model(config, encoder, decoder),
        eval_crop=head.eval_crop if head else 1.0,
        statistics=seen.statistics,
        licence_note=UNKNOWN_LICENCE,
        of_input=seen.notes if head else (),
        notes=(*(head.notes if head else ()), *_notes(state, ours, config)),
        recorded=config.get(OUR_ENTRY),
    )
    return Weights({**from_official(ours), **top}, description)


def hf_config(description: Description, *, has_norm: bool = True) -> dict[str, Any]:
    """config.json. Raises CheckpointError if transformers cannot hold the model.

    `has_norm`: whether a norm stands behind the encoder's blocks.
    """
    e, mae = description.encoder, description.autoencoder
    _check_holds(description, has_norm=has_norm)
    settings: dict[str, Any] = {
        "architectures": [_class_name(description)],
        "model_type": "vit_mae" if mae else "vit",
        "image_size": _one(e.image_size),
        "patch_size": _one(e.patch_size),
        "num_channels": e.channels,
        "hidden_size": e.width,
        "num_hidden_layers": e.depth,
        "num_attention_heads": e.heads,
        "intermediate_size": int(e.width * e.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": EPS,
        "qkv_bias": True,
        "dtype": "float32",
    }
    if mae:
        d = mae.decoder
        settings |= {
            "decoder_hidden_size": d.width,
            "decoder_num_hidden_layers": d.depth,
            "decoder_num_attention_heads": d.heads,
            "decoder_intermediate_size": int(d.width * d.mlp_ratio),
            "mask_ratio": mae.mask.ratio,
            "norm_pix_loss": mae.target.kind == "normalized-pixels",
        }
    if head := description.classifier:
        names = head.classes if head.named else placeholders(len(head.classes))
        indices = dict(enumerate(names))
        settings |= {"id2label": indices, "label2id": {name: i for i, name in indices.items()}}
    return {**settings, OUR_ENTRY: plain(description)}


def _encoder(c: dict[str, Any]) -> ViTSpec:
    """What is not written down is transformers' default."""
    width = c.get("hidden_size", 768)
    return ViTSpec(
        image_size=_pair(c.get("image_size", 224)),
        patch_size=_pair(c.get("patch_size", 16)),
        channels=c.get("num_channels", 3),
        width=width,
        depth=c.get("num_hidden_layers", 12),
        heads=c.get("num_attention_heads", 12),
        mlp_ratio=mlp_ratio(c.get("intermediate_size", 3072), width),
    )


def _decoder(c: dict[str, Any]) -> DecoderSpec:
    width = c.get("decoder_hidden_size", 512)
    return DecoderSpec(
        width=width,
        depth=c.get("decoder_num_hidden_layers", 8),
        heads=c.get("decoder_num_attention_heads", 16),
        mlp_ratio=mlp_ratio(c.get("decoder_intermediate_size", 2048), width),
    )


def _model(c: dict[str, Any], encoder: ViTSpec, decoder: DecoderSpec | None) -> ModelSpec:
    if decoder is None:
        return EncoderSpec(encoder=encoder)
    return MAESpec(
        encoder=encoder,
        decoder=decoder,
        mask=MaskSpec(ratio=c.get("mask_ratio", 0.75)),
        target=TargetSpec(kind="normalized-pixels" if c.get("norm_pix_loss", False) else "pixels"),
    )


def _check_plain(config: dict[str, Any]) -> None:
    if config["model_type"] not in MODEL_TYPES:
        raise CheckpointError(
            f"config.json says model_type {config['model_type']}, and unmask reads "
            f"{' and '.join(MODEL_TYPES)}: choose weights of a ViTMAE or ViT"
        )
    for name, usual in (("hidden_act", "gelu"), ("qkv_bias", True)):
        if config.get(name, usual) != usual:
            raise CheckpointError(
                f"config.json says {name} {config[name]}, and the Vision Transformer of masked "
                f"autoencoders has {usual}: choose weights that have this"
            )


def _class_name(d: Description) -> str:
    if d.autoencoder:
        return "ViTMAEForPreTraining"
    return "ViTForImageClassification" if d.classifier else "ViTModel"


def _read_head(
    top: dict[str, Tensor], config: dict[str, Any], encoder: ViTSpec, crop: float
) -> ReadHead | None:
    """Their classifier is given the class token."""
    if "head.weight" not in top:
        return None
    return read_head(top, encoder, names=config.get("id2label"), pool="class", crop=crop)


def _check_holds(d: Description, *, has_norm: bool) -> None:
    """Raises CheckpointError if transformers cannot hold the model."""
    e, mae, head, odd = d.encoder, d.autoencoder, d.classifier, list[str]()
    if head and head.pool != "class":
        odd.append("classifiers of the class token and this one pools the mean of the patches")
    elif not has_norm:
        odd.append("a norm behind the blocks and this encoder has none")
    if e.class_tokens != 1:
        odd.append(f"one class token and this model has {e.class_tokens}")
    for name, (height, width) in (("images", e.image_size), ("patches", e.patch_size)):
        if mae and height != width:
            odd.append(f"square {name} and this model's are {height} x {width}")
    if mae and mae.target.kind in ("pca", "tokens"):
        odd.append(f"pixels as the target and this model predicts {mae.target.kind}")
    if mae and mae.mask.tokens_in_encoder:
        odd.append("mask tokens in the decoder and this model has them in the encoder")
    if odd:
        raise CheckpointError(
            f"transformers' {'ViTMAE' if mae else 'ViT'} holds {odd[0]}: export it --to timm, "
            f"which takes {'it' if head else 'the encoder'} and whose folder transformers' "
            f"{'pipeline' if head else 'AutoModel'} opens, or --to safetensors"
        )


def _notes(state: dict[str, Tensor], ours: dict[str, Tensor], config: dict[str, Any]) -> tuple[str, ...]:
    notes = []
    if any(name.startswith(POOLER) for name in state):
        notes.append("the pooling layer was left out")
    eps = config.get("layer_norm_eps", 1e-12)
    if eps != EPS:
        notes.append(f"layer norms have an epsilon of {EPS:g} instead of {eps:g}")
    if not ours["pos_embed"].any():
        notes.append(
            "the table of positions is zero, as transformers leaves it in a model that it has built "
            "rather than loaded"
        )
    return tuple(notes)


def _their_name(name: str) -> str:
    if match := re.fullmatch(r"(decoder_)?blocks\.(\d+)\.(.+)\.(weight|bias)", name):
        layers = "decoder_layers" if match[1] else "encoder.layer"
        return f"{layers}.{match[2]}.{OURS_TO_THEIRS.get(match[3], match[3])}.{match[4]}"
    stem, dot, kind = name.rpartition(".")
    return EMBEDDINGS.get(stem, stem) + dot + kind if dot else EMBEDDINGS.get(name, name)


def _our_name(name: str) -> str:
    for pattern, ours in THEIRS_TO_OURS:
        name = re.sub(pattern, ours, name)
    return name


def _one(size: Size) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def _pair(size: Any) -> Size:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
