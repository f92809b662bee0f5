"""The public functions: one for each command, with the same name and the same options as keywords."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import unmask
from unmask.bench.run import run_bench
from unmask.bench.setting import BenchConfig
from unmask.config.ablation import AblateConfig
from unmask.config.commands import (
    CheckConfig,
    EmbedConfig,
    EvaluateConfig,
    KnnConfig,
    PredictConfig,
    QuickstartConfig,
    ReconstructConfig,
    ReplayConfig,
)
from unmask.config.fields import check as check_settings
from unmask.config.keywords import with_sections, with_setting, with_settings
from unmask.config.planning import PlanConfig
from unmask.cost.cards import Card
from unmask.cost.predict import Prediction
from unmask.cost.predict import predict as predict_cost
from unmask.data.images import Images
from unmask.data.in_memory import images_in_memory
from unmask.engine.locks import only_writer_of
from unmask.engine.run_directory import RunDirectory
from unmask.interop.export import Exported, Layout, default_path, export_weights
from unmask.interop.weights import read_asked
from unmask.runs.ablate import Ablated, run_ablation
from unmask.runs.ablation_cost import AblationEstimate
from unmask.runs.pages import measured_in
from unmask.runs.quickstart import Comparison, plan_quickstart, run_quickstart
from unmask.runs.replay import run_replay
from unmask.runs.replayed import Replayed
from unmask.runs.train import train
from unmask.tasks import find_recipe
from unmask.use.check import run_check
from unmask.use.check_report import Check
from unmask.use.embed import Embedded, run_embedding
from unmask.use.knn import run_knn
from unmask.use.model import Pictures, Source, load, read, serving
from unmask.use.reconstruct import run_reconstruction
from unmask.use.results import Result

C = TypeVar("C")


def pretrain(data: Any, *, recipe: str | None = None, **settings: Any) -> Any:
    """Pre-trains on images and returns the run directory.

    Calling it again with the same arguments resumes, or does nothing if the run is finished.

    Args:
        data: a folder, several, a built-in data set, or a whole PretrainConfig.
        recipe: what to begin with; laptop if None.
        settings: any flag of `unmask pretrain` by its name: `steps=20`, `init=RUN`, `out="runs/mine"`,
            `data_size=96`, `mask_ratio=0.8`. `seeds=[0, 1]` and `sweep={"optim.base_lr": [1e-3, 2e-3]}`
            make a run for each value and return the comparison. `dry_run=True` returns the plan, or the
            plan of each run by its name.
    """
    return train("pretrain", data, recipe=recipe, **settings)


def tokenizer(data: Any, *, recipe: str | None = None, **settings: Any) -> Any:
    """Trains a discrete VAE, whose tokens pre-training may predict. Arguments as of `pretrain`."""
    return train("tokenizer", data, recipe=recipe, **settings)


def finetune(data: Any, *, recipe: str | None = None, **settings: Any) -> Any:
    """Trains an encoder (`init=RUN`) and a new head on labelled images; returns the run directory.

    `tune_blocks=K` tunes the last K blocks alone. Arguments as of `pretrain`.
    """
    return train("finetune", data, recipe=recipe, **settings)


def probe(data: Any, *, recipe: str | None = None, **settings: Any) -> Any:
    """Trains a linear classifier on a frozen encoder (`init=RUN`). Arguments as of `pretrain`."""
    return train("probe", data, recipe=recipe, **settings)


def scratch(data: Any, *, recipe: str | None = None, **settings: Any) -> Any:
    """Trains a new encoder and head on labelled images alone. Arguments as of `pretrain`."""
    return train("scratch", data, recipe=recipe, **settings)


def detect(data: Any, *, recipe: str | None = None, **settings: Any) -> Any:
    """Trains an encoder (`init=RUN`, or `scratch=True`) as a detector of objects, with boxes and masks.

    `data` is a folder with annotations in COCO's, PASCAL VOC's, labelme's or YOLO's format, or a .csv of
    boxes. Arguments as of `pretrain`.
    """
    return train("detect", data, recipe=recipe, **settings)


def segment(data: Any, *, recipe: str | None = None, **settings: Any) -> Any:
    """Trains a segmenter on images with label maps, from an encoder (`init=RUN`) or `scratch=True`.

    Arguments as of `pretrain`.
    """
    return train("segment", data, recipe=recipe, **settings)


def ablate(data: Source | AblateConfig, **settings: Any) -> Ablated | AblationEstimate:
    """Asks one of the paper's questions of your own images: runs, a table with spread, a report.

    `settings` are flags of `unmask ablate`: `axis="mask_ratio"`, `values=[0.5, 0.75]`,
    `seeds=[0, 1, 2]`, `budget="smoke"`. With `dry_run=True` it says what would happen, and returns that.
    """
    if "values" in settings:
        settings["values"] = tuple(map(str, settings["values"]))
    return run_ablation(_config(AblateConfig, data, "data.source", settings))


def check(data: Source | CheckConfig, **settings: Any) -> Check:
    """Looks at images: counts, sizes, bad files, duplicates, and a recipe that suits them.

    `settings` are flags of `unmask check`: `recipe="laptop"`, `channels=4`.
    """
    return run_check(_config(CheckConfig, data, "data.source", settings))


def evaluate(data: Source | EvaluateConfig, **settings: Any) -> Any:
    """Scores on labelled images, or on those with label maps: `record` holds them, `path` a report.

    `settings` are flags of `unmask evaluate`: `init=RUN` (a run, or a classifier of timm, Hugging Face
    or the official MAE code), `split="all"`.
    """
    config = _config(EvaluateConfig, data, "data.source", settings)
    return serving("evaluate", config.init)(config)


def knn(data: Source | KnnConfig, **settings: Any) -> Result:
    """What the frozen features of a model are worth: k-NN and a linear probe on labelled images.

    `settings` are flags of `unmask knn`: `init=RUN`, `baselines=True`.
    """
    return run_knn(_config(KnnConfig, data, "data.source", settings))


def predict(images: Pictures | PredictConfig, **settings: Any) -> Any:
    """Writes the classes that a classifier takes images for, with probabilities, and a contact sheet.

    `images` may be files or in memory, see `read`. `settings` are flags of `unmask predict`:
    `init=RUN`, `top=5`.
    """
    config, given = _of_images(PredictConfig, images, settings)
    return serving("predict", config.init)(config, given)


def reconstruct(
    images: Pictures | ReconstructConfig, *, mask: np.ndarray | None = None, **settings: Any
) -> list[Path]:
    """Draws what a model makes of masked images; returns the paths of the pictures.

    Args:
        images: a folder, several, or a whole ReconstructConfig; or images in memory, see `read`.
        mask: of your own, bool [h, w] of the model's patches, true where one is masked.
        settings: flags of `unmask reconstruct`: `init=RUN`, `mask_ratio=0.9`, `strategy="block"`.
    """
    config, given = _of_images(ReconstructConfig, images, settings)
    return run_reconstruction(config, mask, given)


def embed(images: Pictures | EmbedConfig, **settings: Any) -> Embedded:
    """Writes a feature per image, unmasked and in the order of the data.

    `images` may be files or in memory, see `read`. `settings` are flags of `unmask embed`: `init=RUN`,
    `out="features.parquet"`, `pool="class"`.
    """
    return run_embedding(*_of_images(EmbedConfig, images, settings))


def export(
    run_or_file: str | Path,
    *,
    to: Layout = "official",
    out: str | Path | None = None,
    encoder_only: bool = False,
    heads: int | None = None,
) -> Exported:
    """Writes a model in another layout, beside it a model card; returns path and largest difference.

    The files are read back by the library that they are for, and both models see the same random images.

    Args:
        run_or_file: whatever `load` takes.
        to: official (.pth of the official MAE code), safetensors (one file), timm or hf (a folder each).
        out: the file or folder; beside the model if None.
        encoder_only: leave decoder or head out.
        heads: attention heads of the encoder, for weights that do not say them.
    """
    source = Path(run_or_file)
    folder = source if source.is_dir() else source.parent
    default = default_path(to, folder)
    weights = read_asked(source, heads)
    weights = weights.encoder_only() if encoder_only else weights
    measured = measured_in(RunDirectory(folder)) if source.is_dir() else ""
    path = Path(out) if out else default
    with only_writer_of(path):
        return export_weights(weights, to, path, measured=measured)


def replay(run: str | Path, config: ReplayConfig | None = None, **settings: Any) -> Replayed:
    """Takes one step of a run again: `record()` says what happened in it, `path` holds the report.

    `settings` are flags of `unmask replay`: `step=120`, `out="look"`.
    """
    return run_replay(run, _asked(config or ReplayConfig(), settings))


def plan(recipe: str | PlanConfig = "vit-large-800", **settings: Any) -> Prediction:
    """Hours, memory and loader cores of a pre-training run on devices that need not be here.

    Args:
        recipe: a recipe's name, or a whole PlanConfig.
        settings: flags of `unmask plan`: `devices="64xa100"`, `images=100_000`, `batch=2048`.
    """
    if isinstance(recipe, str):
        recipe = with_sections(PlanConfig(), find_recipe("pretrain", recipe))
    asked = _asked(recipe, settings)
    return predict_cost(
        with_sections(find_recipe("pretrain", "vit-large-800"), asked),
        devices=asked.devices,
        images=asked.images,
        utilisation=asked.utilisation,
        decode_ms=asked.decode_ms,
    )


def bench(name: str = "step", config: BenchConfig | None = None, **settings: Any) -> list[Card]:
    """Measured speed: data, step, speedup, peers, or all; each card's `record` holds the results.

    `settings` are flags of `unmask bench`: `model="base"`, `rounds=3`.
    """
    return run_bench(name, _asked(config or BenchConfig(), settings))


def quickstart(config: QuickstartConfig | None = None, **settings: Any) -> Comparison:
    """Pre-trains on the embedded example, and classifies it with and without; says what came of it.

    Calling it again goes on where an earlier call was stopped.
    """
    asked = _asked(config or QuickstartConfig(), settings)
    return run_quickstart(plan_quickstart(asked), print)


def _of_images(cls: Callable[[], C], images: Any, settings: dict[str, Any]) -> tuple[C, Images | None]:
    """The configuration, and the images themselves if they are in memory."""
    given = images_in_memory(images)
    return _config(cls, () if given is not None else images, "source", settings), given


def _config(cls: Callable[[], C], data: Any, place: str, settings: dict[str, Any]) -> C:
    """A whole configuration, or the defaults with data and settings."""
    config = data if isinstance(data, cls) else with_setting(cls(), place, data)  # type: ignore[arg-type]  # a class
    return _asked(config, settings)


def _asked(config: C, settings: dict[str, Any]) -> C:
    """With settings, all of their types and within their ranges, or ValueError."""
    asked = with_settings(config, settings)
    check_settings(asked)
    return asked


__all__ = [
    "pretrain", "tokenizer", "finetune", "probe", "scratch", "detect", "segment", "ablate", "check",
    "evaluate", "knn", "predict", "reconstruct", "embed", "export", "replay", "plan", "bench",
    "quickstart", "load", "read", "train",
]  # fmt: skip

# Importing the room of that name has made it an attribute of the package; the function is meant.
unmask.bench = bench
