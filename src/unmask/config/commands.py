"""The configuration of each command, composed of sections: what it offers is what it uses."""

from dataclasses import dataclass, field
from typing import Literal

from unmask.config.annotations import MapOptions, ObjectOptions
from unmask.config.classify import (
    Augment,
    Head,
    LabelledData,
    LabelledRun,
    ProbeHead,
    ProbeOptim,
    TuneOptim,
)
from unmask.config.crops import PretrainCrops
from unmask.config.fields import setting
from unmask.config.settings import (
    Autoencoder,
    Bands,
    Cache,
    Device,
    Encoder,
    FeatureProbe,
    Labels,
    Mask,
    MaskChoice,
    Optim,
    Pool,
    Reading,
    Run,
    Source,
    Subset,
    Target,
    View,
)
from unmask.config.weights import InitModel
from unmask.core.spec import TargetKind

Part = Literal["val", "train", "all"]
Fittable = Literal["size", "patch", "steps"]
FITTED: dict[str, tuple[str, ...]] = {
    "size": ("data.size",),
    "patch": ("model.patch", "mask.ratio"),
    "steps": ("optim.steps",),
}
"""What each part of the setting `fit` decides."""
Robustness = Literal["none", "a", "r", "sketch", "c"]


@dataclass(frozen=True, kw_only=True)
class PretrainData(Cache, Reading, PretrainCrops, Bands, Source):
    """The images and their crops."""

    size: tuple[int, ...] = (224,)
    """Pixels of the model's input: one number for a square, or height and width."""
    other: tuple[str, ...] = setting((), may_change=True)
    """Images of another data set, reconstructed in the sample pictures too (paper, Fig. 3)."""
    held_out: int | None = None
    """Held-out images, to measure reconstruction. Default: one in twenty, at least 8, at most 256."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training command has."""

    recipe: str = setting("", may_change=True)
    """The recipe that sets the defaults of all other flags."""
    out: str | None = setting(None, may_change=True)
    """Run directory. Default: runs/<command>-<data>."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Masked-autoencoder pre-training."""

    init: str | None = None
    """Start from the weights of a run directory or a file."""
    fit: tuple[Fittable, ...] = ()
    """Settings chosen from the images and this machine, as `unmask check` suggests; explicit flags win:
    the size of the model's input, its patches with the mask ratio, the number of steps."""
    data: PretrainData = field(default_factory=PretrainData)
    model: Autoencoder = field(default_factory=Autoencoder)
    mask: Mask = field(default_factory=Mask)
    target: Target = field(default_factory=Target)
    optim: Optim = field(default_factory=Optim)
    probe: FeatureProbe = field(default_factory=FeatureProbe)
    run: Run = field(default_factory=Run)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainingConfig):
    """A pre-trained encoder and a new head, trained on labels in whole or in part."""

    init: str | None = None
    """The encoder: a run directory, a folder of Hugging Face or timm weights or a file of weights. A
    resumed run does not need it."""
    data: LabelledData = field(default_factory=LabelledData)
    model: InitModel = field(default_factory=InitModel)
    head: Head = field(default_factory=Head)
    augment: Augment = field(default_factory=Augment)
    optim: TuneOptim = field(default_factory=TuneOptim)
    run: LabelledRun = field(default_factory=LabelledRun)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(TrainingConfig):
    """A linear classifier on a frozen encoder."""

    init: str | None = None
    """The encoder: a run directory, a folder of Hugging Face or timm weights or a file of weights. A
    resumed run does not need it."""
    data: LabelledData = field(default_factory=LabelledData)
    model: InitModel = field(default_factory=InitModel)
    head: ProbeHead = field(default_factory=ProbeHead)
    augment: Augment = field(default_factory=Augment)
    optim: ProbeOptim = field(default_factory=ProbeOptim)
    run: LabelledRun = field(default_factory=LabelledRun)


@dataclass(frozen=True, kw_only=True)
class ScratchConfig(TrainingConfig):
    """A new encoder and head, trained on labels alone."""

    data: LabelledData = field(default_factory=LabelledData)
    model: Encoder = field(default_factory=Encoder)
    head: Head = field(default_factory=Head)
    augment: Augment = field(default_factory=Augment)
    optim: TuneOptim = field(default_factory=TuneOptim)
    run: LabelledRun = field(default_factory=LabelledRun)


ClassifyConfig = FinetuneConfig | ProbeConfig | ScratchConfig


