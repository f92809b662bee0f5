"""Spec of a discrete VAE: a record without torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unmask.core.spec import Size, ViTSpec, grid_of, register

if TYPE_CHECKING:
    from unmask.models.tokenizer import Tokenizer

Pixels = Literal["normalized", "logit-laplace"]


@register("tokenizer")
@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """A discrete variational autoencoder (dVAE; Ramesh et al. 2021): images as grids of tokens."""

    image_size: Size | None
    """What it was trained on, which decides its grid; None if it takes any (DALL-E's)."""
    channels: int = 3
    vocabulary: int = 8192
    downsampling: int = 8
    """Pixels down and across that one token stands for: a power of two."""
    width: int = 256
    """Channels at full resolution; they double each time that the resolution halves."""
    blocks: int = 2
    """Residual blocks at each resolution."""
    pixels: Pixels = "normalized"
    """What the decoder draws: normalised values; or, as DALL-E's, the mean and scale of a Laplace
    distribution over the logits of values that were mapped by x -> 0.8 x + 0.1 first."""

    def __post_init__(self) -> None:
        d = self.downsampling
        if d < 1 or d & (d - 1):
            raise ValueError(
                f"a tokenizer halves the resolution again and again, and {d} is no power of two: choose "
                f"--model.downsampling 4, 8 or 16"
            )
        if self.vocabulary < 2:
            raise ValueError("a tokenizer needs at least two tokens: choose --model.vocabulary 512")
        if self.width < 4 or self.width % 4:
            raise ValueError(
                f"--model.width {self.width} is no multiple of four: choose "
                f"{max(4, self.width // 4 * 4)}"
            )
        if self.image_size is not None and any(side % d for side in self.image_size):
            h, w = (max(d, round(side / d) * d) for side in self.image_size)
            raise ValueError(
                f"tokens of {d} x {d} pixels do not tile images of {self.image_size[0]} x "
                f"{self.image_size[1]}: choose --data.size {h} {w}"
            )

    @property
    def grid(self) -> Size | None:
        """Tokens down and across; None if it takes images of any size."""
        if self.image_size is None:
            return None
        return grid_of(self.image_size, (self.downsampling, self.downsampling))

    @property
    def encoder(self) -> ViTSpec:
        """It has none of ours: raises ValueError for who looks for one."""
        raise ValueError(
            "these are the weights of a tokenizer, which has no Vision Transformer: give a run of "
            "unmask pretrain"
        )

    def build(self) -> "Tokenizer":
        """The tokenizer, freshly drawn from torch's global generator."""
        from unmask.models.tokenizer import Tokenizer

        return Tokenizer(self)
