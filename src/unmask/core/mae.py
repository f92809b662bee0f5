"""Masked Autoencoders Are Scalable Vision Learners (He et al. 2021): the method.

Legend: B images, C channels, H x W pixels, N patches, K visible, M masked, P values per patch.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unmask.core.decoder import Decoder
from unmask.core.masking import Mask, kept_patches, mask_from_noise, take
from unmask.core.patches import Size
from unmask.core.targets import TARGETS, squared_error
from unmask.core.vit import Pool, VisionTransformer

TargetName = Literal["pixels", "normalized-pixels"]
LossOn = Literal["masked", "all"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that the shape and the objective of a masked autoencoder depend on."""

    image_size: Size
    patch_size: Size
    channels: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    class_tokens: int = 1
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float = 0.75
    mask_unit: int = 1
    mask_tokens_in_encoder: bool = False
    """The variant of Table 1c: less accurate, and several times the computation."""
    target: TargetName = "normalized-pixels"
    loss_on: LossOn = "masked"

    def __post_init__(self) -> None:
        if self.target not in get_args(TargetName):
            raise ValueError(
                f"there is no target {self.target!r}: choose one of {', '.join(get_args(TargetName))}"
            )
        if self.loss_on not in get_args(LossOn):
            raise ValueError(f"the loss is on 'masked' or 'all' patches, not on {self.loss_on!r}")
        if self.target == "normalized-pixels" and self.values_per_patch < 2:
            raise ValueError(
                "a patch of one value cannot be normalised by its own deviation: choose larger "
                "patches, or the target 'pixels'"
            )

    @property
    def values_per_patch(self) -> int:
        return self.patch_size[0] * self.patch_size[1] * self.channels


class MAEOutput(NamedTuple):
    """`prediction` holds the masked patches, in ascending order of patch."""

    loss: Float[Tensor, ""]
    prediction: Float[Tensor, "B M P"]
    is_masked: Bool[Tensor, "B N"]


class MaskedAutoencoder(nn.Module):
    """An asymmetric autoencoder: a large encoder sees a few patches, a small decoder draws the rest.

    Raises ValueError where the architecture does not fit together.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = self.architecture = architecture
        self.encoder = new_encoder(a)
        kept_patches(self.encoder.grid, a.mask_ratio, a.mask_unit)
        self.decoder = Decoder(
            grid=self.encoder.grid,
            encoder_width=a.width,
            values_per_patch=a.values_per_patch,
            width=a.decoder_width,
            depth=a.decoder_depth,
            heads=a.decoder_heads,
            mlp_ratio=a.mlp_ratio,
            class_tokens=a.class_tokens,
            mask_tokens=not a.mask_tokens_in_encoder,
        )
        self.target = TARGETS[a.target]
        self.encoder_mask_token: nn.Parameter | None = None
        if a.mask_tokens_in_encoder:
            self.encoder_mask_token = nn.Parameter(torch.zeros(1, 1, a.width))
            nn.init.normal_(self.encoder_mask_token, std=0.02)

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        *,
        noise: Float[Tensor, "B N"] | None = None,
        target: Float[Tensor, "B N P"] | None = None,
    ) -> MAEOutput:
        """One pre-training forward: mask, encode what is visible, predict what is not.

        Args:
            images: normalised images.
            noise: uniform in [0, 1); the patches with the smallest stay visible. Drawn from
                torch's global generator if None.
            target: what to predict, for all patches, instead of the architecture's own target.
        """
        # Masking: divide the image into patches and keep a random subset.
        patches = self.encoder.patchify(images)
        if noise is None:
            noise = torch.rand(patches.shape[:2], device=patches.device)
        _check_fits("noise", noise, patches)
        mask = self.mask(noise)

        # Encoder: only the visible patches; masked ones are removed before they cost anything.
        latent = self._encode(patches, mask)

        # Decoder: visible patches and mask tokens, each with its position.
        # Reconstruction target: mean squared error, on masked patches only.
        if target is not None:
            _check_fits("target", target, patches)
        if self.architecture.loss_on == "masked":
            prediction = self.decoder(latent, mask)
            wanted = take(patches if target is None else target, mask.masked)
            loss = squared_error(prediction, self.target.encode(wanted) if target is None else wanted)
        else:
            everything = self.decoder.predict_all(latent, mask)
            loss = squared_error(everything, self.target.encode(patches) if target is None else target)
            prediction = take(everything, mask.masked)
        return MAEOutput(loss, prediction, mask.is_masked)

    def reconstruct(
        self,
        images: Float[Tensor, "B C H W"],
        noise: Float[Tensor, "B N"],
        mask_ratio: float | None = None,
    ) -> Float[Tensor, "B N P"]:
        """Predicts all patches, visible ones too, in the target's space.

        `mask_ratio` may differ from the one that the model was trained with (paper, Fig. 4).
        """
        patches = self.encoder.patchify(images)
        _check_fits("noise", noise, patches)
        mask = self.mask(noise, mask_ratio)
        latent = self._encode(patches, mask)
        return self.decoder.predict_all(latent, mask)

    def features(
        self, images: Float[Tensor, "B C H W"], *, pool: Pool = "mean", layer: int | None = None
    ) -> Float[Tensor, "B *N D"]:
        """The encoder's features of whole images; see `VisionTransformer.features`."""
        return self.encoder.features(images, pool=pool, layer=layer)

    def mask(self, noise: Float[Tensor, "B N"], mask_ratio: float | None = None) -> Mask:
        """The mask that this noise draws."""
        a = self.architecture
        ratio = a.mask_ratio if mask_ratio is None else mask_ratio
        return mask_from_noise(noise, self.encoder.grid, ratio, a.mask_unit)

    def _encode(self, patches: Float[Tensor, "B N P"], mask: Mask) -> Float[Tensor, "B T D"]:
        visible = take(patches, mask.visible)
        if self.encoder_mask_token is None:
            return self.encoder.encode(visible, mask.visible)
        # Table 1c's variant: mask tokens take the places of the rest.
        tokens = self.encoder_mask_token.expand(*mask.masked.shape, -1)
        return self.encoder.encode(visible, torch.cat(mask, dim=1), mask_tokens=tokens)


def new_encoder(a: Architecture) -> VisionTransformer:
    """The encoder alone, freshly drawn from torch's global generator."""
    return VisionTransformer(
        image_size=a.image_size,
        patch_size=a.patch_size,
        channels=a.channels,
        width=a.width,
        depth=a.depth,
        heads=a.heads,
        mlp_ratio=a.mlp_ratio,
        class_tokens=a.class_tokens,
    )


def _check_fits(name: str, value: Tensor, patches: Tensor) -> None:
    """Indexing would silently take part of the batch, or of the patches, where sizes differ."""
    if value.shape[:2] != patches.shape[:2]:
        raise ValueError(
            f"{name} is for {value.shape[0]} images of {value.shape[1]} patches and the images are "
            f"{patches.shape[0]} of {patches.shape[1]}: give one row per image and one entry per patch"
        )
