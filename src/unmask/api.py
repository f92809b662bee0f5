"""The public functions: one for each command, with the same name and the same options as keywords."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

import unmask
from unmask.bench.run import run_bench
from unmask.bench.setting import BenchConfig
from unmask.config.ablation import AblateConfig
from unmask.config.commands import (
    CheckConfig,
    EmbedConfig,
    EvaluateConfig,
    KnnConfig,
    PlanConfig,
    PredictConfig,
    QuickstartConfig,
    ReconstructConfig,
)
from unmask.config.fields import check as check_settings
from unmask.config.keywords import with_sections, with_setting, with_settings
from unmask.cost.cards import Card
from unmask.cost.predict import Prediction
from unmask.cost.predict import predict as predict_cost
from unmask.data.sources.find import find_images
from unmask.engine.run_directory import RunDirectory
from unmask.interop.export import Exported, Layout, default_path, export_weights
from unmask.interop.fit import at_size
from unmask.interop.models import Model, build
from unmask.interop.weights import model_type, read_asked
from unmask.runs.ablate import Ablated, run_ablation
from unmask.runs.ablation_cost import Foreseen
from unmask.runs.pages import measured_in
from unmask.runs.quickstart import Comparison, quickstart_stages
from unmask.runs.quickstart import run_stages as run_quickstart
from unmask.runs.train import train
from unmask.tasks import find_recipe, function_for
from unmask.use.check import run_check
from unmask.use.check_report import Check
from unmask.use.embed import Embedded, read_for, run_embedding
from unmask.use.knn import run_knn
from unmask.use.reconstruct import run_reconstruction
from unmask.use.results import Result

Source = str | Path | Sequence[str | Path]
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

    `data` is a folder with COCO's annotations or PASCAL VOC's, or a .csv of boxes. Arguments as of
    `pretrain`.
    """
    return train("detect", data, recipe=recipe, **settings)


def segment(data: Any, *, recipe: str | None = None, **settings: Any) -> Any:
    """Trains a segmenter on images with label maps, from an encoder (`init=RUN`) or `scratch=True`.

    Arguments as of `pretrain`.
    """
    return train("segment", data, recipe=recipe, **settings)


def ablate(data: Source | AblateConfig, **settings: Any) -> Ablated | Foreseen:
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
    return _for_model("evaluate", _config(EvaluateConfig, data, "data.source", settings))


def knn(data: Source | KnnConfig, **settings: Any) -> Result:
    """What the frozen features of a model are worth: k-NN and a linear probe on labelled images.

    `settings` are flags of `unmask knn`: `init=RUN`, `baselines=True`.
    """
    return run_knn(_config(KnnConfig, data, "data.source", settings))


def predict(images: Source | PredictConfig, **settings: Any) -> Any:
    """Writes the classes that a classifier takes images for, with probabilities, and a contact sheet.

    `settings` are flags of `unmask predict`: `init=RUN`, `top=5`.
    """
    return _for_model("predict", _config(PredictConfig, images, "source", settings))


def reconstruct(
    images: Source | ReconstructConfig, *, mask: np.ndarray | None = None, **settings: Any
) -> list[Path]:
    """Draws what a model makes of masked images; returns the paths of the pictures.

    Args:
        images: a folder, several, or a whole ReconstructConfig.
        mask: of your own, bool [h, w] of the model's patches, true where one is masked.
        settings: flags of `unmask reconstruct`: `init=RUN`, `mask_ratio=0.9`, `strategy="block"`.
    """
    return run_reconstruction(_config(ReconstructConfig, images, "source", settings), mask)


def embed(images: Source | EmbedConfig, **settings: Any) -> Embedded:
    """Writes a feature per image, unmasked and in the order of the data.

    `settings` are flags of `unmask embed`: `init=RUN`, `out="features.parquet"`, `pool="class"`.
    """
    return run_embedding(_config(EmbedConfig, images, "source", settings))


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
    return export_weights(weights, to, Path(out) if out else default, measured=measured)


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
    return run_quickstart(quickstart_stages(asked), print)


def load(
    run_or_file: str | Path, size: int | tuple[int, int] | None = None, *, heads: int | None = None
) -> Model:
    """A model in evaluation mode: a run directory's, or the official MAE code's, timm's or Hugging
    Face's.

    A classifier if there is a head, the encoder alone if there is neither that nor a decoder.
    `model.description` says what it is, and how it sees images.

    Args:
        run_or_file: a run directory, a hub folder, or a file of weights.
        size: pixels of the images, one number or height and width, for which positions are
            interpolated; as it was trained if None.
        heads: attention heads of the encoder, for weights that do not say them.
    """
    weights = read_asked(run_or_file, heads)
    return build(weights if size is None else at_size(weights, size))


def read(images: Source, model: Model) -> Tensor:
    """Images as a loaded model takes them: centre crops [n, C, H, W], normalised.

    If the model is a classifier, crops are those of its evaluation.
    """
    return read_for(model, find_images(_words(images)))


def _for_model(use: str, config: Any) -> Any:
    """Calls the function of the task whose model `--init` is; a classifier's if no other claims it."""
    if not config.init:
        raise ValueError(f"{use} needs a model: write --init RUN, a run directory or a file")
    serve = function_for(model_type(config.init), use) or function_for("classifier", use)
    assert serve is not None
    return serve(config)


def _config(cls: Callable[[], C], data: Any, place: str, settings: dict[str, Any]) -> C:
    """A whole configuration, or the defaults with data and settings."""
    config = data if isinstance(data, cls) else with_setting(cls(), place, data)  # type: ignore[arg-type]  # a class
    return _asked(config, settings)


def _asked(config: C, settings: dict[str, Any]) -> C:
    """With settings, all of their types and within their ranges, or ValueError."""
    asked = with_settings(config, settings)
    check_settings(asked)
    return asked


def _words(source: Source) -> tuple[str, ...]:
    several = (source,) if isinstance(source, str | Path) else source
    return tuple(map(str, several))


__all__ = [
    "pretrain", "tokenizer", "finetune", "probe", "scratch", "detect", "segment", "ablate", "check",
    "evaluate", "knn", "predict", "reconstruct", "embed", "export", "plan", "bench", "quickstart",
    "load", "read", "train",
]  # fmt: skip

# Importing the room of that name has made it an attribute of the package; the function is meant.
unmask.bench = bench
