"""What the quickstart can run on, and the runs that it makes of it."""

from dataclasses import dataclass
from pathlib import Path

from unmask.config.commands import FinetuneConfig, KnnConfig, PretrainConfig, ScratchConfig
from unmask.config.settings import Pool


@dataclass(frozen=True, kw_only=True)
class Example:
    """A data set, the recipes that suit it, and how its time is divided."""

    folder: str
    things: str
    """What is in the pictures, in the plural."""
    unlabelled: str
    """The source that pre-training sees: what is labelled, without the images for validation."""
    held_out: int | None
    """Images of `unlabelled` that are drawn and not trained on; as usual if None."""
    labelled: str
    per_class: int | None
    """Labels of each class that are used; all if None."""
    pretrain: str
    finetune: str
    scratch: str
    """Recipes."""
    pool: Pool
    """Pooling of the frozen encoder's features."""
    seeds: int
    """How many, of what is trained on labels."""
    time: str
    share: float
    """Share of that time for pre-training."""
    steps: float | None
    """Steps of every training on labels, for each of pre-training, and no more than the recipes'; those
    if None."""


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """The runs, in their order."""

    out: Path
    example: Example
    pretraining: PretrainConfig
    knn: KnnConfig
    """Linear probes: of the frozen encoder, of pixels, of a random encoder."""
    scratch: ScratchConfig
    finetune: FinetuneConfig
    """Commands on the same labels; each is run with every seed."""
    seeds: tuple[int, ...]


EXAMPLES = {
    "digits": Example(
        folder="quickstart",
        things="handwritten digits",
        unlabelled="digits:train",
        held_out=64,
        labelled="digits",
        per_class=10,
        pretrain="digits",
        finetune="digits-finetune",
        scratch="digits-scratch",
        pool="patches",
        seeds=3,
        time="4m",
        share=0.5,
        steps=0.12,
    ),
    "elpv": Example(
        folder="quickstart-elpv",
        things="photographs of solar cells",
        unlabelled="elpv:train",
        held_out=None,
        labelled="elpv:plain",
        per_class=None,
        pretrain="quickstart",
        finetune="quickstart-finetune",
        scratch="quickstart-scratch",
        pool="mean",
        seeds=1,
        time="12m",
        share=0.4,
        steps=0.14,
    ),
}
