"""The public functions. The command line calls nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from unmask.bench.card import Card
from unmask.bench.predict import DECODE_MS, Prediction
from unmask.bench.predict import predict as predict_cost
from unmask.bench.run import run_bench
from unmask.bench.setting import IMAGENET_IMAGES, BenchConfig
from unmask.config.plan import Plan
from unmask.config.resolve_classify import ClassifyPlan
from unmask.config.schema import EmbedConfig, PretrainConfig, QuickstartConfig, ReconstructConfig
from unmask.config.schema_classify import ClassifyConfig, LabelledDataConfig
from unmask.config.schema_use import EvaluateConfig, KnnConfig, Part, PredictConfig
from unmask.core.vit import Pool
from unmask.data.sources.find import find_images
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.interop.export import Exported, Layout, default_path, export_weights
from unmask.interop.fit import at_size
from unmask.interop.weights import Model, build, read_weights
from unmask.recipes import pretrain_recipe
from unmask.tasks.check import Check, run_check
from unmask.tasks.embed import Embedded, read_for, run_embedding
from unmask.tasks.evaluate import run_evaluation
from unmask.tasks.knn import run_knn
from unmask.tasks.launch import Pretraining
from unmask.tasks.launch_classify import Classification
from unmask.tasks.predict import Classified, run_prediction
from unmask.tasks.quickstart import Comparison, quickstart_stages, run_stages
from unmask.tasks.reconstruct import run_reconstruction
from unmask.tasks.results import Result
from unmask.tasks.run import dry_run, run_job
from unmask.tasks.summary import last_measurement, last_scores
from unmask.tasks.sweep import ACCURACY, Sweep, run_sweep

Source = str | Path


def pretrain(
    data: Source | PretrainConfig,
    *,
    recipe: str = "laptop",
    out: Source | None = None,
    init: Source | None = None,
) -> Path:
    """Pre-trains on a folder of images and returns the run directory.

    Calling it again with the same arguments resumes, or does nothing where the run is finished.

    Args:
        data: a folder, a built-in data set, or a whole configuration.
        recipe: what to begin with where `data` is no configuration.
        out: the run directory; runs/pretrain-<data> if None.
        init: weights to start from: a run directory or a file.
    """
    if not isinstance(data, PretrainConfig):
        config = pretrain_recipe(recipe)
        data = replace(config, data=replace(config.data, source=(str(data),)))
    if out is not None:
        data = replace(data, out=str(out))
    if init is not None:
        data = replace(data, init=str(init))
    return run_job(Pretraining(data))


def plan_pretraining(config: PretrainConfig) -> Plan:
    """What a pre-training run would do on this machine: every `auto` as a value."""
    return dry_run(Pretraining(config))


def plan(
    recipe: str | PretrainConfig = "vit-large-800",
    *,
    devices: str = "8xh100",
    images: int = IMAGENET_IMAGES,
    utilisation: float | None = None,
    decode_ms: float = DECODE_MS,
) -> Prediction:
    """Hours, memory and loader cores of a pre-training run on devices that need not be here.

    Args:
        recipe: a recipe's name, or a whole configuration.
        devices: how many of which, such as 64xa100; cpu or cuda measures this machine.
        images: training images; ImageNet-1K's unless told otherwise.
        utilisation: share of the devices' peak that training reaches; 0.4, or 0.5 of what cpu
            measures, if None.
        decode_ms: milliseconds of one core per decoded image.
    """
    config = pretrain_recipe(recipe) if isinstance(recipe, str) else recipe
    return predict_cost(
        config, devices=devices, images=images, utilisation=utilisation, decode_ms=decode_ms
    )


def bench(name: str = "step", config: BenchConfig | None = None) -> list[Card]:
    """Measured speed: data, step, speedup, peers, or all; each card's `record` holds the numbers."""
    return run_bench(name, config or BenchConfig())


def classify(config: ClassifyConfig, command: str = "finetune") -> Path:
    """Fine-tunes, probes or trains from scratch, as the configuration says; returns the run directory.

    Calling it again resumes, or does nothing where the run is finished.

    Args:
        config: `unmask.recipes.classify_recipe(name)`, with data and init.
        command: finetune, probe or scratch: names the run, and says whether it needs an init.
    """
    return run_job(Classification(config, command))


def plan_classification(config: ClassifyConfig, command: str = "finetune") -> ClassifyPlan:
    """What such a run would do on this machine: every `auto` as a value."""
    return dry_run(Classification(config, command))


def quickstart(config: QuickstartConfig | None = None) -> Comparison:
    """Pre-trains on the embedded example, and classifies it with and without; says what came of it.

    Calling it again goes on where an earlier call was stopped.
    """
    return run_stages(quickstart_stages(config or QuickstartConfig()), print)


def sweep_classification(
    runs: Sequence[tuple[dict[str, str], ClassifyConfig]], command: str = "finetune"
) -> Sweep:
    """Several runs, each with some settings; compared by their validation accuracy."""

    def one(config: ClassifyConfig, out: Path) -> Path:
        return classify(replace(config, out=str(out)), command)

    out = Classification(runs[0][1], command).path()
    out = out if runs[0][1].out else Path(f"{out}-sweep")
    return run_sweep(runs, one, out=out, by=ACCURACY, say=print)


