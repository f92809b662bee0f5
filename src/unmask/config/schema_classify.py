"""What can be asked of classification: fine-tuning, probing, partial tuning, from scratch.

One configuration describes them all: what is initialised, what is trained, how samples are augmented.
"""

from dataclasses import dataclass, field
from typing import Literal

from unmask.config.plan import OptimizerName
from unmask.config.schema import DataConfig, ModelConfig, OptimConfig, RunConfig

HeadPool = Literal["class", "mean"]


@dataclass(frozen=True, kw_only=True)
class LabelledDataConfig(DataConfig):
    """Images with labels, and how they become samples."""

    size: tuple[int, ...] | None = None  # type: ignore[assignment]
    """Pixels of the model's input. Default: as the encoder was trained, 224 from scratch."""
    val: tuple[str, ...] = ()
    """Images to validate on. Default: the data's own validation or test part, else a share of it."""
    val_share: float | None = None
    """Share of each class to keep for validation, in place of the data's own part. Default: 0.25 where
    there is none."""
    label_column: str = "label"
    """Column of the labels in a list."""
    fraction: float | None = None
    """Share of the training labels to use, in every class. Default: all."""
    per_class: int | None = None
    """Training labels to use of every class. Default: all."""
    subset_seed: int = 0
    """Decides which labels those are."""
    balance: bool = False
    """Weight the loss by the inverse frequency of the classes."""
    eval_crop: float | None = None
    """Share of the side that evaluation crops. Default: 224/256 up to 224 pixels, above it all."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What stands on the encoder, and what is trained."""

    pool: HeadPool = "mean"
    """The class token after the final norm (paper, Table 9), or the mean of the patches, then a norm."""
    batch_norm: bool = False
    """A BatchNorm without parameters of its own before the head: the linear probe's (Table 10). It sees
    one micro-batch at a time, of all processes."""
    tune_blocks: float | None = None
    """Blocks to train, from the last: 0 the head alone, 0.5 the last block's MLP. Default: all."""
    drop_path: float = 0.1
    """Rate at which the last block's branches are dropped; it rises linearly from 0 in the first."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to samples beside crop and flip."""

    rand_augment: bool = True
    """RandAugment with magnitude 9 and deviation 0.5."""
    erasing: float = 0.0
    """Probability of erasing a random part."""
    mixup: float = 0.8
    """Parameter of mixup's Beta distribution; 0 switches it off."""
    cutmix: float = 1.0
    """Parameter of cutmix's Beta distribution; 0 switches it off."""
    smoothing: float = 0.1
    """Share of the target that is spread over all classes."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptimConfig(OptimConfig):
    """The optimizer with linear warm-up and cosine decay, per iteration."""

    optimizer: OptimizerName = "adamw"
    """AdamW; LARS or SGD with momentum for the linear probe."""
    momentum: float = 0.9
    """Of LARS and SGD."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each block to the one before it."""
    min_lr: float = 1e-6
    """Where the cosine ends."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averaging of gradients and of their squares."""


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """An encoder put to classification."""

    recipe: str = ""
    """Name of the recipe that this began with."""
    init: str | None = None
    """The encoder: a run directory, a hub folder or a file of weights. Default: a new one."""
    out: str | None = None
    """Run directory. Default: runs/<command>-<data>."""
    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    """The encoder of a run from scratch; with --init the checkpoint says it."""
    head: HeadConfig = field(default_factory=HeadConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: ClassifyOptimConfig = field(default_factory=ClassifyOptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
