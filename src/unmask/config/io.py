"""Dataclasses as JSON, both ways."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def to_json(value: Any) -> str:
    """Dataclasses and plain values as readable JSON; bytes of names that are not UTF-8 are escaped."""
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Builds the dataclass `cls`, nested ones included; lists become tuples where it has tuples.

    Raises ValueError for names that it does not have.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(
            f"{cls.__name__} has no {', '.join(unknown)}: the file was written by another version "
            f"of unmask; remove these names, or use the version that wrote it"
        )
    return cls(**{name: _convert(hints[name], value) for name, value in values.items()})


def read_json(path: Path) -> Any:
    """Raises ValueError where the file is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): restore it or remove it") from error


def _convert(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    wants_tuple = any((typing.get_origin(option) or option) is tuple for option in options)
    return tuple(value) if wants_tuple and isinstance(value, list) else value
