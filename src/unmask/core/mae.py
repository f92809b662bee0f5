"""Masked Autoencoders Are Scalable Vision Learners (He et al. 2021): the method.

Legend: B images, C channels, H x W pixels, N patches, K visible, M masked, Q predicted (usually all M),
P values per patch, V numbers predicted per patch.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from unmask.core.components import PCATarget
from unmask.core.decoder import Decoder
from unmask.core.features import BATCH
from unmask.core.masking import Mask, mask_from_noise, take
from unmask.core.patches import patchify
from unmask.core.spec import MAESpec
from unmask.core.targets import NormalizedPixelTarget, PixelTarget, Target, TokenTarget


class MAEOutput(NamedTuple):
    """`prediction` holds the predicted masked patches, in ascending order of patch."""

    loss: Float[Tensor, ""]
    prediction: Float[Tensor, "B Q V"]
    is_masked: Bool[Tensor, "B N"]
    patches: Float[Tensor, ""] | float
    """How many the loss is a mean over: what weighs it in an average over parts of a batch."""


class MaskedAutoencoder(nn.Module):
    """An asymmetric autoencoder: a large encoder for the visible patches, a small decoder for the rest.

    Raises ValueError if the spec's parts do not fit together.
    """

    def __init__(self, spec: MAESpec):
        super().__init__()
        self.spec, decoder = spec, spec.decoder
        self.encoder = spec.encoder.build()
        spec.mask.visible(self.encoder.grid)  # a ratio that cannot be met is refused here
        self.decoder = Decoder(
            grid=self.encoder.grid,
            encoder_width=spec.encoder.width,
            outputs=spec.outputs,
            width=decoder.width,
            depth=decoder.depth,
            heads=decoder.heads,
            mlp_ratio=decoder.mlp_ratio,
            class_tokens=spec.encoder.class_tokens,
            mask_tokens=not spec.mask.tokens_in_encoder,
        )
        self.target = _target(spec)
        self.encoder_mask_token: nn.Parameter | None = None
        if spec.mask.tokens_in_encoder:
            self.encoder_mask_token = nn.Parameter(torch.zeros(1, 1, spec.encoder.width))
            nn.init.normal_(self.encoder_mask_token, std=0.02)

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        *,
        noise: Float[Tensor, "B N"] | None = None,
        wanted: Shaped[Tensor, "B N *V"] | None = None,
        valid: Bool[Tensor, "B #C H W"] | None = None,
    ) -> MAEOutput:
        """One pre-training forward: mask, encode what is visible, predict what is not.

        Args:
            images: normalised images.
            noise: decides the masks: the patches with the smallest stay visible. Uniform in [0, 1)
                from torch's global generator if None.
            wanted: what to predict of every patch, if the pixels do not say it (token ids, int64
                [B, N]) or something else than the target is to be predicted.
            valid: the pixels that count. The others, which have no data, count as the mean in the
                input and count neither in the loss nor in the statistics of patches.
        """
        # Masking: divide the image into patches and keep a random subset.
        if valid is not None:
            images = images.where(valid, 0)
        patches = self.encoder.patchify(images)
        if noise is None:
            noise = torch.rand(patches.shape[:2], device=patches.device)
        mask = self.mask(noise, partial=True)

        # Encoder: only the visible patches; masked ones are removed before they cost anything.
        latent = self._encode(patches, mask)

        # Decoder: visible patches and mask tokens, each with its position.
        scored = mask.predicted if self.spec.target.loss_on == "masked" else mask.decoded
        prediction = self.decoder(latent, mask, scored.shape[1])

        # Reconstruction target: by default mean squared error, on masked patches only.
        counted = self._counted(valid, images, scored)
        if wanted is None:
            wanted = self.target.wanted(take(patches, scored), counted)
        else:
            _check_fits("wanted", wanted, patches)
            wanted = take(wanted, scored)
        loss, count = self.target.loss(prediction, wanted, counted)
        return MAEOutput(loss, prediction[:, -mask.predicted.shape[1] :], mask.is_masked, count)

    def reconstruct(
        self,
        images: Float[Tensor, "B C H W"],
        noise: Float[Tensor, "B N"],
        mask_ratio: float | None = None,
    ) -> Float[Tensor, "B N V"]:
        """Predicts all patches, visible ones too, in the target's space.

        `mask_ratio` may differ from the one that the model was trained with (paper, Fig. 4).
        """
        mask = self.mask(noise, mask_ratio)
        latent = self._encode(self.encoder.patchify(images), mask)
        return self.decoder.predict_all(latent, mask)

    def features(
        self,
        images: Float[Tensor, "B C H W"],
        *,
        pool: str = "mean",
        layer: int | None = None,
        batch: int = BATCH,
    ) -> Float[Tensor, "B *N D"]:
        """The encoder's features of whole images; see `VisionTransformer.features`."""
        return self.encoder.features(images, pool=pool, layer=layer, batch=batch)

    def mask(
        self, noise: Float[Tensor, "B N"], mask_ratio: float | None = None, *, partial: bool = False
    ) -> Mask:
        """The mask that this noise draws; `partial` if the decoder predicts its share alone."""
        m, grid = self.spec.mask, self.encoder.grid
        kept = m.visible(grid, mask_ratio)
        return mask_from_noise(
            noise, grid, kept, unit=m.unit, predicted=m.predicted(grid) if partial else None
        )

    def _encode(self, patches: Float[Tensor, "B N P"], mask: Mask) -> Float[Tensor, "B T D"]:
        _check_fits("noise", mask.is_masked, patches)
        visible = take(patches, mask.visible)
        if self.encoder_mask_token is None:
            return self.encoder.encode(visible, mask.visible)
        # Table 1c's variant: mask tokens take the places of the rest.
        tokens = self.encoder_mask_token.expand(*mask.predicted.shape, -1)
        return self.encoder.encode(visible, mask.decoded, mask_tokens=tokens)

    def _counted(
        self, valid: Tensor | None, images: Tensor, index: Int[Tensor, "B Q"]
    ) -> Bool[Tensor, "B Q P"] | None:
        """Which values of these patches count; None if all do."""
        if valid is None:
            return None
        return take(patchify(valid.expand_as(images), self.encoder.patch_size), index)


def _target(spec: MAESpec) -> Target:
    if spec.target.kind == "pca":
        return PCATarget(spec.encoder.values_per_patch, spec.outputs)
    others = {"pixels": PixelTarget, "normalized-pixels": NormalizedPixelTarget, "tokens": TokenTarget}
    return others[spec.target.kind](spec.outputs)


def _check_fits(name: str, value: Tensor, patches: Tensor) -> None:
    """Indexing would silently take part of the batch, or of the patches, if sizes differ."""
    if value.shape[:2] != patches.shape[:2]:
        raise ValueError(
            f"{name} is for {value.shape[0]} images of {value.shape[1]} patches and the images are "
            f"{patches.shape[0]} of {patches.shape[1]}: give one row per image and one entry per patch"
        )
