"""How well a model fills in images that it was not trained on, against the smoothest filling.

Legend: n held-out images, B images of a batch, C channels, H x W pixels, N patches, M masked,
P values per patch.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unmask.core import MaskedAutoencoder
from unmask.core.masking import Mask, take
from unmask.core.patches import Size, unpatchify
from unmask.core.targets import PatchStatistics, patch_statistics
from unmask.evals.harmonic import harmonic_fill


class HeldOutReconstruction:
    """Mean squared error on the masked pixels of fixed images under fixed masks.

    Below a ratio of 1 the model draws better than harmonic interpolation, which knows nothing
    about images but that they are smooth. Models with normalised-pixel targets get the mean and
    deviation of masked patches from their visible neighbours, never from the answer, so that
    errors of all targets compare.

    Args:
        images: held-out images, normalised as the model takes them.
        noise: uniform in [0, 1), one value per patch of the model.
        mask_ratio: the share that is masked, whatever the model was trained with.
        batch_size: images per forward.

    Raises ValueError where images and noise do not pair up.
    """

    def __init__(
        self,
        images: Float[Tensor, "n C H W"],
        noise: Float[Tensor, "n N"],
        *,
        mask_ratio: float = 0.75,
        batch_size: int = 32,
    ):
        if not 0 < len(images) == len(noise):
            raise ValueError(
                f"held-out reconstruction got {len(images)} images and {len(noise)} rows of noise: "
                f"give at least one image, and one row for each"
            )
        self.images, self.noise = images, noise
        self.mask_ratio, self.batch_size = mask_ratio, batch_size
        self._harmonic_errors: dict[tuple[Size, int], float] = {}

    def run(self, model: MaskedAutoencoder) -> Iterator[tuple[str, float]]:
        """Yields held_out/error, held_out/harmonic_error and held_out/ratio, the one over the other.

        Errors are squared, in normalised pixel values. Batches go to the model's device.

        Raises ValueError where the model does not take these images or this mask ratio.
        """
        error, harmonic = self._error(model), self._harmonic_error(model)
        yield "held_out/error", error
        yield "held_out/harmonic_error", harmonic
        yield "held_out/ratio", error / harmonic if harmonic else math.inf

    def _error(self, model: MaskedAutoencoder) -> float:
        def draw(images: Tensor, noise: Tensor, mask: Mask) -> Tensor:
            prediction = model.reconstruct(images, noise, self.mask_ratio).float()
            if not model.target.needs_statistics:
                return model.target.decode(prediction)
            return model.target.decode(prediction, interpolated_statistics(model, images, mask))

        return self._pooled_error(model, draw)

    def _harmonic_error(self, model: MaskedAutoencoder) -> float:
        """Computed once for every shape of mask: it depends on the model in nothing else."""

        def interpolate(images: Tensor, noise: Tensor, mask: Mask) -> Tensor:
            return model.encoder.patchify(harmonic_fill(images, ~masked_pixels(model, mask)))

        shape = (model.encoder.patch_size, model.architecture.mask_unit)
        if shape not in self._harmonic_errors:
            self._harmonic_errors[shape] = self._pooled_error(model, interpolate)
        return self._harmonic_errors[shape]

    @torch.no_grad()
    def _pooled_error(
        self, model: MaskedAutoencoder, fill: Callable[[Tensor, Tensor, Mask], Tensor]
    ) -> float:
        """Mean over all masked values of all images; `fill` returns all patches [B, N, P] of a batch."""
        device = next(model.parameters()).device
        squared, values = 0.0, 0
        batches = zip(self.images.split(self.batch_size), self.noise.split(self.batch_size), strict=True)
        for images, noise in batches:
            images, noise = images.to(device), noise.to(device)
            mask = model.mask(noise, self.mask_ratio)
            wanted = take(model.encoder.patchify(images), mask.masked)
            difference = take(fill(images, noise, mask), mask.masked) - wanted
            squared += difference.square().sum().item()
            values += difference.numel()
        return squared / values


def interpolated_statistics(
    model: MaskedAutoencoder, images: Float[Tensor, "B C H W"], mask: Mask
) -> PatchStatistics:
    """Mean and deviation of all N patches [B, N, 1], from the visible patches only.

    Masked patches get the harmonic interpolation, over the grid of patches, of the means and of
    the logarithms of the deviations of visible ones, so that nothing of the answer leaks.
    """
    mean, std = patch_statistics(model.encoder.patchify(images))
    grids = torch.cat([mean, std.log()], dim=2).mT.unflatten(2, model.encoder.grid)
    filled = harmonic_fill(grids, ~mask.is_masked.unflatten(1, model.encoder.grid)).flatten(2).mT
    return PatchStatistics(filled[..., :1], filled[..., 1:].exp())


def masked_pixels(model: MaskedAutoencoder, mask: Mask) -> Bool[Tensor, "B H W"]:
    """True where a pixel lies in a masked patch."""
    p, q = model.encoder.patch_size
    per_patch = mask.is_masked[..., None].expand(-1, -1, p * q)
    return unpatchify(per_patch, model.encoder.image_size, (p, q))[:, 0]
