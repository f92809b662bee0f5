"""What can be asked for. Each field is a flag: `data.size` becomes `--data.size`.

None means: decided by `resolve`, which says what it chose.
"""

from dataclasses import dataclass, field
from typing import Literal

from unmask.core.mae import LossOn, TargetName
from unmask.core.vit import Pool

Precision = Literal["auto", "bf16", "fp32"]
Switch = Literal["auto", "on", "off"]
Device = Literal["auto", "cpu", "cuda", "mps"]
ModelSize = Literal["tiny", "small", "base", "large", "huge"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images and how they become samples."""

    source: tuple[str, ...] = ()
    """Folders, image files, or lists of them (.txt, .csv, .jsonl); or one data set: elpv, fashion-mnist,
    torchvision:NAME[:SPLIT], hf:NAME_OR_FOLDER[:SPLIT], an IDX file. Usually the first words."""
    root: str = "data"
    """Where torchvision keeps its data sets."""
    download: bool = False
    """Let torchvision download a data set that is not there."""
    size: tuple[int, ...] = (224,)
    """Pixels of the model's input: one number for a square, or height and width."""
    channels: int | None = None
    """Channels per image. Default: 1 if all images are grey, 3 if some have colours, or their bands."""
    display: tuple[int, ...] | None = None
    """Bands drawn as red, green and blue in pictures, counted from 1. Default: the first three."""
    mean: tuple[float, ...] | None = None
    """Mean per channel, on the scale 0 to 1 for integer pixels. Default: measured."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel, on the mean's scale. Default: measured."""
    other: tuple[str, ...] = ()
    """Images of another data set, to be reconstructed in the sample pictures (paper, Fig. 3)."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Share of the image's area that a random crop covers."""
    flip: bool = True
    """Flip half of the samples left to right."""
    repeats: int = 1
    """Samples per decoded image, each with its own crop, flip and mask (Hoffer et al. 2019). An epoch
    decodes each image once: with 4 repeats it has four times the samples, and the steps."""
    held_out: int | None = None
    """Images kept aside to measure reconstruction. Default: one in twenty, at least 8, at most 256."""
    resize_on_device: bool = False
    """Resize crops on the GPU instead of in the loader's processes, where those cannot keep up."""
    max_bad_share: float = 0.05
    """Stop when more than this share of the images cannot be read."""
    max_megapixels: float = 200.0
    """Refuse larger images, in millions of pixels."""
    cache_gib: float = 2.0
    """Keep decoded images in memory if all fit into this many GiB per process."""
    workers: int | None = None
    """Processes that decode images. Default: by the number of processor cores."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The dimensions of encoder and decoder."""

    size: ModelSize = "base"
    """A ViT of the usual dimensions; width, depth, heads and patch below override it."""
    patch: tuple[int, ...] | None = None
    """Pixels of a patch: one number for a square, or height and width. Default: the size's own."""
    width: int | None = None
    """Channels of a token in the encoder. Default: the size's own."""
    depth: int | None = None
    """Blocks of the encoder. Default: the size's own."""
    heads: int | None = None
    """Attention heads of the encoder. Default: the size's own."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs as a multiple of the token's width."""
    class_tokens: int = 1
    """Tokens that stand before the patches; they belong to no place in the image."""
    decoder_width: int = 512
    """Channels of a token in the decoder."""
    decoder_depth: int = 8
    """Blocks of the decoder; one is enough to work."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Which patches the encoder does not see."""

    ratio: float = 0.75
    """Share of the patches that is masked."""
    unit: int = 1
    """Mask squares of unit x unit patches together."""
    tokens_in_encoder: bool = False
    """Give the encoder mask tokens for what it does not see (paper, Table 1c): slower, worse."""


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What the decoder predicts."""

    kind: TargetName = "normalized-pixels"
    """Pixels, or pixels normalised within each patch: sharper features, and no absolute brightness."""
    loss_on: LossOn = "masked"
    """Patches that the loss is computed on."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay, per iteration."""

    epochs: float = 800.0
    """Passes over the training images."""
    warmup_epochs: float = 40.0
    """Epochs over which the learning rate rises from zero."""
    steps: int | None = None
    """Length of the run in steps, instead of epochs."""
    warmup_steps: int | None = None
    """Length of the warm-up in steps, instead of epochs."""
    batch: int = 4096
    """Images per step, over all processes."""
    micro_batch: int | None = None
    """Images per forward pass on one process. Default: 128 on a GPU, else no division."""
    base_lr: float = 1.5e-4
    """Learning rate per 256 images of the batch."""
    weight_decay: float = 0.05
    """Decay of weights; biases and norms are never decayed."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averaging of gradients and of their squares."""
    clip: float | None = None
    """Clip the gradient's norm to this value. Default: no clipping."""
    ema: float | None = None
    """Decay of a running average of the weights, kept beside them. Default: none."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How to run; nothing here changes what is learned, except the seed and the precision."""

    seed: int = 0
    """Decides initial weights, order, crops and masks."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""
    precision: Precision = "auto"
    """Arithmetic of the matrix multiplications; auto takes bf16 where the processor has it."""
    compile: Switch = "auto"
    """Compile the model with torch.compile; auto does so on a GPU that has Triton."""
    activation_checkpointing: bool = False
    """Keep less for the backward and compute it again: far less memory, a third more computation."""
    log_every: int | None = None
    """Steps between entries in metrics.jsonl. Default: a thousandth of the run."""
    evaluate_every: int | None = None
    """Steps between evaluations on held-out images. Default: a twentieth of the run."""
    sample_every: int | None = None
    """Steps between sample pictures. Default: a tenth of the run."""
    checkpoint_every: int | None = None
    """Steps between checkpoints. Default: a twentieth of the run, at most an epoch or 500 steps."""
    keep_checkpoints: int = 2
    """Checkpoints to keep; older ones are removed."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What the features are worth along the way; training does not notice it."""

    data: tuple[str, ...] = ()
    """Images with labels: k-NN (k = 20) and a linear probe of the frozen, unmasked features of some tell
    the classes of others. Default: no labels; the effective rank of the features of training images."""
    val: tuple[str, ...] = ()
    """Images with labels to be asked about. Default: the validation or test part of the labelled data,
    else a quarter of each class; first those that pre-training does not see, and the run says how many
    it sees."""
    label_column: str = "label"
    """Column of the labels in a list."""
    images: int = 2048
    """Images to learn from, at most, and half as many to be asked about; 0 leaves all this out."""
    every: int | None = None
    """Steps between looks at the features. Default: a tenth of the run."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Masked-autoencoder pre-training."""

    recipe: str = ""
    """Name of the recipe that this began with."""
    init: str | None = None
    """Start from the weights of a run directory or a file."""
    out: str | None = None
    """Run directory. Default: runs/pretrain-<data>."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """The embedded example; everything else is decided."""

    out: str = "runs/quickstart"
    """Folder for the runs and the page that compares them."""
    seed: int = 0
    """Decides initial weights, order, crops and masks."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig:
    """Pictures of what a model makes of masked images."""

    source: tuple[str, ...] = ()
    """Folders or files of images, or the name of a built-in data set; usually the first words."""
    init: str = ""
    """The model: a run directory, or a checkpoint of the reference."""
    out: str | None = None
    """Folder for the pictures. Default: runs/reconstruct-<data>."""
    mask_ratio: float | None = None
    """Share of the patches that is masked. Default: as the model was trained."""
    target: TargetName | None = None
    """What the model predicts, where its file does not say."""
    count: int = 8
    """Images to draw."""
    seed: int = 0
    """Decides which patches are masked."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Features of images, one row per image, in a file."""

    source: tuple[str, ...] = ()
    """Images, as for pre-training; usually the first words."""
    root: str = "data"
    """Where torchvision keeps its data sets."""
    init: str = ""
    """The model: a run directory, a hub folder or a file of weights."""
    out: str = "features.safetensors"
    """The file to write: .safetensors, or .parquet, which is written piece by piece."""
    pool: Pool = "mean"
    """The class token, the mean over patches, or every patch."""
    layer: int | None = None
    """The block whose output is taken, counted from 1. Default: the last, after the final norm."""
    size: tuple[int, ...] | None = None
    """Pixels of the model's input: positions are interpolated. Default: as it was trained."""
    batch: int = 32
    """Images per forward pass."""
    workers: int | None = None
    """Processes that decode images. Default: by the number of processor cores."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""
