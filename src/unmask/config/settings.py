"""All settings, each section once. A field is a flag: `data.size` becomes `--data.size`.

Commands compose their configurations of these sections (`commands.py`), so that each offers only flags
that do something. None means: decided by `resolve`, which says what it chose.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from unmask.config.budget import seconds_in
from unmask.config.fields import setting
from unmask.core.spec import LossOn, TargetKind

Precision = Literal["auto", "bf16", "fp32"]
Switch = Literal["auto", "on", "off"]
Device = Literal["auto", "cpu", "cuda", "mps"]
MaskStrategy = Literal["random", "block", "grid"]
ModelSize = Literal["tiny", "small", "base", "large", "huge"]
OptimizerName = Literal["adamw", "lars", "sgd"]
ScheduleName = Literal["cosine", "linear"]
Pool = Literal["class", "mean", "patches", "cls"]
HeadPool = Literal["class", "mean"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which images."""

    source: tuple[str, ...] = setting((), may_change=True)
    """Folders, image files, or lists of them (.txt, .csv, .jsonl); or one data set: digits, elpv,
    fashion-mnist, torchvision:NAME[:SPLIT], hf:NAME_OR_FOLDER[:SPLIT], an IDX file. Usually the first
    words."""
    root: str = "data"
    """Where torchvision keeps its data sets."""
    download: bool = False
    """Let torchvision download a data set that is not there."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels, and which images are for validation."""

    val: tuple[str, ...] = ()
    """Images to validate on. Default: the data's own validation or test part, else a share of it."""
    val_share: float | None = setting(None, least=0.01, most=0.99)
    """Share of each class to hold out for validation, in place of the data's own validation part.
    Default: 0.25 if there is none."""
    label_column: str = "label"
    """Column of the labels in a list."""


