"""What can be asked of trained models: to be evaluated, to predict, to be judged by their neighbours."""

from dataclasses import dataclass, field
from typing import Literal

from unmask.config.schema import Device
from unmask.config.schema_classify import LabelledDataConfig
from unmask.core.vit import Pool

Part = Literal["val", "train", "all"]
Robustness = Literal["none", "a", "r", "sketch", "c"]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The scores of a classifier on labelled images."""

    init: str = ""
    """The classifier: a run directory, a hub folder or a file of weights."""
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
    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Images with the classes that a classifier takes them for."""

    source: tuple[str, ...] = ()
    """Images, as for pre-training; usually the first words."""
    root: str = "data"
    """Where torchvision keeps its data sets."""
    init: str = ""
    """The classifier: a run directory, a hub folder or a file of weights."""
    out: str | None = None
    """Folder for predictions.csv, predictions.jsonl and sheet.png. Default: runs/predict-<data>."""
    top: int | None = None
    """Write only so many classes of each image, the likeliest. Default: the probabilities of all."""
    sheet: int = 32
    """Images on the contact sheet, from the first; 0 leaves it out."""
    workers: int | None = None
    """Processes that decode images. Default: by the number of processor cores."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """What frozen features are worth: the classes of validation images by those of training images."""

    init: str = ""
    """The model: a run directory, a hub folder or a file of weights."""
    out: str | None = None
    """Folder for scores, pictures and report. Default: runs/knn-<data>."""
    pool: Pool | None = None
    """The class token, the mean over patches, or all patches side by side, which keeps the positions.
    Default: the mean, or what a classifier's head takes."""
    neighbours: tuple[int, ...] = (10, 20, 100, 200)
    """How many of the nearest training images vote; the best of these numbers is named."""
    temperature: float = 0.07
    """A neighbour votes with weight exp(cosine / temperature)."""
    baselines: bool = False
    """Measure the pixels themselves and a random encoder as well."""
    seed: int = 0
    """Of the random encoder."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""
    data: LabelledDataConfig = field(default_factory=LabelledDataConfig)
