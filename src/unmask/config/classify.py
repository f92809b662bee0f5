"""Sections of classification alone: fine-tuning, probing, partial tuning, from scratch."""

from dataclasses import dataclass
from typing import ClassVar

from unmask.config.fields import setting
from unmask.config.settings import (
    Bands,
    Cache,
    Crops,
    HeadPool,
    Labels,
    Optim,
    OptimizerName,
    Reading,
    Run,
    Source,
    Subset,
)


@dataclass(frozen=True, kw_only=True)
class LabelledData(Cache, Reading, Crops, Bands, Subset, Labels, Source):
    """Labelled images and their crops."""

    size: tuple[int, ...] | None = None
    """Pixels of the model's input. Default: as the encoder was trained, 224 from scratch."""
    balance: bool = False
    """Weight the loss by the inverse frequency of the classes."""
    eval_crop: float | None = setting(None, least=0.01, most=1)
    """Share of the shorter side that the central evaluation crop covers. Default: 224/256 for inputs up
    to 224 pixels, 1 for larger ones."""


@dataclass(frozen=True, kw_only=True)
class ProbeHead:
    """What stands on the frozen encoder."""

    tune_blocks: ClassVar[float | None] = 0
    drop_path: ClassVar[float] = 0.0

    pool: HeadPool = "mean"
    """The class token after the final norm (paper, Table 9), or the mean of the patches, then a norm."""
    batch_norm: bool = False
    """BatchNorm without affine parameters before the head, as in the linear probe (Table 10). Its
    statistics are of one micro-batch, over all processes."""


@dataclass(frozen=True, kw_only=True)
class Head(ProbeHead):
    """The head on the encoder, and which blocks are trained."""

    tune_blocks: float | None = None  # type: ignore[misc]  # the probe's is fixed, and so no flag of it
    """Blocks to train, from the last: 0 the head alone, 0.5 the last block's MLP. Default: all."""
    drop_path: float = setting(0.1, least=0, most=0.99)  # type: ignore[misc]  # as above
    """Drop path (stochastic depth): rate of the last block, rising linearly from 0 in the first."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Augmentation besides crops and flips."""

    rand_augment: bool = True
    """RandAugment with magnitude 9 and standard deviation 0.5."""
    erasing: float = setting(0.0, least=0, most=1)
    """Probability of erasing a random part."""
    mixup: float = setting(0.8, least=0, most=100)
    """Parameter of mixup's Beta distribution; 0 switches it off."""
    cutmix: float = setting(1.0, least=0, most=100)
    """Parameter of cutmix's Beta distribution; 0 switches it off."""
    smoothing: float = setting(0.1, least=0, most=0.99)
    """Label smoothing."""


@dataclass(frozen=True, kw_only=True)
class ProbeOptim(Optim):
    """The optimizer with linear warm-up and cosine decay, per step."""

    layer_decay: ClassVar[float] = 1.0

    optimizer: OptimizerName = "adamw"  # type: ignore[misc]  # fixed in pre-training, and so no flag there
    """AdamW; LARS or SGD with momentum for the linear probe."""
    momentum: float = setting(0.9, least=0, most=1)  # type: ignore[misc]  # as above
    """Momentum of LARS and SGD."""
    min_lr: float = setting(1e-6, least=0, most=1e9)  # type: ignore[misc]  # as above
    """Learning rate at which the cosine ends."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's betas."""


@dataclass(frozen=True, kw_only=True)
class TuneOptim(ProbeOptim):
    """The optimizer with linear warm-up and cosine decay, per step."""

    layer_decay: float = setting(1.0, least=0.01, most=1)  # type: ignore[misc]  # the probe has one layer
    """Layer-wise learning-rate decay: the factor from each block to the one below it."""


@dataclass(frozen=True, kw_only=True)
class LabelledRun(Run):
    """How to run; nothing here changes what is learned, except seed, precision and --run.time."""

    pictures: ClassVar[int] = 1