def evaluate(
    data: Source | EvaluateConfig, *, init: Source = "", out: Source | None = None, split: Part = "val"
) -> Result:
    """Scores of a classifier on labelled images: `record` holds the numbers, `path` pictures and report.

    Args:
        data: labelled images as `classify` takes them, or a whole configuration.
        init: a run, or a classifier of timm, Hugging Face or the reference.
        out: the folder; runs/evaluate-<data> if None.
        split: the images that training would validate on (val), would train on (train), or all.
    """
    if not isinstance(data, EvaluateConfig):
        labelled = LabelledDataConfig(source=(str(data),))
        data = EvaluateConfig(init=str(init), out=_text(out), split=split, data=labelled)
    return run_evaluation(data)


def predict(
    images: Source | PredictConfig,
    *,
    init: Source = "",
    out: Source | None = None,
    top: int | None = None,
) -> Classified:
    """Writes the classes that a classifier takes images for, with probabilities, and a contact sheet.

    Args:
        images: whatever `pretrain` takes, or a whole configuration.
        init: a run, or a classifier of timm, Hugging Face or the reference.
        out: the folder; runs/predict-<data> if None.
        top: how many classes of each image are written, the likeliest first; all if None.
    """
    if not isinstance(images, PredictConfig):
        images = PredictConfig(source=(str(images),), init=str(init), out=_text(out), top=top)
    return run_prediction(images)


def knn(
    data: Source | KnnConfig, *, init: Source = "", out: Source | None = None, baselines: bool = False
) -> Result:
    """What the frozen features of a model are worth: k-NN and a linear probe on labelled images.

    Args:
        data: labelled images as `classify` takes them, or a whole configuration.
        init: whatever `load` takes.
        out: the folder; runs/knn-<data> if None.
        baselines: whether to measure pixels and a random encoder as well.
    """
    if not isinstance(data, KnnConfig):
        labelled = LabelledDataConfig(source=(str(data),))
        data = KnnConfig(init=str(init), out=_text(out), baselines=baselines, data=labelled)
    return run_knn(data)


def load(run_or_file: Source, size: int | tuple[int, int] | None = None) -> Model:
    """A model in evaluation mode: a run directory's, or the reference's, timm's or Hugging Face's.

    A classifier where there is a head, the encoder alone where there is neither that nor a decoder.
    `model.description` says what it is, and holds the mean and deviation that its input is normalised
    with.

    Args:
        run_or_file: a run directory, a hub folder, or a file of weights.
        size: pixels of the images, one number or height and width, for which positions are
            interpolated; as it was trained if None.
    """
    weights = read_weights(run_or_file)
    return build(weights if size is None else at_size(weights, size))


def check(data: Source | PretrainConfig) -> Check:
    """Looks at a folder of images: counts, sizes, bad files, duplicates, and a recipe that suits it."""
    if not isinstance(data, PretrainConfig):
        config = PretrainConfig()
        data = replace(config, data=replace(config.data, source=(str(data),)))
    return run_check(data)


def reconstruct(
    images: Source | ReconstructConfig,
    *,
    init: Source = "",
    out: Source | None = None,
    mask_ratio: float | None = None,
) -> list[Path]:
    """Draws what a model makes of masked images; returns the paths of the pictures.

    Args:
        images: a folder, a file, a built-in data set, or a whole configuration.
        init: a run directory, or a checkpoint of the reference that kept its decoder.
        out: folder for the pictures; runs/reconstruct-<data> if None.
        mask_ratio: share of masked patches; as the model was trained if None.
    """
    if not isinstance(images, ReconstructConfig):
        images = ReconstructConfig(
            source=(str(images),),
            init=str(init),
            out=None if out is None else str(out),
            mask_ratio=mask_ratio,
        )
    return run_reconstruction(images)


def embed(
    images: Source | EmbedConfig,
    *,
    init: Source = "",
    out: Source = "features.safetensors",
    pool: Pool = "mean",
    layer: int | None = None,
) -> Embedded:
    """Writes a feature per image, unmasked and in the order of the data.

    Args:
        images: whatever `pretrain` takes, or a whole configuration.
        init: whatever `load` takes.
        out: the file: .safetensors or .parquet.
        pool: the class token, the mean over patches, or every patch.
        layer: the block whose output is taken, counted from 1; the last, after the final norm, if None.
    """
    if not isinstance(images, EmbedConfig):
        images = EmbedConfig(source=(str(images),), init=str(init), out=str(out), pool=pool, layer=layer)
    return run_embedding(images)


def read(images: Source, model: Model) -> Tensor:
    """Images as a loaded model takes them: centre crops [n, C, H, W], normalised.

    Where the model is a classifier, crops are those of its evaluation.
    """
    return read_for(model, find_images((str(images),)))


def export(run_or_file: Source, *, to: Layout = "official", out: Source | None = None) -> Exported:
    """Writes a model in another layout, beside it a model card; returns path and largest difference.

    The files are read back by the library that they are for, and both models see the same random images.

    Args:
        run_or_file: whatever `load` takes.
        to: official (the reference's .pth), safetensors (one file), timm or hf (a folder each).
        out: the file or folder; beside the model if None.
    """
    source = Path(run_or_file)
    folder = source if source.is_dir() else source.parent
    default, run = default_path(to, folder), RunDirectory(folder)
    weights = read_weights(source)
    last = last_scores if weights.description.head else last_measurement
    measured = last(run) if source.is_dir() and read_metrics(run) else ""
    path = Path(out) if out else default
    return export_weights(weights, to, path, measured=measured)


def _text(path: Source | None) -> str | None:
    return None if path is None else str(path)
