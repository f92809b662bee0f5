"""The configuration of detection, section by section."""

from dataclasses import dataclass, field
from typing import ClassVar

from unmask.config.annotations import AnnotatedSource, ObjectOptions
from unmask.config.classify import LabelledRun
from unmask.config.commands import TrainingConfig
from unmask.config.fields import setting
from unmask.config.settings import Bands, Cache, Encoder, Optim, Reading, Switch
from unmask.models.detector_spec import HeadNorm, PyramidKind, RelativePositionKind


@dataclass(frozen=True, kw_only=True)
class DetectData(Cache, Reading, Bands, ObjectOptions, AnnotatedSource):
    """Annotated images, and their scale jitter and crops."""

    label_column: str = "label"
    """Column of the classes in a .csv of boxes."""
    size: tuple[int, ...] | None = None
    """Pixels of the model's input, into which images are fitted: one number for a square, or height and
    width. Default: as the encoder was trained, 224 from scratch."""
    scale: tuple[float, float] = (0.1, 2.0)
    """Large-scale jitter: smallest and largest scale, relative to the size at which an image just fits
    into the input; larger images are cropped."""
    flip: bool = True
    """Flip samples horizontally with probability 1/2."""

    def check(self) -> None:
        """Raises ValueError if the factors are none."""
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"--data.scale takes two rising positive numbers and got {self.scale[0]:g} "
                f"{self.scale[1]:g}: the usual ones are 0.1 2.0"
            )


@dataclass(frozen=True, kw_only=True)
class DetectorParts:
    """The Mask R-CNN on the encoder (paper, Table 4)."""

    masks: bool = True
    """Train a mask head too, if the annotations have masks."""
    pyramid: PyramidKind = "fpn"
    """Feature levels from four groups of blocks, then an FPN; or ViTDet's simple pyramid from the last
    map alone."""
    window: int | None = setting(16, least=1)
    """Side of the attention windows in patches; None for global attention in all blocks."""
    global_blocks: int = setting(4, least=1)
    """The blocks are divided into this many equal groups, and the last of each has global attention."""
    relative_position: RelativePositionKind = "shared"
    """Bias of attention by relative position, which starts at 0: a table shared by blocks, or ViTDet's
    decomposed ones in each block."""
    drop_path: float = setting(0.1, least=0, most=0.99)
    """Drop path (stochastic depth): rate of the last block, rising linearly from 0 in the first."""
    channels: int = setting(256, least=1)
    """Channels of the feature levels and of the heads' convolutions."""
    head_norm: HeadNorm = "batch"
    """Norms in the heads: BatchNorm over all processes, or ViTDet's LayerNorm."""
    head_width: int = setting(1024, least=1)
    """Width of the box head's linear layer."""
    anchor_scale: float = setting(8.0, least=0.1)
    """Side of a level's anchors in strides: at 8, patches of 16 pixels give 32 to 512 pixels."""
    sampled_anchors: int = setting(256, least=1)
    """Anchors sampled per image for the loss of the proposals."""
    sampled_proposals: int = setting(512, least=1)
    """Proposals sampled per image for the loss of the heads."""
    proposals: int = setting(1000, least=1)
    """Proposals of an image that the heads see, at most."""
    score_threshold: float = setting(0.05, least=0, most=1)
    """Lowest score of a detection."""
    detections: int = setting(100, least=1)
    """Detections of an image, at most."""


@dataclass(frozen=True, kw_only=True)
class NewEncoder(Encoder):
    """Dimensions of a new encoder (--scratch). With --init they are those of its weights; only
    the number of heads may have to be given."""


@dataclass(frozen=True, kw_only=True)
class DetectOptim(Optim):
    """AdamW with linear warm-up and cosine decay, per step."""

    epochs: float = setting(100.0, least=1e-6)
    """Passes over the training images."""
    warmup_epochs: float = setting(0.25, least=0)
    """Epochs over which the learning rate rises from zero."""
    batch: int = setting(64, least=1)
    """Images per step, over all processes."""
    base_lr: float = setting(3.2e-4, least=0, most=1e30)
    """Base learning rate: the peak learning rate is this times batch / 256."""
    weight_decay: float = setting(0.1, least=0)
    """Weight decay; biases, norms and position embeddings are never decayed."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's betas."""
    layer_decay: float = setting(1.0, least=0.01, most=1)
    """Layer-wise learning-rate decay: the factor from each block to the one below it."""


@dataclass(frozen=True, kw_only=True)
class DetectRun(LabelledRun):
    """How to run; nothing here changes what is learned, except seed, precision and --run.time."""

    compile: ClassVar[Switch] = "off"  # type: ignore[misc]  # sizes of images and objects differ each time


@dataclass(frozen=True, kw_only=True)
class DetectConfig(TrainingConfig):
    """An encoder that becomes a Mask R-CNN, trained on images with objects."""

    init: str | None = None
    """The encoder: a run directory of pre-training or classification, a folder of Hugging Face or timm
    weights or a file of weights. A resumed run does not need it."""
    scratch: bool = False
    """Start from random weights instead of --init; --model.* gives the dimensions."""
    data: DetectData = field(default_factory=DetectData)
    model: NewEncoder = field(default_factory=NewEncoder)
    detector: DetectorParts = field(default_factory=DetectorParts)
    optim: DetectOptim = field(default_factory=DetectOptim)
    run: DetectRun = field(default_factory=DetectRun)
