"""What will run: every `auto` as a value. Made by `resolve`, saved as plan.json."""

from dataclasses import dataclass
from typing import Literal

from unmask.config.image import ImageSpec
from unmask.config.settings import OptimizerName, ScheduleName
from unmask.core.spec import ModelSpec

PLAN_FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the processor at hand offers."""

    device: str
    name: str
    fast_bf16: bool
    cores: int
    """For each process."""
    compiles: bool = False
    """Whether torch.compile pays here."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What was found out about the images before training."""

    training_images: int
    held_out_images: int
    fingerprint: str
    """Changes when an image is added, removed or renamed."""
    decoded_bytes: int
    """A typical image, decoded."""
    sizes: str = ""
    """Changes when an image file's size does; empty if an earlier version planned the run."""
    times: str = ""
    """Changes when an image file is written again."""


@dataclass(frozen=True, kw_only=True)
class LoadingPlan:
    """How images are read."""

    seed: int
    repeats: int
    """Samples of each image in an epoch."""
    workers: int
    keep_decoded: bool
    """The loader's processes keep, together, what they have decoded."""
    max_bad_share: float
    max_megapixels: float
    timeout: float
    """Seconds that reading one image may take."""
    cache_bytes: int = 2**31
    """Bytes of decoded images kept in memory, in each process of a run for all of its workers."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What the loop does."""

    device: str
    precision: Literal["bf16", "fp32"]
    compile: bool
    activation_checkpointing: bool
    seed: int
    steps: int
    warmup_steps: int
    steps_per_epoch: float
    batch: int
    process_batch: int
    micro_batch: int
    lr: float
    weight_decay: float
    betas: tuple[float, float]
    clip: float | None
    ema: float | None
    log_every: int
    evaluate_every: int
    sample_every: int
    checkpoint_every: int
    keep_checkpoints: int
    optimizer: OptimizerName = "adamw"
    momentum: float = 0.9
    """Momentum of LARS and SGD; AdamW has betas instead."""
    min_lr: float = 0.0
    """What the schedule ends at."""
    schedule: ScheduleName = "cosine"
    keep_every: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run with every `auto` turned into a value; saved as plan.json."""

    format: int = PLAN_FORMAT
    model: ModelSpec
    image: ImageSpec
    loading: LoadingPlan
    training: TrainingPlan
    facts: DataFacts
    machine: Machine
    processes: int
    licence_note: str = ""
    """What the licences of data and initial weights say of the weights to come."""
    notes: tuple[str, ...] = ()
    """Choices that a user should hear about, in sentences."""


@dataclass(frozen=True, kw_only=True)
class EarlierTraining:
    """See `TrainingPlan`; None is not known."""

    steps: int
    warmup_steps: int
    log_every: int
    device: str | None = None
    precision: str | None = None
    compile: bool | None = None
    micro_batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class EarlierPlan:
    """What is used of plan.json, by whichever version it was written."""

    model: ModelSpec
    image: ImageSpec
    facts: DataFacts
    training: EarlierTraining
    processes: int | None = None
    licence_note: str | None = None
