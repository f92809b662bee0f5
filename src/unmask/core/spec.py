"""What a model is, as plain records: no torch, JSON both ways. `build()` makes the model.

The registry is open: a module that defines a spec registers it under a tag, which files hold as "type".
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from unmask.core.grid import Size, grid_of, kept_patches
from unmask.core.objective import LossOn, MaskSpec, Strategy, TargetKind, TargetSpec

if TYPE_CHECKING:
    from unmask.core.mae import MaskedAutoencoder
    from unmask.core.vit import VisionTransformer

SIZES = {
    "tiny": {"width": 192, "depth": 12, "heads": 3, "patch": 16},
    "small": {"width": 384, "depth": 12, "heads": 6, "patch": 16},
    "base": {"width": 768, "depth": 12, "heads": 12, "patch": 16},
    "large": {"width": 1024, "depth": 24, "heads": 16, "patch": 16},
    "huge": {"width": 1280, "depth": 32, "heads": 16, "patch": 14},
}
"""The usual ViT dimensions; the paper uses base, large and huge."""


class ModelSpec(Protocol):
    """What every model of ours is described by: it stands on an encoder."""

    @property
    def encoder(self) -> "ViTSpec":
        """Raises ValueError if it stands on none, as a tokenizer."""

    def build(self) -> Any:
        """The model, freshly drawn from torch's global generator."""

    def __hash__(self) -> int: ...


__all__ = [
    "SIZES",
    "SPECS",
    "DecoderSpec",
    "LossOn",
    "MAESpec",
    "MaskSpec",
    "ModelSpec",
    "Size",
    "Strategy",
    "TargetKind",
    "TargetSpec",
    "ViTSpec",
    "grid_of",
    "kept_patches",
    "on_encoder",
    "register",
]

S = TypeVar("S", bound=type)
M = TypeVar("M")
SPECS: dict[str, type] = {}
"""Classes of specs by their tag."""


def register(tag: str) -> Callable[[S], S]:
    """Enters a class of specs under its tag; files say the tag as "type"."""

    def enter(cls: S) -> S:
        SPECS[tag] = cls
        cls.type = tag  # type: ignore[attr-defined]  # beside the fields, so that files hold it
        return cls

    return enter


def on_encoder(model: M, encoder: "ViTSpec") -> M:
    """The same model on another encoder."""
    on_it: M = replace(model, encoder=encoder)  # type: ignore[type-var]  # every spec is a dataclass
    return on_it


@dataclass(frozen=True, kw_only=True)
class ViTSpec:
    """The dimensions of a Vision Transformer."""

    image_size: Size
    patch_size: Size
    channels: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    class_tokens: int = 1

    @property
    def grid(self) -> Size:
        """Patches down and across."""
        return grid_of(self.image_size, self.patch_size)

    @property
    def patches(self) -> int:
        """N, patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def values_per_patch(self) -> int:
        """P, pixels of a patch times channels."""
        return self.patch_size[0] * self.patch_size[1] * self.channels

    def build(self) -> "VisionTransformer":
        """The encoder alone, freshly drawn from torch's global generator."""
        from unmask.core.vit import VisionTransformer

        return VisionTransformer(**vars(self))


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """The dimensions of the decoder (paper, Table 1a and 1b)."""

    width: int = 512
    depth: int = 8
    heads: int = 16
    mlp_ratio: float = 4.0


@register("masked-autoencoder")
@dataclass(frozen=True, kw_only=True)
class MAESpec:
    """Everything that the shape and the objective of a masked autoencoder depend on."""

    encoder: ViTSpec
    decoder: DecoderSpec = DecoderSpec()
    mask: MaskSpec = field(default_factory=MaskSpec)
    target: TargetSpec = field(default_factory=TargetSpec)

    def __post_init__(self) -> None:
        if self.target.kind == "normalized-pixels" and self.encoder.values_per_patch < 2:
            raise ValueError(
                "a patch of one value cannot be normalised by its own standard deviation: choose larger "
                "patches, or the target 'pixels'"
            )
        if self.mask.decode_share < 1 and self.target.loss_on == "all":
            raise ValueError(
                "a loss on all patches needs a prediction of all: choose --mask.decode-share 1, or "
                "--target.loss-on masked"
            )
        self.target.outputs(self.encoder.values_per_patch)

    @property
    def visible(self) -> int:
        """K, patches that the encoder sees."""
        return self.mask.visible(self.encoder.grid)

    @property
    def masked(self) -> int:
        """M, patches that it does not see."""
        return self.encoder.patches - self.visible

    @property
    def predicted(self) -> int:
        """How many of the masked patches the decoder predicts."""
        return self.mask.predicted(self.encoder.grid)

    @property
    def outputs(self) -> int:
        """How many numbers are predicted for a patch."""
        return self.target.outputs(self.encoder.values_per_patch)

    def build(self) -> "MaskedAutoencoder":
        """The autoencoder, freshly drawn from torch's global generator."""
        from unmask.core.mae import MaskedAutoencoder

        return MaskedAutoencoder(self)
