"""Pictures of what a trained model makes of masked images."""

from dataclasses import replace
from pathlib import Path

import torch

from unmask.config.schema import DataConfig, ReconstructConfig
from unmask.core.mae import MaskedAutoencoder
from unmask.core.masking import kept_patches
from unmask.data.folder import find_images
from unmask.data.loader import load_centre_crops
from unmask.data.normalize import normalize
from unmask.errors import CheckpointError
from unmask.interop.weights import Weights, build, read_weights
from unmask.tasks.pretrain import STRIP_IMAGES, fixed_noise
from unmask.viz.reconstruction import mask_ratio_strip, reconstruction_grid

MAX_PIXELS = round(DataConfig().max_megapixels * 1e6)


def run_reconstruction(config: ReconstructConfig) -> list[Path]:
    """Writes a grid at one mask ratio and a strip over 75 to 95 %; returns both paths.

    Raises CheckpointError where the weights have no decoder, DataError where there are no images.
    """
    if config.count < 1 or config.seed < 0:
        raise ValueError("--count must be 1 or more, and --seed 0 or more")
    weights = _with_decoder(config)
    model = build(weights)
    assert isinstance(model, MaskedAutoencoder)
    a, mean, std = model.architecture, weights.description.mean, weights.description.std
    ratio = a.mask_ratio if config.mask_ratio is None else config.mask_ratio
    kept_patches(model.encoder.grid, ratio, a.mask_unit)
    images = find_images(config.source)
    crops = load_centre_crops(
        images.paths[: config.count], size=a.image_size, channels=a.channels, max_pixels=MAX_PIXELS
    )
    noise = fixed_noise(len(crops), model.encoder.grid[0] * model.encoder.grid[1], config.seed)
    normal = normalize(crops, mean, std)
    few = slice(STRIP_IMAGES)
    with torch.inference_mode():
        grid = reconstruction_grid(
            model, normal, noise, mean=mean, std=std, mask_ratio=ratio, title=images.name
        )
        strip = mask_ratio_strip(model, normal[few], noise[few], mean=mean, std=std)
    folder = Path(config.out or f"runs/reconstruct-{images.name}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "reconstruction.png", folder / "reconstruction-ratios.png"]
    for path, picture in zip(paths, (grid, strip), strict=True):
        picture.save(path)
    return paths


def _with_decoder(config: ReconstructConfig) -> Weights:
    if not config.init:
        raise ValueError("reconstruct needs a model: write --init RUN, a run directory or a file")
    weights = read_weights(config.init)
    if not weights.description.has_decoder:
        raise CheckpointError(
            f"{config.init} holds an encoder without a decoder, and only a decoder draws: give the "
            f"pre-training run, or a checkpoint that kept its decoder"
        )
    if config.target is None:
        return weights
    architecture = replace(weights.description.architecture, target=config.target)
    return replace(weights, description=replace(weights.description, architecture=architecture))
