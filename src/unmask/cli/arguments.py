"""What the commands share in reading their arguments."""

import math
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

import tyro

from unmask.cli import help as help_texts
from unmask.cli.removed import REMOVED
from unmask.config.fields import options_of, settings_of

T = TypeVar("T")

SHORT_NAMES = {"tune-blocks": "head.tune-blocks", "head": "head.kind", "time": "run.time"}
"""Settings that have a short name, as flags and in --sweep."""


def take_switch(argv: list[str], name: str) -> bool:
    """Removes a flag without a value; returns whether it was there."""
    present = name in argv
    argv[:] = [word for word in argv if word != name]
    return present


def take_value(argv: list[str], name: str) -> str | None:
    """Removes `name VALUE` or `name=VALUE`; returns the value of the last."""
    value: str | None = None
    kept: list[str] = []
    words = iter(argv)
    for word in words:
        if word == name:
            value = next(words, None)
            if value is None:
                raise ValueError(f"{name} needs a value: write {name} VALUE")
        elif word.startswith(f"{name}="):
            value = word.split("=", 1)[1]
        else:
            kept.append(word)
    argv[:] = kept
    return value


def full_name(field: str) -> str:
    """The field that a short name stands for; others as they are."""
    return SHORT_NAMES.get(field.replace("_", "-"), field)


def with_full_names(argv: list[str]) -> list[str]:
    """`--tune-blocks` or `--tune-blocks=1` with the whole name; other words as they are."""

    def full(word: str) -> str:
        name, equals, value = word[2:].partition("=")
        return f"--{full_name(name)}{equals}{value}" if word.startswith("--") else word

    return list(map(full, argv))


def refuse_removed(command: str, flags: list[str]) -> None:
    """Raises ValueError that says why a flag is gone, and what replaces it."""
    for word in flags:
        name = word.split("=")[0].removeprefix("--").replace("_", "-")
        for gone, why in REMOVED.get(command, {}).items():
            if word.startswith("--") and (
                name == gone or (gone.endswith(".") and name.startswith(gone))
            ):
                raise ValueError(f"{command} has no --{name} any more: {why}")


def parse(base: T, argv: list[str], *, prog: str, description: str) -> tuple[T, list[str]]:
    """Flags over defaults, and the words before, between and after them.

    A flag of several numbers ends where a word is none; one of several texts takes all words up to the
    next flag. Exits with 2 and suggestions if a flag is unknown, as tyro does. Raises ValueError for
    True or False behind a flag that takes no value.
    """
    _refuse_words_behind_switches(base, argv)
    words, flags = _apart(base, argv)
    config = tyro.cli(
        type(base),
        args=flags,
        default=base,
        prog=prog,
        description=description,
        registry=help_texts.registry(base),
    )
    return config, words


class _Values(NamedTuple):
    """What stands behind a flag."""

    most: float
    numbers: bool = False
    """Whether each must be one."""

    @classmethod
    def of(cls, kind: Any) -> "_Values":
        """By the type of its setting."""
        several = next((one for one in options_of(kind) if get_origin(one) is tuple), None)
        if several is None:
            return cls(0 if kind is bool else 1)
        first, *others = get_args(several)
        return cls(math.inf if others == [Ellipsis] else 1 + len(others), first is not str)


def _apart(config: Any, argv: list[str]) -> tuple[list[str], list[str]]:
    """Words that belong to no flag, and flags with their values."""
    takes = {one.flag: _Values.of(one.field.type) for one in settings_of(config)}
    words, flags, wanted, numbers = list[str](), list[str](), 0.0, False
    for word in argv:
        if word.startswith("--"):
            name, equals, _ = word.replace("_", "-").partition("=")
            wanted, numbers = takes.get(name, _Values(0)) if not equals else _Values(0)
            flags.append(word)
        elif wanted and (not numbers or _is_number(word)):
            wanted -= 1
            flags.append(word)
        elif word.startswith("-"):
            flags.append(word)
        else:
            wanted = 0
            words.append(word)
    return words, flags


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word == "None"
    return True


def switches(config: Any) -> dict[str, str]:
    """Flags without a value, and what turns each off: {"--data.flip": "--data.no-flip"}."""
    flags = (one.flag for one in settings_of(config) if one.field.type is bool)
    parts = {flag: flag.removeprefix("--").rpartition(".") for flag in flags}
    return {flag: f"--{section}{dot}no-{name}" for flag, (section, dot, name) in parts.items()}


def _refuse_words_behind_switches(config: Any, argv: list[str]) -> None:
    """Raises ValueError for True or False behind a switch, which would be read as a folder's name."""
    off = switches(config)
    words = [part for word in argv for part in word.split("=", 1)]
    for flag, value in pairwise(words):
        name = flag.replace("_", "-")
        if name in off and value.lower() in ("true", "false"):
            write = name if value.lower() == "true" else off[name]
            raise ValueError(f"{name} takes no value, and got {value}: write {write}")


def settings_in(flags: list[str]) -> set[str]:
    """The settings that flags name, as in optim.base_lr."""
    names = (word.split("=")[0].removeprefix("--") for word in flags if word.startswith("--"))
    return {name.replace("-", "_") for name in names}
