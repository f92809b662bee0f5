"""The configuration of `unmask ablate`, and its budgets."""

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from unmask.config.settings import Bands, Device, Labels, Reading, Source, Switch

BudgetName = Literal["smoke", "small", "full"]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Steps of each kind of run, and what is not looked at along the way."""

    pretrain: int
    finetune: int
    probe: int
    tokenizer: int


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The recipes that runs begin with, and how long they are."""

    pretrain: str
    finetune: str
    probe: str
    tokenizer: str = "laptop-tokenizer"
    lengths: Lengths | None = None
    """None for the recipes' own."""
    few: bool = True
    """Compare few values of an axis rather than all of the paper's."""


SMALL = Budget(
    pretrain="quickstart",
    finetune="quickstart-finetune",
    probe="short-probe",
    lengths=Lengths(pretrain=1000, finetune=150, probe=150, tokenizer=200),
)

BUDGETS: dict[BudgetName, Budget] = {
    "smoke": replace(SMALL, lengths=Lengths(pretrain=80, finetune=15, probe=20, tokenizer=30)),
    "small": SMALL,
    "full": Budget(pretrain="laptop", finetune="small-data", probe="small-probe", few=False),
}


@dataclass(frozen=True, kw_only=True)
class AblationData(Reading, Bands, Source):
    """The images, as every run of the ablation sees them."""

    held_out: int | None = None
    """Held-out images, to measure reconstruction. Default: one in twenty, at least 8, at most 256."""


@dataclass(frozen=True, kw_only=True)
class AblationLabels(Labels):
    """Labels for the evaluation of the pre-trained encoders."""

    use: Switch = "auto"
    """Evaluate by k-NN, linear probe and fine-tuning; auto does so if the images have labels."""
    data: tuple[str, ...] = ()
    """Images with labels. Default: the images themselves."""


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """One of the paper's questions, asked of your own images."""

    axis: str = ""
    """What differs: mask_ratio, mask_sampling, decoder_depth, decoder_width, mask_token, target,
    augmentation, schedule, loss_on or decode_share."""
    values: tuple[str, ...] = ()
    """Its values, as in --values 0.5,0.75,0.9. Default: a few, or with --budget full the paper's."""
    seeds: tuple[int, ...] = (0,)
    """Runs of each value, as in --seeds 0,1,2. From three on, differences are tested."""
    budget: BudgetName = "small"
    """Lengths of the runs: smoke, two minutes on two cores for three values and 200 images; small, at
    most four minutes for a value and seed; full, the recipes' own."""
    part: str | None = None
    """Do one share of the runs, as in 1/4, and report all that are finished. Default: all."""
    recipe: str | None = None
    """Pre-training recipe. Default: quickstart, with --budget full laptop."""
    finetune_recipe: str | None = None
    """Recipe of fine-tuning. Default: quickstart-finetune, with --budget full small-data."""
    probe_recipe: str | None = None
    """Recipe of linear probing. Default: short-probe, with --budget full small-probe."""
    tokenizer: str | None = None
    """A run of unmask tokenizer, or DALL-E's weights, for the target tokens. Default: one is trained for
    each seed."""
    out: str | None = None
    """Folder for the runs and the report. Default: runs/ablate-<axis>-<data>."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""
    dry_run: bool = False
    """Say what would run, how long that takes and what it needs on the disk; train nothing."""
    data: AblationData = field(default_factory=AblationData)
    labels: AblationLabels = field(default_factory=AblationLabels)


def part_of(text: str | None) -> tuple[int, int]:
    """(i, n) of "i/n"; (1, 1) without. Raises ValueError that says how it is written."""
    if text is None:
        return 1, 1
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(
            f"--part is {text} and says which share of the runs is done: write --part 1/4 for the first "
            f"of four"
        )
    return int(match[1]), int(match[2])


def check_ablation(config: AblateConfig) -> None:
    """Raises ValueError if seeds or values are none, or occur twice."""
    for name, given in (("seeds", config.seeds), ("values", config.values)):
        if len(set(given)) < len(given):
            raise ValueError(f"--{name} names something twice: leave out what is repeated")
    if not config.seeds or min(config.seeds) < 0:
        raise ValueError("--seeds takes whole numbers from 0: write --seeds 0,1,2")
    part_of(config.part)
