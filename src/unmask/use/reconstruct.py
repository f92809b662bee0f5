"""Pictures of what a trained model makes of masked images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from unmask.config.commands import ReconstructConfig
from unmask.config.fields import check
from unmask.config.output import claim_output
from unmask.core.mae import MaskedAutoencoder
from unmask.core.objective import GRID_RATIO
from unmask.core.spec import MAESpec, MaskSpec, Strategy
from unmask.data.centre_crops import load_centre_crops
from unmask.data.images import Images
from unmask.data.mask_strategies import given_mask, read_mask
from unmask.data.normalize import normalize, valid_pixels
from unmask.data.sources.find import find_images
from unmask.engine.locks import only_writer_in
from unmask.errors import CheckpointError
from unmask.interop.description import Weights
from unmask.interop.models import build
from unmask.interop.weights import read_asked
from unmask.models.tokenizer_spec import TokenizerSpec
from unmask.tasks.reconstruction import STRIP_IMAGES, display_of, fixed_noise
from unmask.tasks.tokens import tokens_of
from unmask.viz.reconstruction import mask_ratio_strip, reconstruction_grid
from unmask.viz.saving import save_picture


def run_reconstruction(
    config: ReconstructConfig, mask: np.ndarray | None = None, given: Images | None = None
) -> list[Path]:
    """Writes a grid at one mask ratio and a strip over 75 to 95 %; returns both paths.

    `mask` is bool [h, w], true where a patch is masked: a user's own, in place of strategy and ratio.
    `given` images take the place of the configuration's.
    Raises CheckpointError if the weights have no decoder, DataError if there are no images, ValueError
    if the mask does not suit the model.
    """
    check(config)
    weights = _with_decoder(config)
    spec = weights.description.autoencoder
    assert spec is not None
    spec = replace(spec, mask=_asked(config, spec, mask))
    model = build(replace(weights, description=replace(weights.description, model=spec)))
    assert isinstance(model, MaskedAutoencoder)
    image = weights.description.image
    tokens = tokens_of(config.init, spec, image)
    spec.mask.visible(model.encoder.grid)  # refuses a ratio that cannot be met
    images = find_images(config.source) if given is None else given
    first = images.subset(range(min(config.count, len(images))))
    crops = load_centre_crops(first, image)
    noise = fixed_noise(len(crops), model.spec.mask, model.encoder.grid, config.seed)
    normal, display = normalize(crops, image.mean, image.std), display_of(image)
    valid, few = valid_pixels(crops), slice(STRIP_IMAGES)
    draw = tokens.draw if tokens else None
    with torch.inference_mode():
        grid = reconstruction_grid(
            *(model, normal, noise), display=display, title=images.name, valid=valid, tokens=draw
        )
        strip = mask_ratio_strip(
            *(model, normal[few], noise[few]),
            display=display,
            valid=None if valid is None else valid[few],
            tokens=draw,
        )
    folder = Path(config.out or f"runs/reconstruct-{images.name}")
    claim_output(folder)
    paths = [folder / "reconstruction.png", folder / "reconstruction-ratios.png"]
    with only_writer_in(folder):
        for path, picture in zip(paths, (grid, strip), strict=True):
            save_picture(picture, path)
    return paths


def _asked(config: ReconstructConfig, spec: MAESpec, array: np.ndarray | None) -> MaskSpec:
    """The model's own mask, with what was asked for."""
    asked, trained, grid = config.mask, spec.mask, spec.encoder.grid
    own = array is not None or asked.file is not None
    if own or (trained.strategy == "given" and asked.strategy is None):
        if config.mask_ratio is not None or asked.strategy is not None:
            raise ValueError(
                "a given mask decides its strategy and ratio: leave out --mask.strategy and "
                "--mask-ratio, or choose --mask.strategy random"
            )
        if array is not None:
            trained = given_mask(array, grid)
        elif asked.file is not None:
            trained = read_mask(asked.file, grid)
        return replace(trained, tokens_in_encoder=spec.mask.tokens_in_encoder)
    strategy: Strategy = asked.strategy or trained.strategy
    usual = GRID_RATIO if strategy == "grid" else trained.ratio
    if strategy == "grid" and config.mask_ratio not in (None, GRID_RATIO):
        raise ValueError(
            f"a grid keeps one of every four patches, so that {config.mask_ratio:g} is no ratio for it: "
            f"leave out --mask-ratio, or choose --mask.strategy random"
        )
    return replace(
        trained,
        strategy=strategy,
        ratio=usual if config.mask_ratio is None else config.mask_ratio,
        unit=trained.unit if strategy == "random" else 1,
        given=(),
    )


def _with_decoder(config: ReconstructConfig) -> Weights:
    if not config.init:
        raise ValueError("reconstruct needs a model: write --init RUN, a run directory or a file")
    weights = read_asked(config.init, config.model.heads)
    spec = weights.description.autoencoder
    if isinstance(weights.description.model, TokenizerSpec):
        raise CheckpointError(
            f"{config.init} is a tokenizer, which draws no masked patches: give a pre-training run, "
            f"such as one with --target.kind tokens --target.tokenizer {config.init}"
        )
    if spec is None:
        raise CheckpointError(
            f"{config.init} holds an encoder without a decoder, and only a decoder draws: give the "
            f"pre-training run, or a checkpoint that kept its decoder"
        )
    if config.target is None:
        return weights
    retargeted = replace(spec, target=replace(spec.target, kind=config.target))
    return replace(weights, description=replace(weights.description, model=retargeted))
