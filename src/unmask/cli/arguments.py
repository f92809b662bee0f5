"""What the commands share in reading their arguments."""

from itertools import pairwise
from typing import Any, TypeVar

import tyro

from unmask.cli.removed import REMOVED
from unmask.config.fields import settings_of

T = TypeVar("T")

SHORT_NAMES = {"tune-blocks": "head.tune-blocks", "head": "head.kind"}
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
    """Flags over defaults, and the words before and after them.

    Exits with 2 and suggestions if a flag is unknown, as tyro does. Raises ValueError for True or False
    behind a flag that takes no value.
    """
    _refuse_words_behind_switches(base, argv)
    first = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    words, flags = argv[:first], argv[first:]
    options: dict[str, Any] = {"default": base, "prog": prog, "description": description}
    config, others = tyro.cli(type(base), args=flags, return_unknown_args=True, **options)
    if any(word.startswith("-") for word in others):
        tyro.cli(
            type(base), args=[word for word in flags if word not in others or word[0] == "-"], **options
        )
    return config, [*words, *others]


def switches(config: Any) -> dict[str, str]:
    """Flags without a value, and what turns each off: {"--data.flip": "--data.no-flip"}."""
    flags = (one.flag for one in settings_of(config) if one.field.type is bool)
    parts = {flag: flag.removeprefix("--").rpartition(".") for flag in flags}
    return {flag: f"--{section}{dot}no-{name}" for flag, (section, dot, name) in parts.items()}


def _refuse_words_behind_switches(config: Any, argv: list[str]) -> None:
    """They would be taken for a folder of that name."""
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