@dataclass(frozen=True, kw_only=True)
class Subset:
    """How many of the training labels are used."""

    fraction: float | None = setting(None, least=1e-6, most=1)
    """Share of the training labels to use, in every class. Default: all."""
    per_class: int | None = setting(None, least=1, most=1e9)
    """Training labels to use of every class. Default: all."""
    subset_seed: int = 0
    """Seed that chooses these labels."""


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Channels and values of the images that a model is given."""

    channels: int | None = setting(None, least=1, most=65_536)
    """Channels per image. Default: 1 if all images are grey, 3 if some are colour; all bands of
    multi-band images."""
    display: tuple[int, ...] | None = None
    """Bands that figures show as red, green and blue, counted from 1. Default: the first three."""
    mean: tuple[float, ...] | None = None
    """Mean per channel, on the scale 0 to 1 for integer pixels. Default: measured."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel, on the mean's scale. Default: measured."""
    nodata: float | None = None
    """The value that marks pixels without data. Default: as the files say; NaN always does."""
    axes: str | None = None
    """Axis order of arrays and stacks whose files do not give it, as in CYX. Default: guessed."""
    rescale: bool | None = None
    """Read DICOM in units, by RescaleSlope and RescaleIntercept. Default: as each file says."""

    def check(self) -> None:
        """Raises ValueError if a standard deviation is not positive."""
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(
                "--data.std must be positive in every channel: leave it out to have it measured"
            )


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Crops and flips of training images."""

    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest share of the image's area that a random crop covers."""
    flip: bool = True
    """Flip samples horizontally with probability 1/2."""
    repeats: int = setting(1, least=1, most=1e6)
    """Repeated augmentation (Hoffer et al. 2019): samples per decoded image, each with its own crop,
    flip and mask. An epoch decodes each image once: with 4 repeats it has four times the steps."""
    resize_on_device: bool = False
    """Resize crops on the GPU, if the loader's processes cannot keep up."""

    def check(self) -> None:
        """Raises ValueError if the crop's share is none."""
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(
                f"--data.crop-scale takes two rising numbers in (0, 1] and got {self.crop_scale[0]:g} "
                f"{self.crop_scale[1]:g}: the paper's are 0.2 1.0"
            )


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How image files are read."""

    max_bad_share: float = setting(0.05, least=0, most=1, may_change=True)
    """Stop if more than this share of the images cannot be read."""
    max_megapixels: float = setting(200.0, least=0.001)
    """Refuse larger images, in millions of pixels, of up to 10 bytes each: more channels and deeper
    values count as more pixels."""
    workers: int | None = setting(None, least=0, most=1024, may_change=True)
    """Processes that decode images. Default: by the number of processor cores."""
    timeout: float = setting(60.0, least=0.1, may_change=True)
    """Seconds that reading one image may take before it counts as unreadable."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """What is cached in memory."""

    cache_gib: float = setting(2.0, may_change=True)
    """Keep decoded images in memory if all fit into this many GiB per process."""


@dataclass(frozen=True, kw_only=True)
class View:
    """How images are prepared for a trained model."""

    size: tuple[int, ...] | None = None
    """Pixels of the model's input: positions are interpolated. Default: as it was trained."""
    eval_crop: float | None = setting(None, least=0.01, most=1)
    """Share of the shorter side that the central evaluation crop covers. Default: as the model was
    evaluated, else 224/256 for inputs up to 224 pixels, and 1 for larger ones."""
    display: tuple[int, ...] | None = None
    """Bands that figures show as red, green and blue, counted from 1. Default: as in training."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The dimensions of the encoder."""

    size: ModelSize = "base"
    """A ViT of standard dimensions (tiny to huge); width, depth, heads and patch override them."""
    patch: tuple[int, ...] | None = None
    """Pixels of a patch: one number for a square, or height and width. Default: that of
    --model.size."""
    width: int | None = None
    """Width (embedding dimension) of the encoder. Default: that of --model.size."""
    depth: int | None = None
    """Transformer blocks of the encoder. Default: that of --model.size."""
    heads: int | None = None
    """Attention heads of the encoder. Default: that of --model.size."""
    mlp_ratio: float = setting(4.0, least=0.01)
    """Hidden width of the MLPs as a multiple of the token's width."""
    class_tokens: int = 1
    """Class tokens before the patches; they have no position in the image."""


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Encoder):
    """The dimensions of encoder and decoder."""

    decoder_width: int = 512
    """Width (embedding dimension) of the decoder."""
    decoder_depth: int = 8
    """Transformer blocks of the decoder, 1 or more."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Which patches are masked."""

    strategy: MaskStrategy = "random"
    """Single patches at random; large random blocks; or a grid, which keeps one of every four patches
    regularly (paper, Fig. 6)."""
    file: str | None = None
    """A mask of your own for all images: a .npy array or a .png with a value per patch, true or bright
    if it is masked. It replaces strategy and ratio."""
    ratio: float = 0.75
    """Share of the patches that are masked."""
    unit: int = 1
    """Mask squares of unit x unit patches together."""
    decode_share: float = setting(1.0, most=1)
    """Share of the masked patches that the decoder predicts, drawn at random: less computation."""
    tokens_in_encoder: bool = False
    """Give the encoder mask tokens for masked patches (paper, Table 1c): slower, worse."""


@dataclass(frozen=True, kw_only=True)
class MaskChoice:
    """Which patches are masked."""

    strategy: MaskStrategy | None = None
    """Single patches at random, large random blocks, or a regular grid. Default: as the model was
    trained."""
    file: str | None = None
    """A mask of your own: a .npy array or a .png with a value per patch, true or bright if it is masked.
    It replaces strategy and ratio."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the decoder predicts."""

    kind: TargetKind = "normalized-pixels"
    """Pixels; pixels normalised within each patch, for sharper features and no absolute brightness; the
    first PCA coefficients of each patch; or the tokens of a tokenizer (paper, Table 1d)."""
    components: int | None = setting(None, least=1)
    """PCA coefficients per patch. Default: an eighth of its values."""
    tokenizer: str | None = None
    """The tokenizer, for tokens: a run of unmask tokenizer, or a file with DALL-E's weights."""
    loss_on: LossOn = "masked"
    """Patches on which the loss is computed."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW with linear warm-up and cosine decay of the learning rate, per step."""

    optimizer: ClassVar[OptimizerName] = "adamw"
    momentum: ClassVar[float] = 0.9
    min_lr: ClassVar[float] = 0.0
    schedule: ClassVar[ScheduleName] = "cosine"

    epochs: float = setting(800.0, least=1e-6)
    """Passes over the training images."""
    warmup_epochs: float = setting(40.0, least=0)
    """Epochs over which the learning rate rises from zero."""
    steps: int | None = setting(None, least=1)
    """Length of the run in steps, instead of epochs."""
    warmup_steps: int | None = setting(None, least=0)
    """Length of the warm-up in steps, instead of epochs."""
    batch: int = setting(4096, least=1)
    """Images per step, over all processes."""
    micro_batch: int | None = setting(None, least=1, may_change=True)
    """Images per forward pass on one process. Default: 128 on a GPU, else no division."""
    base_lr: float = setting(1.5e-4, least=0)
    """Base learning rate: the peak learning rate is this times batch / 256."""
    weight_decay: float = setting(0.05, least=0)
    """Weight decay; biases and norms are never decayed."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas: decay of the averages of gradients and of their squares."""
    clip: float | None = setting(None, least=1e-12)
    """Clip the gradient norm to this value. Default: no clipping."""
    ema: float | None = setting(None, least=0, most=1)
    """Decay of an EMA (exponential moving average) of the weights, kept beside them. Default: none."""


