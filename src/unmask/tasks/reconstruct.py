"""Pictures of what a trained model makes of masked images."""

from dataclasses import replace
from pathlib import Path

import torch

from unmask.config.plan import PixelFormat
from unmask.config.schema import ReconstructConfig
from unmask.core.mae import MaskedAutoencoder
from unmask.core.masking import kept_patches
from unmask.data.loader import load_centre_crops
from unmask.data.normalize import normalize
from unmask.data.sources.find import find_images
from unmask.errors import CheckpointError
from unmask.interop.weights import Weights, build, read_weights
from unmask.tasks.pretrain import STRIP_IMAGES, display_of, fixed_noise
from unmask.viz.reconstruction import mask_ratio_strip, reconstruction_grid


def run_reconstruction(config: ReconstructConfig) -> list[Path]:
    """Writes a grid at one mask ratio and a strip over 75 to 95 %; returns both paths.

    Raises CheckpointError where the weights have no decoder, DataError where there are no images.
    """
    if config.count < 1 or config.seed < 0:
        raise ValueError("--count must be 1 or more, and --seed 0 or more")
    weights = _with_decoder(config)
    model = build(weights)
    assert isinstance(model, MaskedAutoencoder)
    a, d = model.architecture, weights.description
    ratio = a.mask_ratio if config.mask_ratio is None else config.mask_ratio
    kept_patches(model.encoder.grid, ratio, a.mask_unit)
    images = find_images(config.source)
    wanted = PixelFormat(channels=a.channels, pixel_type=d.pixel_type)
    first = images.subset(range(min(config.count, len(images))))
    crops = load_centre_crops(first, size=a.image_size, wanted=wanted)
    noise = fixed_noise(len(crops), model.encoder.grid[0] * model.encoder.grid[1], config.seed)
    normal = normalize(crops, d.mean, d.std)
    display = display_of(d.mean, d.std, d.display, wanted)
    few = slice(STRIP_IMAGES)
    with torch.inference_mode():
        grid = reconstruction_grid(
            model, normal, noise, display=display, mask_ratio=ratio, title=images.name
        )
        strip = mask_ratio_strip(model, normal[few], noise[few], display=display)
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
