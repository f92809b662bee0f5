"""A trained tokenizer beside an autoencoder: the ids of its patches, and pixels of ids.

Legend: B images, C channels, H x W pixels, N patches, P values per patch.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.config.image import ImageSpec
from unmask.core.patches import patchify
from unmask.core.spec import MAESpec, Size, ViTSpec
from unmask.errors import CheckpointError
from unmask.interop.description import Description, Weights
from unmask.interop.weights import build, read_weights, write_model
from unmask.models.tokenizer import Tokenizer
from unmask.models.tokenizer_spec import TokenizerSpec
from unmask.units import counted

FOLDER = "tokenizer"
"""Folder in a finished pre-training run: the tokenizer that draws its predictions."""


class Tokens:
    """Ids of the patches of normalised images [B, C, H, W] as an autoencoder takes them."""

    def __init__(self, weights: Weights, source: str, image: ImageSpec, encoder: ViTSpec):
        """Raises ValueError if the tokenizer does not suit these images or their patches."""
        self.weights, self.image, self.encoder = weights, image, encoder
        spec = tokenizer_spec(weights.description, source)
        check_fits(spec, weights.description.image, image, encoder.grid)
        self.side, self.own = spec.downsampling, weights.description.image
        self.model: Tokenizer = build(weights).requires_grad_(False)

    @torch.no_grad()
    def ids(self, images: Tensor) -> Tensor:
        """int64 [B, N]: the token of every patch, computed in float32 from the resized images."""
        with torch.autocast(images.device.type, enabled=False):
            pixels = _resized(_scaled(images.float(), self.image), self._size)
            if self.own.dtype == "uint8":
                pixels = pixels.clamp(0, 1)
            return self._on(images.device).ids(_normalized(pixels, self.own)).flatten(1)

    @torch.no_grad()
    def draw(self, ids: Tensor) -> Tensor:
        """float32 [B, N, P]: the normalised patches that these tokens stand for."""
        with torch.autocast(ids.device.type, enabled=False):
            drawn = self._on(ids.device).pixels(ids.unflatten(1, self.encoder.grid))
            pixels = _resized(_scaled(drawn, self.own), self.encoder.image_size)
            return patchify(_normalized(pixels, self.image), self.encoder.patch_size)

    def save(self, run: Path) -> None:
        """Keeps the tokenizer in a run directory, whose pictures need it."""
        (run / FOLDER).mkdir(exist_ok=True)
        write_model(run / FOLDER, self.weights.state, self.weights.description)

    @property
    def _size(self) -> Size:
        return self.encoder.grid[0] * self.side, self.encoder.grid[1] * self.side

    def _on(self, device: torch.device) -> Tokenizer:
        self.model = self.model.to(device)
        return self.model


def read_tokens(source: str, image: ImageSpec, encoder: ViTSpec) -> Tokens:
    """The tokenizer of a run or a file; raises CheckpointError or ValueError if it does not suit."""
    return Tokens(read_weights(source), source, image, encoder)


def tokens_of(init: str | Path, spec: MAESpec, image: ImageSpec) -> Tokens | None:
    """The tokenizer that a pre-training run has kept; None if it predicts no tokens.

    Raises CheckpointError if it is not there.
    """
    if spec.target.kind != "tokens":
        return None
    folder = Path(init) if Path(init).is_dir() else Path(init).parent
    if not (folder / FOLDER).is_dir():
        raise CheckpointError(
            f"{init} predicts tokens, and there is no tokenizer in {folder / FOLDER} that draws them: "
            f"give the directory of the run, or copy the run of unmask tokenizer there"
        )
    return read_tokens(str(folder / FOLDER), image, spec.encoder)


def tokenizer_spec(description: Description, source: str) -> TokenizerSpec:
    """Raises CheckpointError if the weights are of something else."""
    if not isinstance(description.model, TokenizerSpec):
        raise CheckpointError(
            f"{source} is no tokenizer: give a run of unmask tokenizer, or a file with DALL-E's weights"
        )
    return description.model


def check_fits(spec: TokenizerSpec, own: ImageSpec, image: ImageSpec, grid: Size) -> None:
    """Raises ValueError if the tokenizer's grid, channels or type of pixels are not the images'."""
    if spec.grid is not None and spec.grid != grid:
        (h, w), d = grid, spec.downsampling
        raise ValueError(
            f"the tokenizer has a grid of {spec.grid[0]} x {spec.grid[1]} tokens and the model one of "
            f"{h} x {w} patches: train a tokenizer with --data.size {h * d} {w * d}, or choose other "
            f"patches"
        )
    if (spec.channels, own.dtype) != (image.channels, image.dtype):
        raise ValueError(
            f"the tokenizer takes {counted(spec.channels, 'channel')} of {own.dtype} and the images "
            f"have {image.channels} of {image.dtype}: train a tokenizer on these images"
        )


def _scaled(images: Tensor, image: ImageSpec) -> Tensor:
    mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (image.mean, image.std))
    return images * std + mean


def _normalized(pixels: Tensor, image: ImageSpec) -> Tensor:
    mean, std = (pixels.new_tensor(values).view(-1, 1, 1) for values in (image.mean, image.std))
    return (pixels - mean) / std


def _resized(pixels: Tensor, size: Size) -> Tensor:
    if tuple(pixels.shape[2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
