"""How well a model fills in images that it was not trained on, against the smoothest filling.

Legend: n held-out images, B images of a batch, C channels, H x W pixels, N patches, M masked,
P values per patch.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unmask.core.mae import MaskedAutoencoder
from unmask.core.masking import Mask, take
from unmask.core.patches import patchify, unpatchify
from unmask.core.spec import MaskSpec, Size
from unmask.core.targets import Context, PatchStatistics, patch_statistics
from unmask.evals.harmonic import harmonic_fill

Draw = Callable[[Int[Tensor, "B N"]], Float[Tensor, "B N P"]]
"""A tokenizer's decoder, as `Context` takes it."""


class HeldOutReconstruction:
    """Mean squared error on the masked pixels of fixed images under fixed masks.

    Below a ratio of 1 the model draws better than harmonic interpolation, which knows nothing
    about images but that they are smooth. Models with normalised-pixel targets get the mean and
    standard deviation of masked patches from their visible neighbours, never from the answer, and
    predicted coefficients and tokens are turned into pixels, so that errors of all targets compare.

    Args:
        images: held-out images, normalised as the model takes them.
        noise: one value per patch of the model; what it is drawn from is the mask strategy.
        mask_ratio: the share that is masked, whatever the model was trained with; None for its own.
        batch_size: images per forward.
        valid: the pixels that count, if not all do.
        draw: the tokenizer's decoder, if the model predicts tokens.

    Raises ValueError if images and noise do not pair up.
    """

    def __init__(
        self,
        images: Float[Tensor, "n C H W"],
        noise: Float[Tensor, "n N"],
        *,
        mask_ratio: float | None = 0.75,
        batch_size: int = 32,
        valid: Bool[Tensor, "n C H W"] | None = None,
        draw: Draw | None = None,
    ):
        if not 0 < len(images) == len(noise):
            raise ValueError(
                f"held-out reconstruction got {len(images)} images and {len(noise)} rows of noise: "
                f"give at least one image, and one row for each"
            )
        self.images = images if valid is None else images.where(valid, 0)
        self.noise, self.valid, self.draw = noise, valid, draw
        self.mask_ratio, self.batch_size = mask_ratio, batch_size
        self._harmonic_errors: dict[tuple[Size, MaskSpec], tuple[float, int]] = {}

    def run(self, model: MaskedAutoencoder) -> Iterator[tuple[str, float]]:
        """Yields held_out/error, held_out/harmonic_error and held_out/ratio, the one over the other.

        Errors are squared, in normalised pixel values. Batches go to the model's device.

        Raises ValueError if the model does not take these images or this mask ratio.
        """
        yield from held_out_scores(self.totals(model))

    def totals(self, model: MaskedAutoencoder) -> Float[Tensor, "3"]:
        """Sums in double precision: squared errors, those of harmonic fill, and how many values.

        Sums over parts of the images add up to those over all.
        """
        (error, values), (harmonic, _) = self._error(model), self._harmonic_error(model)
        return torch.tensor([error, harmonic, values], dtype=torch.float64)

    def _error(self, model: MaskedAutoencoder) -> tuple[float, int]:
        def draw(images: Tensor, noise: Tensor, mask: Mask, valid: Tensor | None) -> Tensor:
            prediction = model.reconstruct(images, noise, self.mask_ratio).float()
            statistics = (
                interpolated_statistics(model, images, mask, valid)
                if model.target.needs_statistics
                else None
            )
            return model.target.pixels(prediction, Context(statistics, self.draw))

        return self._summed_error(model, draw)

    def _harmonic_error(self, model: MaskedAutoencoder) -> tuple[float, int]:
        """Computed once for every shape of mask: it depends on the model in nothing else."""

        def fill(images: Tensor, noise: Tensor, mask: Mask, valid: Tensor | None) -> Tensor:
            return model.encoder.patchify(harmonic_fill(images, _known(model, mask, valid)))

        shape = (model.encoder.patch_size, model.spec.mask)
        if shape not in self._harmonic_errors:
            self._harmonic_errors[shape] = self._summed_error(model, fill)
        return self._harmonic_errors[shape]

    @torch.no_grad()
    def _summed_error(
        self, model: MaskedAutoencoder, fill: Callable[[Tensor, Tensor, Mask, Tensor | None], Tensor]
    ) -> tuple[float, int]:
        """Sum over all masked values that count, and their number; `fill` returns all patches
        [B, N, P] of a batch."""
        device = next(model.parameters()).device
        squared, values = 0.0, 0
        for i in range(0, len(self.images), self.batch_size):
            part = slice(i, i + self.batch_size)
            images, noise = self.images[part].to(device), self.noise[part].to(device)
            valid = None if self.valid is None else self.valid[part].to(device)
            mask = model.mask(noise, self.mask_ratio)
            difference = fill(images, noise, mask, valid) - model.encoder.patchify(images)
            counted = take(difference, mask.masked)
            if valid is not None:
                counted = counted[take(patchify(valid, model.encoder.patch_size), mask.masked)]
            squared += counted.square().sum().item()
            values += counted.numel()
        return squared, values


def held_out_scores(totals: Float[Tensor, "3"]) -> Iterator[tuple[str, float]]:
    """The scores that these sums, as `HeldOutReconstruction.totals` gives them, come to."""
    squared, of_harmonic, values = totals.tolist()
    if not values:  # of images without data
        return
    error, harmonic = squared / values, of_harmonic / values
    yield "held_out/error", error
    yield "held_out/harmonic_error", harmonic
    yield "held_out/ratio", error / harmonic if harmonic else math.inf


def interpolated_statistics(
    model: MaskedAutoencoder,
    images: Float[Tensor, "B C H W"],
    mask: Mask,
    valid: Bool[Tensor, "B C H W"] | None = None,
) -> PatchStatistics:
    """Mean and standard deviation of all N patches [B, N, 1], from the visible patches only.

    Masked patches get the harmonic interpolation, over the grid of patches, of the means and of
    the logarithms of the standard deviations of visible ones, so that nothing of the answer leaks.
    """
    counted = None if valid is None else patchify(valid, model.encoder.patch_size)
    mean, std = patch_statistics(model.encoder.patchify(images), counted)
    grids = torch.cat([mean, std.log()], dim=2).mT.unflatten(2, model.encoder.grid)
    known = ~mask.is_masked
    if counted is not None:
        known = _or_all_of(known & counted.any(dim=2), known)
    filled = harmonic_fill(grids, known.unflatten(1, model.encoder.grid)).flatten(2).mT
    return PatchStatistics(filled[..., :1], filled[..., 1:].exp())


def _known(model: MaskedAutoencoder, mask: Mask, valid: Tensor | None) -> Bool[Tensor, "B H W"]:
    """Pixels to interpolate between: visible, and with data in all channels."""
    visible = ~masked_pixels(model, mask)
    return visible if valid is None else _or_all_of(visible & valid.all(dim=1), visible)


def _or_all_of(known: Bool[Tensor, "B *N"], visible: Bool[Tensor, "B *N"]) -> Bool[Tensor, "B *N"]:
    """Pixels to fill from: the known ones, or the visible ones if an image has none known."""
    found = known.flatten(1).any(dim=1).view(-1, *[1] * (known.ndim - 1))
    return torch.where(found, known, visible)


def masked_pixels(model: MaskedAutoencoder, mask: Mask) -> Bool[Tensor, "B H W"]:
    """True where a pixel lies in a masked patch."""
    p, q = model.encoder.patch_size
    per_patch = mask.is_masked[..., None].expand(-1, -1, p * q)
    return unpatchify(per_patch, model.encoder.image_size, (p, q))[:, 0]
