"""The public functions. The command line calls nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from unmask.config.plan import Plan
from unmask.config.schema import PretrainConfig, ReconstructConfig
from unmask.core.mae import MaskedAutoencoder
from unmask.core.vit import VisionTransformer
from unmask.interop.weights import build, read_weights, write_official
from unmask.recipes import pretrain_recipe
from unmask.tasks import launch
from unmask.tasks.check import Check, run_check
from unmask.tasks.reconstruct import run_reconstruction

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
    return launch.run_pretraining(data)


def plan_pretraining(config: PretrainConfig) -> Plan:
    """What a pre-training run would do on this machine: every `auto` as a value."""
    return launch.dry_run(config)


def load(run_or_file: Source) -> MaskedAutoencoder | VisionTransformer:
    """The model of a run directory, or of a checkpoint of the reference (.pth), in evaluation mode.

    The encoder alone where there is no decoder. `model.description` says what it is, and holds the
    mean and deviation that its input is normalised with.
    """
    return build(read_weights(run_or_file))


def check(data: Source | PretrainConfig) -> Check:
    """Looks at a folder of images: counts, sizes, bad files, duplicates, and a recipe that suits it."""
    if not isinstance(data, PretrainConfig):
        config = PretrainConfig()
        data = replace(config, data=replace(config.data, source=(str(data),)))
    return run_check(data, gpu=torch.cuda.is_available())


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


def export(
    run_or_file: Source, *, to: Literal["official"] = "official", out: Source | None = None
) -> tuple[Path, float]:
    """Writes a model in another layout; returns the file and the largest difference of outputs.

    The file is read back, and both models see the same random images.
    """
    source = Path(run_or_file)
    path = Path(out) if out else (source if source.is_dir() else source.parent) / f"{to}.pth"
    weights = read_weights(source)
    write_official(path, weights)
    return path, largest_difference(build(weights), build(read_weights(path)))


def largest_difference(
    one: MaskedAutoencoder | VisionTransformer, other: MaskedAutoencoder | VisionTransformer
) -> float:
    """The largest absolute difference of two models' outputs on the same two random images."""
    encoder = one.encoder if isinstance(one, MaskedAutoencoder) else one
    seed = torch.Generator().manual_seed(0)
    images = torch.randn(2, encoder.channels, *encoder.image_size, generator=seed)
    noise = torch.rand(2, encoder.grid[0] * encoder.grid[1], generator=seed)
    with torch.inference_mode():
        outputs = [
            m.reconstruct(images, noise) if isinstance(m, MaskedAutoencoder) else m(images)
            for m in (one, other)
        ]
    return float((outputs[0] - outputs[1]).abs().max())
