"""The axes of the paper's ablations, as data: settings of each value, and the paper's own figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from unmask.config.commands import PretrainConfig
from unmask.config.settings import MaskStrategy
from unmask.core.objective import GRID_RATIO

Settings = dict[str, Any]
"""By their names in PretrainConfig, as in {"mask.ratio": 0.5}."""


class Paper(NamedTuple):
    """Top-1 accuracy on ImageNet-1K in per cent, of a ViT-L pre-trained for 800 epochs."""

    finetune: float
    linear: float


class Value(NamedTuple):
    """One value of an axis."""

    name: str
    """As it is typed, numbers in their shortest form."""
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What one table of the paper varies."""

    label: str
    place: str
    """The table or figure."""
    few: tuple[str, ...]
    """Values to compare on a small budget; on the smallest the first three."""
    all: tuple[str, ...]
    """The paper's."""
    parse: Callable[[str, PretrainConfig], Value]
    """A value as typed, given the settings around it; raises ValueError without the axis' name."""
    paper: Mapping[str, Paper] = field(default_factory=dict)
    """What the paper says of a value, by its name; no more than its text and tables state."""
    note: str = ""
    is_number: bool = True


def _numbers(
    setting: str, kind: type[int] | type[float], least: float, most: float | None = None
) -> Callable[[str, PretrainConfig], Value]:
    """Values that are numbers of one setting."""
    what = "whole numbers" if kind is int else "numbers"
    limits = f"from {least:g}" if most is None else f"between {least:g} and {most:g}"

    def parse(text: str, base: PretrainConfig) -> Value:
        try:
            number = kind(text)
        except ValueError as error:
            raise ValueError(f"takes {what} {limits}") from error
        if not least <= number <= (number if most is None else most):
            raise ValueError(f"takes {what} {limits}")
        return Value(f"{number:g}", {setting: number})

    return parse


def _choices(values: Mapping[str, Settings]) -> Callable[[str, PretrainConfig], Value]:
    """Values that are words."""

    def parse(text: str, base: PretrainConfig) -> Value:
        if text not in values:
            raise ValueError(f"takes {', '.join(values)}")
        return Value(text, values[text])

    return parse


def _sampling(text: str, base: PretrainConfig) -> Value:
    """A strategy, or a strategy and a ratio as in block:0.5."""
    strategy, colon, ratio = text.partition(":")
    try:
        share = float(ratio) if colon else (GRID_RATIO if strategy == "grid" else base.mask.ratio)
    except ValueError:
        strategy = ""
    if strategy not in get_args(MaskStrategy):
        raise ValueError("takes random, block or grid, or one of them with a ratio as in block:0.5")
    settings: Settings = {"mask.strategy": strategy, "mask.ratio": share}
    if strategy != "random":
        settings["mask.unit"] = 1
    return Value(f"{strategy}:{share:g}" if colon else strategy, settings)