@dataclass(frozen=True, kw_only=True)
class PlainRun:
    """How to run; nothing here changes what is learned, except seed, precision and --run.time."""

    pictures: ClassVar[int] = 10
    """How often sample figures are drawn in a run, unless it says otherwise."""
    activation_checkpointing: ClassVar[bool] = False

    seed: int = setting(0, least=0, most=2**63 - 1)
    """Seed of initial weights, order, crops and masks."""
    time: str | None = None
    """Length of the run as time on this machine, in place of steps: 90s, 10m, 1h30m. Steps are timed
    once, at the start; the warm-up keeps its share of them."""
    device: Device = setting("auto", may_change=True)  # noqa: RUF009  # a field
    """Where to compute. Default: a GPU if there is one."""
    precision: Precision = "auto"
    """Precision of the matrix multiplications; auto is bf16 if the device has fast bf16."""
    compile: Switch = setting("auto", may_change=True)  # noqa: RUF009  # a field
    """Compile the model with torch.compile; auto does so on a GPU that has Triton, in runs of 10,000
    micro-batches or more, or of --time 5m or more: compiling takes about a minute."""
    log_every: int | None = setting(None, least=1)
    """Steps between entries in metrics.jsonl. Default: a thousandth of the run."""
    evaluate_every: int | None = setting(None, least=1, may_change=True)
    """Steps between evaluations on held-out images. Default: a twentieth of the run, or more if there
    are many images to evaluate."""
    sample_every: int | None = setting(None, least=1, may_change=True)
    """Steps between sample figures. Default: a tenth of a pre-training run, the end of others."""
    checkpoint_every: int | None = setting(None, least=1, may_change=True)
    """Steps between checkpoints. Default: a twentieth of the run, at most an epoch or 500 steps."""
    keep_checkpoints: int = setting(2, least=1, may_change=True)
    """Checkpoints to keep; older ones are removed."""
    keep_every: int | None = setting(None, least=1, may_change=True)
    """Steps between checkpoints that are never removed. Default: none."""

    def check(self) -> None:
        """Raises ValueError if the time is none."""
        if self.time is not None:
            seconds_in(self.time)


@dataclass(frozen=True, kw_only=True)
class Run(PlainRun):
    """How to run; nothing here changes what is learned, except seed, precision and --run.time."""

    activation_checkpointing: bool = setting(False, may_change=True)  # type: ignore[misc]  # fixed above
    """Recompute activations in the backward pass: far less memory, a third more computation."""


@dataclass(frozen=True, kw_only=True)
class FeatureProbe:
    """Evaluation of the features during pre-training, without effect on it."""

    data: tuple[str, ...] = setting((), may_change=True)
    """Labelled images, for k-NN (k = 20) and a linear probe on frozen features of unmasked images.
    Default: no labels; only the effective rank of the features of training images."""
    val: tuple[str, ...] = setting((), may_change=True)
    """Query images with labels. Default: the validation or test part of the labelled data, else a
    quarter of each class; first those that pre-training does not see, and the run says how many it
    sees."""
    label_column: str = setting("label", may_change=True)
    """Column of the labels in a list."""
    images: int = setting(2048, least=0, may_change=True)
    """Maximum number of labelled images, with half as many query images; 0 switches all of this off."""
    every: int | None = setting(None, least=1, may_change=True)
    """Steps between evaluations of the features. Default: a tenth of the run."""
