"""Settings by keyword: `steps=20` or `optim_steps=20` for the setting optim.steps."""

import difflib
import os
import types
import typing
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any, TypeVar

from unmask.config.fields import settings_of

T = TypeVar("T")

NOT_SWEPT = {
    "recipe": "a recipe is what a whole sweep begins with: give the command once for each --recipe, "
    "with an --out of its own",
    "out": "every run of a sweep has a folder of its own below --out: leave it to --out",
    "data.source": "runs on different images do not compare: give the command once for each data set",
}
"""Settings that a sweep cannot set, and what to do instead."""

IN_STEPS = {"optim.epochs": "optim.steps", "optim.warmup_epochs": "optim.warmup_steps"}
"""Lengths in epochs, and the settings that say them in steps and win."""


DECIDED_BY: dict[str, tuple[str, ...]] = {
    "data.size": ("size",),
    **dict.fromkeys(("model.patch", "mask.ratio", "mask.strategy", "mask.unit"), ("patch",)),
    **dict.fromkeys(("mask.file", "target.tokenizer", "init"), ("size", "patch")),
    **dict.fromkeys(("optim.steps", "optim.epochs", "run.time"), ("steps",)),
}
"""Settings that say what is not fitted to the images: patches and mask ratio belong together."""


def with_settings(config: T, settings: dict[str, Any]) -> T:
    """The configuration with some settings changed; a length in epochs replaces one in steps.

    A keyword is a setting's whole name with underscores (`data_size`), or its last part if only one
    setting ends so (`held_out`). One value is enough if several are possible: `data_size=96`. Raises
    TypeError for a keyword that is none, or several.
    """
    return with_named(config, {name_of(config, keyword): value for keyword, value in settings.items()})


def with_named(config: T, settings: dict[str, Any]) -> T:
    """The same, of settings by their names, as in {"optim.steps": 20}."""
    config = without_fit(in_epochs(config, settings), settings)
    for name, value in settings.items():
        config = with_setting(config, name, value)
    return config


def in_epochs(config: T, asked: Collection[str]) -> T:
    """Without the length in steps, which would win, if the settings asked for name one in epochs.

    Raises ValueError if the length is asked for as time, too.
    """
    lengths = [name for name in ("optim.steps", "optim.epochs") if name in asked]
    if "run.time" in asked and lengths:
        raise ValueError(
            f"--time decides the number of steps, and --{lengths[0]} was given too: leave one out"
        )
    for epochs, steps in IN_STEPS.items():
        if epochs in asked and steps not in asked:
            config = with_setting(config, steps, None)
    return config


def without_fit(config: T, asked: Collection[str]) -> T:
    """Fitting nothing to the images that the settings asked for decide."""
    if not (fit := getattr(config, "fit", ())):
        return config
    decided = {name for setting in asked for name in DECIDED_BY.get(setting, ())}
    left = tuple(name for name in fit if name not in decided)
    return replace(config, fit=left)  # type: ignore[type-var]  # a dataclass


def name_of(config: Any, keyword: str) -> str:
    """The setting that a keyword stands for, as in optim.steps. Raises TypeError that suggests one."""
    names = keywords_of(config)
    if keyword in names:
        return names[keyword]
    several = [whole for whole, name in names.items() if name.endswith(f".{keyword}")]
    if several:
        raise TypeError(f"{keyword!r} may be {' or '.join(several)}: write one of them")
    likely = difflib.get_close_matches(keyword, names, n=3)
    hint = f"; did you mean {' or '.join(likely)}?" if likely else ""
    raise TypeError(f"there is no setting {keyword!r}{hint}")


def swept_name(config: Any, field: str) -> str:
    """The setting that a sweep calls optim.base_lr, optim.base-lr or base_lr.

    Raises TypeError if there is none, ValueError if runs that differ in it do not compare.
    """
    name = name_of(config, field.replace("-", "_").replace(".", "_"))
    refuse_to_sweep(name)
    return name


def refuse_to_sweep(name: str) -> None:
    """Raises ValueError for a setting in which the runs of a sweep cannot differ."""
    if name in NOT_SWEPT:
        raise ValueError(NOT_SWEPT[name])


def keywords_of(config: Any) -> dict[str, str]:
    """The setting that each keyword stands for, as in {"steps": "optim.steps", "optim_steps": ...}."""
    names = [one.name for one in settings_of(config)]
    last = {name: name.rpartition(".")[2] for name in names}
    count = Counter(last.values())
    short = {last[name]: name for name in names if count[last[name]] == 1}
    # A top-level name such as init is never a section's.
    top = {name: name for name in names if "." not in name}
    return {**{name.replace(".", "_"): name for name in names}, **short, **top}


def with_setting(config: T, name: str, value: Any) -> T:
    """The configuration with one setting, called as in optim.steps, changed."""
    section, _, rest = name.partition(".")
    if rest:
        return replace(config, **{section: with_setting(getattr(config, section), rest, value)})  # type: ignore[type-var]  # a dataclass
    hint = typing.get_type_hints(type(config))[section]
    return replace(config, **{section: _as_hinted(hint, value)})  # type: ignore[type-var]  # a dataclass


def with_sections(config: T, other: Any) -> T:
    """The configuration with the values of another one, for every setting that both have."""
    theirs = {one.name: one.value for one in settings_of(other)}
    for name in [one.name for one in settings_of(config) if one.name in theirs]:
        config = with_setting(config, name, theirs[name])
    return config


def _as_hinted(hint: Any, value: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not any((typing.get_origin(option) or option) is tuple for option in options) or value is None:
        return value
    several = value if isinstance(value, list | tuple) else (value,)
    return tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in several)
