"""What is known of a setting beside its value: its range, and whether a resumed run may change it."""

import math
import sys
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

RANGE, MAY_CHANGE = "range", "may_change_on_resume"

ACCEPTED = {bool: (bool,), int: (int,), float: (int, float), str: (str,), NoneType: (NoneType,)}
NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "text", NoneType: "None"}


@dataclass(frozen=True)
class Setting:
    """A field of a configuration; `name` as in data.size."""

    name: str
    value: Any
    field: Field

    @property
    def flag(self) -> str:
        """As it is typed."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def may_change(self) -> bool:
        """Whether a resumed run may have another value: it does not change what is learned."""
        return self.field.metadata.get(MAY_CHANGE, False)


def setting(
    default: Any, *, least: float = -math.inf, most: float = math.inf, may_change: bool = False
) -> Any:
    """A field with its range, both ends allowed, and whether a resumed run may change it."""
    return field(default=default, metadata={RANGE: (least, most), MAY_CHANGE: may_change})


def settings_of(config: Any, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a configuration, those in its sections included."""
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            yield from settings_of(value, f"{prefix}{each.name}.")
        else:
            yield Setting(f"{prefix}{each.name}", value, each)


def check_types(config: Any) -> None:
    """Raises ValueError if a value is not of its field's type, or none of its choices."""
    for one in settings_of(config):
        check_type(one.flag, one.field.type, one.value)


def check_type(name: str, kind: Any, value: Any) -> None:
    """Raises ValueError that names the value and what it must be, if it is not of this type."""
    if _fits(kind, value):
        return
    choices = [choice for option in options_of(kind) for choice in _choices(option)]
    must = f": choose one of {', '.join(choices)}" if choices else f" and must be {_named(kind)}"
    raise ValueError(f"{name} is {value!r}{must}")


def options_of(kind: Any) -> tuple[Any, ...]:
    """The types that a union names; one of its own for any other."""
    return get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)


def _choices(kind: Any) -> tuple[str, ...]:
    """Those of a Literal, or of each value of a tuple."""
    if get_origin(kind) is tuple:
        return _choices(get_args(kind)[0])
    return get_args(kind) if get_origin(kind) is Literal else ()


def _fits(kind: Any, value: Any) -> bool:
    return any(_is_one(option, value) for option in options_of(kind))


def _is_one(kind: Any, value: Any) -> bool:
    """Whether the value is of this type; always true for types that no setting has."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, list | tuple):
            return False
        if kinds[-1] is Ellipsis:
            return all(_fits(kinds[0], one) for one in value)
        return len(value) == len(kinds) and all(map(_fits, kinds, value))
    if isinstance(value, bool) and kind is not bool:
        return kind not in ACCEPTED
    if kind is float and isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return isinstance(value, ACCEPTED.get(kind, object))


def _named(kind: Any) -> str:
    """A type in words, None last."""
    return " or ".join(map(_name_of_one, options_of(kind)))


def _name_of_one(kind: Any) -> str:
    if get_origin(kind) is not tuple:
        return NAMES[kind]
    several = {bool: "values", int: "whole numbers", float: "numbers", str: "texts"}
    first, *others = get_args(kind)
    count = "" if others == [Ellipsis] else f"{len(others) + 1} "
    return f"{count}{several[first] if first in several else f'lists of {_named(first)}'}"


def check(config: Any) -> None:
    """Raises ValueError if a value has another type or is outside its range, or a section objects."""
    check_types(config)
    for one in settings_of(config):
        least, most = one.field.metadata.get(RANGE, (-math.inf, math.inf))
        if isinstance(one.value, float) and not math.isfinite(one.value):
            raise ValueError(f"{one.flag} is {one.value} and must be finite")
        if isinstance(one.value, int | float) and not least <= one.value <= most:
            limit = f"{least:g} or more" if most == math.inf else f"between {least:g} and {most:g}"
            raise ValueError(f"{one.flag} is {one.value} and must be {limit}")
    for section in (getattr(config, each.name) for each in fields(config)):
        for part in type(section).__mro__:  # a section is composed of parts, each with its own check
            if "check" in vars(part):
                vars(part)["check"](section)


def pair(flag: str, sides: tuple[int, ...]) -> tuple[int, int]:
    """Height and width; one number means a square."""
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(
            f"--{flag} takes one positive number, or two for height and width, and got "
            f"{' '.join(map(str, sides)) or 'none'}: write --{flag} 224 or --{flag} 96 160"
        )
    return sides[0], sides[-1]