@dataclass(frozen=True, kw_only=True)
class CheckData(Reading, Bands, MapOptions, ObjectOptions, Source):
    """The images to look at."""

    size: tuple[int, ...] | None = None
    """Pixels of the model's input. Default: the recipe's."""


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Counts and checks of images before training on them."""

    recipe: str = ""
    """The recipe whose run is estimated. Default: the one that suits images and machine."""
    out: str | None = None
    """Folder for the picture. Default: runs/check-<data>."""
    device: Device = "auto"
    """Where the run would compute. Default: a GPU if there is one."""
    data: CheckData = field(default_factory=CheckData)


@dataclass(frozen=True, kw_only=True)
class KnnData(Reading, View, Subset, Labels, Source):
    """Labelled images, and how they are prepared for the model."""


@dataclass(frozen=True, kw_only=True)
class EvaluateData(Reading, View, ObjectOptions, Labels, Source):
    """Labelled images, and how they are prepared for the model."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The scores of a classifier, detector or segmenter on labelled images."""

    init: str = ""
    """The model: the run directory of a classifier, detector or segmenter, or a classifier as a hub
    folder or a file of weights."""
    out: str | None = None
    """Folder for scores, pictures and report. Default: runs/evaluate-<data>."""
    split: Part = "val"
    """Images to evaluate: those that finetune would validate on with the same data settings, those that
    it would train on, or all."""
    robustness: Robustness = "none"
    """What the data are, if they are ImageNet-A, -R, -Sketch or -C in a folder: it decides what is
    measured, on all images."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""
    data: EvaluateData = field(default_factory=EvaluateData)
    model: InitModel = field(default_factory=InitModel)


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """k-NN and linear probe of frozen features, scored on validation images."""

    init: str = ""
    """The model: a run directory, a folder of Hugging Face or timm weights or a file of weights."""
    out: str | None = None
    """Folder for scores, pictures and report. Default: runs/knn-<data>."""
    pool: Pool | None = None
    """The class token, the mean over patches, or all patches side by side, which keeps the positions.
    Default: the mean, or what a classifier's head takes."""
    neighbours: tuple[int, ...] = (10, 20, 100, 200)
    """How many of the nearest training images vote; the best of these numbers is named."""
    temperature: float = setting(0.07, least=0.02, most=100)
    """A neighbour votes with weight exp(cosine / temperature)."""
    baselines: bool = False
    """Measure the pixels themselves and a random encoder as well."""
    seed: int = setting(0, least=0)
    """Decides the weights of the random encoder."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""
    data: KnnData = field(default_factory=KnnData)
    model: InitModel = field(default_factory=InitModel)


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Predictions of a classifier, detector or segmenter on new images."""

    source: tuple[str, ...] = ()
    """Images, as for pre-training; usually the first words."""
    root: str = "data"
    """Where torchvision keeps its data sets."""
    init: str = ""
    """The model: the run directory of a classifier, detector or segmenter, or a classifier as a hub
    folder or a file of weights."""
    model: InitModel = field(default_factory=InitModel)
    out: str | None = None
    """Folder for what is written. Default: runs/predict-<data>."""
    top: int | None = setting(None, least=1)
    """For classifiers: write only the N most probable classes of each image. Default: the
    probabilities of all."""
    sheet: int = setting(32, least=0)
    """Images on the contact sheet, from the first; 0 for none. A detector's have a file each."""
    tile: int | None = setting(None, least=16)
    """For detectors: cut larger images into overlapping tiles of this many pixels, detect in each, and
    merge the detections. Default: every image is seen as a whole."""
    workers: int | None = setting(None, least=0)
    """Processes that decode images. Default: by the number of processor cores."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Features of images, one row per image, in a file."""

    source: tuple[str, ...] = ()
    """Images, as for pre-training; usually the first words."""
    root: str = "data"
    """Where torchvision keeps its data sets."""
    init: str = ""
    """The model: a run directory, a folder of Hugging Face or timm weights or a file of weights."""
    model: InitModel = field(default_factory=InitModel)
    out: str = "features.safetensors"
    """The file to write: .safetensors, or .parquet, which is written piece by piece."""
    pool: Pool = "mean"
    """The class token (also "cls"), the mean over patches, or every patch."""
    layer: int | None = None
    """The block whose output is taken, counted from 1. Default: the last, after the final norm."""
    size: tuple[int, ...] | None = None
    """Pixels of the model's input: positions are interpolated. Default: as it was trained."""
    batch: int = setting(32, least=1)
    """Images per forward pass."""
    workers: int | None = setting(None, least=0)
    """Processes that decode images. Default: by the number of processor cores."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig:
    """Pictures of a model's reconstructions of masked images."""

    source: tuple[str, ...] = ()
    """Folders or files of images, or the name of a built-in data set; usually the first words."""
    init: str = ""
    """The model: a run directory, a Hugging Face ViTMAE folder, or a checkpoint of the official MAE
    code."""
    model: InitModel = field(default_factory=InitModel)
    out: str | None = None
    """Folder for the pictures. Default: runs/reconstruct-<data>."""
    mask_ratio: float | None = None
    """Share of the patches that is masked. Default: as the model was trained."""
    mask: MaskChoice = field(default_factory=MaskChoice)
    target: TargetKind | None = None
    """What the model predicts, if its file does not say."""
    count: int = setting(8, least=1)
    """Images to draw."""
    seed: int = setting(0, least=0)
    """Decides which patches are masked."""


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """One step of a run again, seen from inside."""

    step: int | None = setting(None, least=1)
    """The step, as metrics.jsonl counts them: the first is 1. Default: the newest that was
    skipped, the first of a series, or began a loss spike."""
    out: str | None = None
    """Folder for the report. Default: runs/replay-<run>-<step>."""
    worst: int = setting(8, least=0)
    """Images to draw, those with the largest losses first; 0 for none."""
    device: Device | None = None
    """Where to compute. Default: as the run."""


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """The built-in example; everything else is fixed."""

    data: Literal["digits", "elpv"] = "digits"
    """Handwritten digits, or solar cells, which need another package and more time."""
    out: str | None = None
    """Folder for the runs and the page that compares them. Default: runs/quickstart[-elpv]."""
    time: str | None = None
    """Time for everything: a slower machine trains less. Default: 4m, and 12m for solar cells."""
    seed: int = 0
    """Decides initial weights, order, crops and masks."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """A model in another library's layout."""

    to: Literal["official", "safetensors", "timm", "hf"] = "official"
    """The layout: .pth of the official MAE code; one safetensors file; a folder for timm, or for
    transformers."""
    encoder_only: bool = False
    """Leave decoder or head out: for transformers a ViTModel, whose features are not masked."""
    out: str | None = None
    """The file or folder to write. Default: beside the model."""
    model: InitModel = field(default_factory=InitModel)
