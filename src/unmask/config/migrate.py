"""config.json, plan.json and model.json of earlier versions, as this version writes them."""

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from unmask.config.io import from_dict, plain
from unmask.config.plan import PLAN_FORMAT, EarlierPlan

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


def read_config(values: Any, cls: type[T]) -> T:
    """The configuration that a config.json holds.

    Settings that did nothing are left out. Raises ValueError if a newer version wrote it, and as
    `from_dict` does.
    """
    if not isinstance(values, dict):
        raise ValueError("it holds no names and values")
    written = values.get("format", 1)
    if not isinstance(written, int) or written > CONFIG_FORMAT:
        raise ValueError(
            f"the configuration has format {written} and this unmask reads up to {CONFIG_FORMAT}: "
            f"install the newer version that wrote it"
        )
    asked = {name: value for name, value in values.items() if name not in ("format", "command")}
    section, setting = WITHOUT_EFFECT.get(str(values.get("command")), ("", ""))
    if isinstance(asked.get(section), dict):
        asked[section] = {name: one for name, one in asked[section].items() if name != setting}
    return from_dict(cls, known(asked, cls) if written == 1 else asked)


def known(values: Any, kind: Any) -> Any:
    """Values without the names that a section does not have today, nested ones included."""
    if not (isinstance(kind, type) and is_dataclass(kind) and isinstance(values, dict)):
        return values
    hints, names = get_type_hints(kind), [field.name for field in fields(kind)]
    return {name: known(values[name], hints[name]) for name in names if name in values}


def read_plan(values: Any) -> EarlierPlan:
    """What plan.json holds. Raises ValueError if it is none, or if a newer version wrote it."""
    try:
        return from_dict(EarlierPlan, known(_migrated_plan(values), EarlierPlan))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"it is no plan of a run: {type(error).__name__}, {error}") from error


def _migrated_plan(values: dict[str, Any]) -> dict[str, Any]:
    """As written today."""
    written = values.get("format", 1)
    if written > PLAN_FORMAT:
        raise ValueError(
            f"it has format {written} and this unmask reads up to {PLAN_FORMAT}: install the newer "
            f"version that wrote it"
        )
    if written > 1:
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
