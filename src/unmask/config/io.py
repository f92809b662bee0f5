"""Dataclasses as JSON, both ways; a spec also says its type, by which it is built again."""

import dataclasses
import importlib
import json
import pkgutil
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import unmask.models
from unmask.config.fields import check_type
from unmask.core.spec import SPECS, ModelSpec
from unmask.storage import from_json, read_regular

T = TypeVar("T")
TYPE = "type"


def to_json(value: Any) -> str:
    """Dataclasses and plain values as readable JSON; bytes of names that are not UTF-8 are escaped."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, nested ones included; specs of models say their type first."""
    if dataclasses.is_dataclass(value):
        tagged = {TYPE: tag} if (tag := getattr(value, TYPE, None)) in SPECS else {}
        return {**tagged, **{f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def from_dict(cls: type[T], values: dict[str, Any], place: str = "") -> T:
    """Builds the dataclass `cls`, nested ones included; lists become tuples if it has tuples.

    Raises ValueError for names that it does not have, for those that it needs and misses, for values of
    another type, and if there are no names and values. `place` is where it stands, as in "data.".
    """
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} wants names and values, not {values!r}: get a fresh copy")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    if unknown := sorted(values.keys() - fields):
        raise ValueError(
            f"{cls.__name__} has no {', '.join(unknown)}: correct or remove these names, or use the "
            f"version of unmask that wrote the file"
        )
    if missing := [name for name in fields if _is_needed(fields[name]) and name not in values]:
        raise ValueError(f"{cls.__name__} lacks {', '.join(missing)}: get a fresh copy")
    converted = {name: _convert(hints[name], one, f"{place}{name}") for name, one in values.items()}
    for name, value in converted.items():
        check_type(f"{place}{name}", hints[name], value)
    return cls(**converted)


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def spec_from_dict(values: dict[str, Any], place: str = "") -> ModelSpec:
    """The spec that a file holds. Raises ValueError if it is none, or of an unknown type."""
    if not isinstance(values, dict):
        raise ValueError(
            f"a model is described by names and values, not by {values!r}: get a fresh copy"
        )
    others = {name: value for name, value in values.items() if name != TYPE}
    return from_dict(_spec_class(values.get(TYPE)), others, place)


def read_json(path: Path) -> Any:
    """Raises ValueError if the file is no JSON."""
    try:
        return from_json(read_regular(path))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): restore it or remove it") from error


def _spec_class(tag: Any) -> type[Any]:
    """Ours are in models/ under names that end in _spec, and are imported only now."""
    if not isinstance(tag, str):
        raise ValueError(f"the type of a model is text, not {tag!r}: get a fresh copy")
    for module in pkgutil.iter_modules(unmask.models.__path__) if tag not in SPECS else ():
        if module.name.endswith("_spec"):
            importlib.import_module(f"unmask.models.{module.name}")
    if tag not in SPECS:
        raise ValueError(
            f"there is no model of type {tag!r} among {', '.join(sorted(SPECS))}: import the module "
            f"that registers it, or use the version of unmask that wrote the file"
        )
    return SPECS[tag]


def _convert(hint: Any, value: Any, place: str) -> Any:
    if hint is ModelSpec and not dataclasses.is_dataclass(value):
        return spec_from_dict(value, f"{place}.")
    if dataclasses.is_dataclass(hint) and not dataclasses.is_dataclass(value):
        return from_dict(typing.cast(type, hint), value, f"{place}.")
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    wants_tuple = any((typing.get_origin(option) or option) is tuple for option in options)
    if not wants_tuple or not isinstance(value, list):
        return value
    return tuple(tuple(one) if isinstance(one, list) else one for one in value)
