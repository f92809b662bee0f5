"""--sweep and --seeds: one command, several runs."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from unmask.cli.arguments import full_name, switches
from unmask.config.keywords import refuse_to_sweep

SWEEP, SEEDS = "--sweep", "--seeds"

Settings = dict[str, str]
"""What one run of a sweep sets: `section.field` and its value, as typed."""


def take_sweep(flags: list[str]) -> list[Settings]:
    """Removes `--sweep section.field v1,v2,...` and `--seeds a,b,...`; returns each run's settings.

    Several sweeps make every combination. Empty if there is none. Raises ValueError if one is
    incomplete, or of a field that a sweep cannot set.
    """
    axes: dict[str, list[str]] = {}
    kept: list[str] = []
    words = iter(_without_equals_signs(flags))
    for word in words:
        if word == SWEEP:
            field = full_name(_next(words, word)).replace("-", "_")
            refuse_to_sweep(field)
            axes[field] = _values(_next(words, word), word)
        elif word == SEEDS:
            axes["run.seed"] = _values(_next(words, word), word)
        else:
            kept.append(word)
    flags[:] = kept
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []


def flags_of(settings: Settings, config: Any) -> list[str]:
    """As they would be typed for a command of this configuration.

    Raises ValueError if a flag without a value is set to something other than True or False.
    """
    off = switches(config)
    words = []
    for field, value in settings.items():
        flag = f"--{field.replace('_', '-')}"
        if flag not in off:
            words += [flag, *value.split()]
        elif value.lower() in ("true", "false"):
            words.append(flag if value.lower() == "true" else off[flag])
        else:
            raise ValueError(f"{flag} is on or off, and got {value}: write --sweep {field} True,False")
    return words


def _without_equals_signs(flags: list[str]) -> Iterator[str]:
    for word in flags:
        yield from word.split("=", 1) if word.startswith((f"{SWEEP}=", f"{SEEDS}=")) else [word]


def _next(words: Iterator[str], flag: str) -> str:
    word = next(words, "--")
    if word.startswith("--"):
        raise ValueError(
            f"{flag} is not complete: write --sweep optim.base-lr 1e-3,2e-3, or --seeds 0,1,2"
        )
    return word


def _values(text: str, flag: str) -> list[str]:
    values = [value for value in text.split(",") if value]
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{flag} takes different values with commas between them, and got {text!r}")
    return values
