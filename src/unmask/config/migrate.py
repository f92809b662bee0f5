"""config.json, plan.json and model.json of earlier versions, as this version writes them."""

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from unmask.config.io import from_dict, plain

CONFIG_FORMAT, MODEL_FORMAT = 2, 2
T = TypeVar("T")

ENCODER = (
    *("image_size", "patch_size", "channels", "width", "depth", "heads"),
    *("mlp_ratio", "class_tokens"),
)
OUTPUTS = ("classes", "pool", "batch_norm")
OTHERS = ("recipe", "data", "steps", "weights", "licence_note", "notes")
"""Names that model.json has kept."""


WITHOUT_EFFECT = {"tokenizer": ("run", "activation_checkpointing")}
"""Section and setting that a command once had, and that did nothing."""


def config_record(config: Any, command: str) -> dict[str, Any]:
    """What config.json holds: the format, the command, and what was asked."""
    return {"format": CONFIG_FORMAT, "command": command, **plain(config)}


def read_config(values: dict[str, Any], cls: type[T]) -> T:
    """The configuration that a config.json holds.

    Settings that did nothing are left out. Raises ValueError if a newer version wrote
    it, or for names that the configuration does not have.
    """
    written = values.get("format", 1)
    if not isinstance(written, int) or written > CONFIG_FORMAT:
        raise ValueError(
            f"the configuration has format {written} and this unmask reads up to {CONFIG_FORMAT}: "
            f"install the newer version that wrote it"
        )
    asked = {name: value for name, value in values.items() if name not in ("format", "command")}
    section, setting = WITHOUT_EFFECT.get(values.get("command", ""), ("", ""))
    if isinstance(asked.get(section), dict):
        asked[section] = {name: one for name, one in asked[section].items() if name != setting}
    return from_dict(cls, _known(asked, cls) if written == 1 else asked)


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def _known(values: dict[str, Any], cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    kept = {}
    for name in (field.name for field in fields(cls) if field.name in values):
        value, section = values[name], hints[name]
        nested = _is_section(section) and isinstance(value, dict)
        kept[name] = _known(value, section) if nested else value
    return kept


def migrate_plan(values: dict[str, Any]) -> dict[str, Any]:
    """What a resumed run takes from plan.json, as written today: model, image, facts, training."""
    if values.get("format", 1) > 1:
        return values
    facts, head = values["facts"], values.get("head")
    description = {"architecture": values["architecture"], "mean": facts["mean"], "std": facts["std"]}
    description |= {
        "pixel_type": facts.get("pixel_type", "uint8"),
        "display": values["data"].get("display"),
        "head": head
        and {
            "classes": values["classes"],
            "pool": head["pool"],
            "batch_norm": head["batch_norm"],
            "eval_crop": values["data"]["eval_crop"],
        },
    }
    today = migrate_model(description)
    names = ("training_images", "held_out_images", "fingerprint", "decoded_bytes")
    return {
        "model": today["model"],
        "image": today["image"],
        "facts": {name: facts[name] for name in names},
        "training": values["training"],
    }


def migrate_model(values: dict[str, Any]) -> dict[str, Any]:
    """The same description in today's format.

    Raises ValueError if a newer version wrote it, KeyError if it describes no model.
    """
    written = values.get("format", 1)
    if written > MODEL_FORMAT:
        raise ValueError(
            f"it has format {written} and this unmask reads up to {MODEL_FORMAT}: install the newer "
            f"version that wrote it"
        )
    return values if written == MODEL_FORMAT else _from_format_1(values)


def _from_format_1(values: dict[str, Any]) -> dict[str, Any]:
    """Format 1 had one flat record of all dimensions, and a head beside it."""
    a, head = values["architecture"], values.get("head")
    encoder = {name: a[name] for name in ENCODER if name in a}
    image = {
        "size": a["image_size"],
        "channels": a["channels"],
        "mean": values["mean"],
        "std": values["std"],
        "display": values.get("display"),
        "dtype": values.get("pixel_type", "uint8"),
        "eval_crop": head.get("eval_crop", 1.0) if head else 1.0,
    }
    return {
        "format": MODEL_FORMAT,
        "model": _model(values, a, encoder, head),
        "image": image,
        "precision": head.get("precision", "fp32") if head else "fp32",
        **{name: values[name] for name in OTHERS if name in values},
    }


def _model(
    values: dict[str, Any], a: dict[str, Any], encoder: dict[str, Any], head: dict[str, Any] | None
) -> dict[str, Any]:
    if head:
        outputs = {name: value for name, value in head.items() if name in OUTPUTS}
        return {"type": "classifier", "encoder": encoder, **outputs}
    if not values.get("has_decoder", True):
        return {"type": "encoder", "encoder": encoder}
    parts = {
        "decoder": {"decoder_width": "width", "decoder_depth": "depth", "decoder_heads": "heads"},
        "mask": {
            "mask_ratio": "ratio",
            "mask_unit": "unit",
            "mask_tokens_in_encoder": "tokens_in_encoder",
        },
        "target": {"target": "kind", "loss_on": "loss_on"},
    }
    named = {
        part: {now: a[was] for was, now in names.items() if was in a} for part, names in parts.items()
    }
    if "mlp_ratio" in a:
        named["decoder"]["mlp_ratio"] = a["mlp_ratio"]
    return {"type": "masked-autoencoder", "encoder": encoder, **named}
