"""What the commands share in reading their arguments."""

from dataclasses import replace
from typing import TypeVar

import tyro

from unmask.config.schema import PretrainConfig
from unmask.config.schema_classify import ClassifyConfig

T = TypeVar("T")
C = TypeVar("C", PretrainConfig, ClassifyConfig)

SHORT_NAMES = {"tune-blocks": "head.tune-blocks"}
"""Of fields, as flags and in --sweep."""


def split_words(argv: list[str]) -> tuple[list[str], list[str]]:
    """Positional words, which come first, and the flags after them."""
    first_flag = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    return argv[:first_flag], argv[first_flag:]


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


def full_flag(word: str) -> str:
    """`--tune-blocks` or `--tune-blocks=1` with the whole name; other words as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{full_name(name)}{equals}{value}"


def parse(base: T, flags: list[str], *, prog: str, description: str) -> T:
    """Flags over defaults. Exits with 2 and suggestions where a flag is unknown, as tyro does."""
    return tyro.cli(type(base), default=base, args=flags, prog=prog, description=description)


def in_epochs(config: C, flags: list[str]) -> C:
    """Without the length in steps, which would win, where the flags ask for one in epochs."""
    asked = {word.split("=")[0].replace("_", "-") for word in flags}
    optim = config.optim
    if "--optim.epochs" in asked and "--optim.steps" not in asked:
        optim = replace(optim, steps=None)
    if "--optim.warmup-epochs" in asked and "--optim.warmup-steps" not in asked:
        optim = replace(optim, warmup_steps=None)
    return replace(config, optim=optim)


def with_source(config: PretrainConfig, words: list[str]) -> PretrainConfig:
    """The data that the positional words name."""
    return replace(config, data=replace(config.data, source=tuple(words))) if words else config
