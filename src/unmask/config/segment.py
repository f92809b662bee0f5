"""The configuration of semantic segmentation, section by section."""

from dataclasses import dataclass, field
from typing import ClassVar

from unmask.config.annotations import AnnotatedSource, MapOptions
from unmask.config.classify import LabelledRun
from unmask.config.commands import TrainingConfig
from unmask.config.fields import setting
from unmask.config.settings import Bands, Cache, Encoder, Optim, Reading, ScheduleName
from unmask.models.segmenter_spec import SegmenterHead


@dataclass(frozen=True, kw_only=True)
class SegmentData(Cache, Reading, Bands, MapOptions, AnnotatedSource):
    """Images with label maps, and their scales and crops."""

    size: tuple[int, ...] | None = None
    """Pixels of the crops, and of the windows that evaluation slides over whole images. Default: as the
    encoder was trained, 224 from scratch."""
    resize: tuple[int, int] | None = None
    """The longer and the shorter side that whole images are resized to stay within, before scale and
    crop. Default: four times and once the shorter side of the crops."""
    own_size: bool = False
    """Leave whole images at their own size."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Factors, from and to, by which images are resized further at random."""
    flip: bool = True
    """Flip samples horizontally with probability 1/2."""
    distort: bool = True
    """Change brightness, contrast, saturation and hue at random, in images of 8 bits in 1 or 3
    channels."""
    largest_share: float = setting(0.75, least=0.01, most=1)
    """Draw a crop again, up to ten times, if one class covers more of its labelled pixels."""

    def check(self) -> None:
        """Raises ValueError if the factors are none, or sizes are asked for twice."""
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"--data.scale takes two rising positive numbers and got {self.scale[0]:g} "
                f"{self.scale[1]:g}: the usual ones are 0.5 2.0"
            )
        if self.resize is not None and not self.resize[0] >= self.resize[1] >= 1:
            raise ValueError(
                f"--data.resize takes the longer side and then the shorter, and got {self.resize[0]} "
                f"{self.resize[1]}: the paper's are 2048 512"
            )
        if self.resize is not None and self.own_size:
            raise ValueError("--data.own-size and --data.resize exclude each other: choose one")


@dataclass(frozen=True, kw_only=True)
class SegmentHead:
    """The head on the encoder, and which blocks are trained."""

    kind: SegmenterHead = "upernet"
    """UperNet (paper, Table 5), or a linear layer on the last block, the dense linear probe."""
    frozen: bool = False
    """Train the head alone."""
    layers: tuple[int, int, int, int] | None = None
    """UperNet's four blocks, counted from 1. Default: at a third, a half, two thirds and all of the
    depth."""
    width: int | None = setting(None, least=1)
    """Channels of UperNet. Default: the encoder's width."""
    dropout: float = setting(0.1, least=0, most=0.99)
    """Share of UperNet's channels that are dropped."""
    auxiliary_weight: float = setting(0.4, least=0, most=100)
    """Weight of UperNet's auxiliary head in the loss."""
    drop_path: float = setting(0.1, least=0, most=0.99)
    """Drop path (stochastic depth): rate of the last block, rising linearly from 0 in the first."""
    relative_position: bool = True
    """Add a bias by relative position, which starts at 0, to the attention of an encoder that is
    trained."""


@dataclass(frozen=True, kw_only=True)
class SegmentOptim(Optim):
    """AdamW with linear warm-up, then linear or cosine decay to zero, per step."""

    momentum: ClassVar[float] = 0.9

    schedule: ScheduleName = "linear"  # type: ignore[misc]  # fixed in pre-training, and so no flag there
    """How the learning rate falls after the warm-up."""
    layer_decay: float = setting(1.0, least=0.01, most=1)
    """Layer-wise learning-rate decay: the factor from each block to the one below it."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's betas."""


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(TrainingConfig):
    """An encoder and a head that tells every pixel's class."""

    init: str | None = None
    """The encoder: a run directory of pre-training or classification, a folder of Hugging Face or timm
    weights or a file of weights. A resumed run does not need it."""
    scratch: bool = False
    """Start from random weights instead of --init; --model.* gives the dimensions."""
    data: SegmentData = field(default_factory=SegmentData)
    model: Encoder = field(default_factory=Encoder)
    head: SegmentHead = field(default_factory=SegmentHead)
    optim: SegmentOptim = field(default_factory=SegmentOptim)
    run: LabelledRun = field(default_factory=LabelledRun)
