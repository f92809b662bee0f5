"""What a model makes of masked images (paper, Fig. 2, 3 and 4).

Legend: B images, C channels, H x W pixels, N patches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from unmask.core.mae import MaskedAutoencoder
from unmask.core.patches import patchify, unpatchify
from unmask.core.targets import Context, patch_statistics
from unmask.evals.reconstruction import Draw, masked_pixels
from unmask.viz.tiles import Display, Sheet, Tile, displayable, draw

MID_GREY, LIGHT_GREY = 128, 208
"""Grey levels of masked patches, and of pixels without data."""

TALLEST = 4
"""Rows of images in a grid before it continues in a second group of columns beside the first."""

BORROWED_STATISTICS = (
    "Un-normalised with each original patch's own mean and standard deviation: "
    "contrast and brightness come from the original."
)


class Views(NamedTuple):
    """A batch of images as a screen shows it."""

    original: UInt8[np.ndarray, "B H W 3"]
    masked: UInt8[np.ndarray, "B H W 3"]
    reconstruction: UInt8[np.ndarray, "B H W 3"]
    pasted: UInt8[np.ndarray, "B H W 3"]


def reconstruction_grid(
    model: MaskedAutoencoder,
    images: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B N"],
    *,
    display: Display,
    mask_ratio: float | None = None,
    title: str = "",
    valid: Bool[Tensor, "B C H W"] | None = None,
    tokens: Draw | None = None,
) -> Image.Image:
    """Draws each image, what the model saw of it, its output, and its output with the visible patches.

    The output is poor where patches were visible: no loss is computed there (paper, Fig. 2).

    Args:
        images: as the model takes them, normalised.
        display: how they are shown.
        noise: what draws the masks, as in the model's forward.
        mask_ratio: the model's own if None.
        title: stands above the picture.
        valid: the pixels that have data; the others are drawn in one light grey.
        tokens: the tokenizer's decoder, if the model predicts tokens.

    Raises ValueError if images, ratio, `display` do not fit the model.
    """
    views = reconstruct(
        model, images, noise, display=display, mask_ratio=mask_ratio, valid=valid, tokens=tokens
    )
    groups = -(-len(images) // TALLEST)
    height = -(-len(images) // groups)
    rows: list[list[Tile | None]] = [[] for _ in range(height)]
    for place in range(groups * height):
        there = place < len(images)
        rows[place % height] += [view[place] if there else None for view in views]
    ratio = model.spec.mask.ratio if mask_ratio is None else mask_ratio
    h, w = model.encoder.grid
    kept = model.spec.mask.visible((h, w), mask_ratio)
    visible = f"{_percent(ratio)} masked, {kept} of {h * w} patches visible."
    return draw(
        Sheet(
            rows=rows,
            headings=("original", "masked", "reconstruction", "with visible patches") * groups,
            title=title,
            footnote=_footnote(model, visible),
            columns_per_group=len(views),
        )
    )


def mask_ratio_strip(
    model: MaskedAutoencoder,
    images: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B N"],
    *,
    display: Display,
    ratios: Sequence[float] = (0.75, 0.80, 0.85, 0.90, 0.95),
    valid: Bool[Tensor, "B C H W"] | None = None,
    tokens: Draw | None = None,
) -> Image.Image:
    """Draws one model's plain output at several mask ratios (paper, Fig. 4): seen above, drawn below.

    One noise draws all masks, so that a higher ratio hides more of the same image. Ratios at
    which nothing would stay visible are left out.

    Raises ValueError if no ratio is left, or images, `display` do not fit the model.
    """
    ratios = [ratio for ratio in ratios if _keeps_some(model, ratio)]
    if not ratios:
        raise ValueError(
            f"at these mask ratios nothing of {model.encoder.grid[0]} x {model.encoder.grid[1]} "
            f"patches stays visible: give a lower ratio"
        )
    at = [
        reconstruct(model, images, noise, display=display, mask_ratio=ratio, valid=valid, tokens=tokens)
        for ratio in ratios
    ]
    rows: list[list[Tile | None]] = []
    for b in range(len(images)):
        rows.append([at[0].original[b], *(views.masked[b] for views in at)])
        rows.append([None, *(views.reconstruction[b] for views in at)])
    return draw(
        Sheet(
            rows=rows,
            headings=[
                "original",
                *(f"{_percent(r)}, {_kept(model, r)} patches visible" for r in ratios),
            ],
            row_labels=("input", "output") * len(images),
            footnote=_footnote(model),
            rows_per_group=2,
        )
    )


@torch.no_grad()
def reconstruct(
    model: MaskedAutoencoder,
    images: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B N"],
    *,
    display: Display,
    mask_ratio: float | None = None,
    valid: Bool[Tensor, "B C H W"] | None = None,
    tokens: Draw | None = None,
) -> Views:
    """The views that the pictures are made of; arguments as in `reconstruction_grid`.

    Normalised-pixel targets are undone with the true mean and standard deviation of every patch.
    """
    device = next(model.parameters()).device
    images, noise = images.to(device), noise.to(device)
    counted = None
    if valid is not None:
        valid = valid.to(device)
        images, counted = images.where(valid, 0), patchify(valid, model.encoder.patch_size)
    statistics = patch_statistics(model.encoder.patchify(images), counted)
    prediction = model.reconstruct(images, noise, mask_ratio).float()
    predicted = model.target.pixels(prediction, Context(statistics, tokens))
    pixels = unpatchify(predicted, model.encoder.image_size, model.encoder.patch_size)

    hidden = masked_pixels(model, model.mask(noise, mask_ratio)).cpu().numpy()[..., None]
    original, output = displayable(images, display), displayable(pixels, display)
    masked = np.where(hidden, np.uint8(MID_GREY), original)
    views = (original, masked, output, np.where(hidden, output, original))
    if valid is None:
        return Views(*views)
    has_data = valid.all(dim=1).cpu().numpy()[..., None]
    return Views(*(np.where(has_data, view, np.uint8(LIGHT_GREY)) for view in views))


def _keeps_some(model: MaskedAutoencoder, ratio: float) -> bool:
    try:
        return _kept(model, ratio) > 0
    except ValueError:
        return False


def _kept(model: MaskedAutoencoder, ratio: float) -> int:
    return model.spec.mask.visible(model.encoder.grid, ratio)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.4g} %"


def _footnote(model: MaskedAutoencoder, *messages: str) -> str:
    return " ".join([*messages, *([BORROWED_STATISTICS] if model.target.needs_statistics else [])])
