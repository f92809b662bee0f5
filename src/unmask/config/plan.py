"""What will run: every `auto` as a value. Made by `resolve`, saved as plan.json."""

from dataclasses import dataclass
from typing import Literal

from unmask.core.mae import Architecture
from unmask.core.patches import Size


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


PixelType = Literal["uint8", "float32"]


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """What all decoded images of a run have in common."""

    channels: int
    pixel_type: PixelType = "uint8"
    """uint8 from 0 to 255; or float32, where integers of 8 and 16 bits are put on the scale 0 to 1."""
    max_pixels: int = 200_000_000
    """Larger images are refused before they are decoded."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What was found out about the images before training."""

    training_images: int
    held_out_images: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    decoded_bytes: int
    """A typical image, decoded."""
    pixel_type: PixelType = "uint8"
    """float32 where eight bits per value would lose something."""


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """How samples are made."""

    image_size: Size
    pixels: PixelFormat
    mean: tuple[float, ...]
    std: tuple[float, ...]
    display: tuple[int, ...] | None
    """Bands shown as red, green and blue, counted from 1."""
    crop_scale: tuple[float, float]
    flip: bool
    max_bad_share: float
    workers: int
    keep_decoded: bool
    """Each worker keeps what it has decoded."""
    noise_length: int
    """Numbers drawn per sample for the mask: one per patch."""
    seed: int
    rand_augment: bool = False
    erasing: float = 0.0
    """Probability of erasing a random part."""
    eval_crop: float = 1.0
    """Share of the image's side that evaluation crops."""
    repeats: int = 1
    """Samples of each image in an epoch."""
    resize_on_device: bool = False


OptimizerName = Literal["adamw", "lars", "sgd"]


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
    """Of LARS and SGD; AdamW has betas instead."""
    min_lr: float = 0.0
    """What the cosine ends at."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run with every `auto` turned into a value; saved as plan.json."""

    architecture: Architecture
    attention: dict[str, str]
    """The kernel that the encoder and the decoder use, by `attention_kernel`'s rule."""
    data: DataPlan
    training: TrainingPlan
    facts: DataFacts
    machine: Machine
    processes: int
    probe_every: int
    """Steps between looks at the features."""
    notes: tuple[str, ...]
    """Choices that a user should hear about, in sentences."""