def _schedule(text: str, base: PretrainConfig) -> Value:
    """A multiple of the recipe's own length; the warm-up stays, but for at most half of the run."""
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 100:
        raise ValueError("takes multiples of the recipe's own length, above 0 and up to 100")
    o = base.optim
    if o.steps is not None:
        steps = max(1, round(factor * o.steps))
        warmup = o.warmup_steps if o.warmup_steps is not None else steps // 10
        settings: Settings = {"optim.steps": steps, "optim.warmup_steps": min(warmup, steps // 2)}
    else:
        epochs = factor * o.epochs
        settings = {"optim.epochs": epochs, "optim.warmup_epochs": min(o.warmup_epochs, epochs / 2)}
    return Value(f"{factor:g}", settings)


DEFAULT = Paper(84.9, 73.5)
"""Random masks of 75 %, decoder of 8 blocks and 512 channels, pixels, crops of random size."""

AXES: dict[str, Axis] = {
    "mask_ratio": Axis(
        label="mask ratio",
        place="Fig. 5",
        few=("0.5", "0.75", "0.9"),
        all=("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.75", "0.8", "0.9"),
        parse=_numbers("mask.ratio", float, 0, 1),
        paper={"0.75": DEFAULT},
        note="in the paper 40 to 80 % work alike for fine-tuning, and linear probing rises with the "
        "ratio, from 54.6 to 73.5 % at 75 %",
    ),
    "mask_sampling": Axis(
        label="mask sampling",
        place="Table 1f",
        few=("random", "block", "grid"),
        all=("random", "block:0.5", "block", "grid"),
        parse=_sampling,
        paper={
            "random": DEFAULT,
            "random:0.75": DEFAULT,
            "block:0.5": Paper(83.9, 72.3),
            "block": Paper(82.8, 63.9),
            "block:0.75": Paper(82.8, 63.9),
            "grid": Paper(84.0, 66.0),
            "grid:0.75": Paper(84.0, 66.0),
        },
        is_number=False,
    ),
    "decoder_depth": Axis(
        label="decoder blocks",
        place="Table 1a",
        few=("1", "2", "4"),
        all=("1", "2", "4", "8", "12"),
        parse=_numbers("model.decoder_depth", int, 1),
        paper={
            "1": Paper(84.8, 65.5),
            "2": Paper(84.9, 70.0),
            "4": Paper(84.9, 71.9),
            "8": DEFAULT,
            "12": Paper(84.4, 73.3),
        },
    ),
    "decoder_width": Axis(
        label="decoder width",
        place="Table 1b",
        few=("32", "64", "128"),
        all=("128", "256", "512", "768", "1024"),
        parse=_numbers("model.decoder_width", int, 4),
        paper={
            "128": Paper(84.9, 69.1),
            "256": Paper(84.8, 71.3),
            "512": DEFAULT,
            "768": Paper(84.4, 73.1),
            "1024": Paper(84.3, 73.1),
        },
    ),
    "mask_token": Axis(
        label="mask tokens in the encoder",
        place="Table 1c",
        few=("without", "with"),
        all=("without", "with"),
        parse=_choices(
            {"without": {"mask.tokens_in_encoder": False}, "with": {"mask.tokens_in_encoder": True}}
        ),
        paper={"without": DEFAULT, "with": Paper(84.2, 59.6)},
        note="in the paper an encoder with mask tokens costs 3.3 times the operations",
        is_number=False,
    ),
    "target": Axis(
        label="target",
        place="Table 1d",
        few=("pixels", "normalized-pixels", "pca", "tokens"),
        all=("pixels", "normalized-pixels", "pca", "tokens"),
        parse=_choices(
            {k: {"target.kind": k} for k in ("pixels", "normalized-pixels", "pca", "tokens")}
        ),
        paper={
            "pixels": DEFAULT,
            "normalized-pixels": Paper(85.4, 73.9),
            "pca": Paper(84.6, 72.3),
            "tokens": Paper(85.3, 71.6),
        },
        is_number=False,
    ),
    "augmentation": Axis(
        label="augmentation",
        place="Table 1e",
        few=("random-size", "fixed-size", "none", "jitter"),
        all=("random-size", "fixed-size", "none", "jitter"),
        parse=_choices(
            {
                "none": {"data.crop": "centre", "data.flip": False, "data.jitter": 0.0},
                "fixed-size": {"data.crop": "fixed-size", "data.flip": True, "data.jitter": 0.0},
                "random-size": {"data.crop": "random-size", "data.flip": True, "data.jitter": 0.0},
                "jitter": {"data.crop": "random-size", "data.flip": True, "data.jitter": 0.4},
            }
        ),
        paper={
            "none": Paper(84.0, 65.7),
            "fixed-size": Paper(84.7, 73.1),
            "random-size": DEFAULT,
            "jitter": Paper(84.3, 71.9),
        },
        is_number=False,
    ),
    "schedule": Axis(
        label="schedule, as a multiple of the recipe's",
        place="Fig. 7",
        few=("0.25", "0.5", "1"),
        all=("0.125", "0.25", "0.5", "1", "2"),
        parse=_schedule,
        paper={"1": DEFAULT},
        note="the paper's schedules are 100 to 1600 epochs, of which 800 stand for 1 here; its accuracy "
        "rises up to 1600",
    ),
    "loss_on": Axis(
        label="patches of the loss",
        place="Approach",
        few=("masked", "all"),
        all=("masked", "all"),
        parse=_choices({"masked": {"target.loss_on": "masked"}, "all": {"target.loss_on": "all"}}),
        paper={"masked": DEFAULT},
        note="in the paper a loss on all patches costs about 0.5 % accuracy",
        is_number=False,
    ),
    "decode_share": Axis(
        label="share of masked patches decoded",
        place="CrossMAE, Fu et al. 2024",
        few=("0.25", "0.5", "1"),
        all=("0.25", "0.5", "0.75", "1"),
        parse=_numbers("mask.decode_share", float, 0.01, 1),
        paper={"1": DEFAULT},
    ),
}


def find_axis(name: str) -> tuple[str, Axis]:
    """An axis, and its name with underscores. Raises ValueError that lists them if there is none."""
    known = name.replace("-", "_")
    if known not in AXES:
        what = f"there is no axis {name}" if name else "ablate needs an axis"
        raise ValueError(f"{what}: write --axis with one of {', '.join(AXES)}")
    return known, AXES[known]


def parse_values(name: str, words: tuple[str, ...], base: PretrainConfig) -> list[Value]:
    """The values of an axis as typed. Raises ValueError for one that it does not take, or one alone."""
    axis, found = AXES[name], list[Value]()
    example = f"write --values {','.join(axis.few)}"
    for word in words:
        try:
            found.append(axis.parse(word, base))
        except ValueError as error:
            raise ValueError(f"the axis {name} {error}, and got {word!r}: {example}") from error
    settings = [value.settings for value in found]
    if len(found) < 2 or any(one in settings[:i] for i, one in enumerate(settings)):
        raise ValueError(f"an ablation compares two different values or more: {example}")
    return found
