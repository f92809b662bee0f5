"""The sections and the configuration of `unmask tokenizer`."""

from dataclasses import dataclass, field

from unmask.config.commands import TrainingConfig
from unmask.config.fields import setting
from unmask.config.settings import Bands, Cache, Crops, Optim, PlainRun, Reading, Source


@dataclass(frozen=True, kw_only=True)
class TokenizerData(Cache, Reading, Crops, Bands, Source):
    """The images and their crops."""

    size: tuple[int, ...] = (112,)
    """Pixels of the tokenizer's input: as many tokens as pre-training has patches, times the pixels of a
    token (112 for 14 x 14 patches and 8 pixels)."""
    held_out: int | None = None
    """Held-out images, to measure reconstruction. Default: one in twenty, at least 8, at most 256."""


@dataclass(frozen=True, kw_only=True)
class TokenizerModel:
    """The dimensions of the discrete VAE."""

    vocabulary: int = setting(8192, least=2, most=1e6)
    """How many tokens there are."""
    downsampling: int = setting(8, least=1, most=256)
    """Pixels down and across that a token stands for: a power of two."""
    width: int = setting(256, least=4)
    """Channels at full resolution; they double each time that the resolution halves."""
    blocks: int = setting(2, least=1)
    """Residual blocks at each resolution, in either half."""


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """How the choice of tokens is made soft in training (Gumbel-softmax)."""

    temperature: float = setting(1.0, least=1e-3)
    """Temperature of the Gumbel-softmax at the start."""
    last_temperature: float = setting(1 / 16, least=1e-3)
    """Temperature of the Gumbel-softmax at the end: a low one is close to a hard choice."""
    anneal_share: float = setting(0.8, least=1e-3, most=1)
    """Share of the run in which the temperature falls, along a cosine."""
    divergence_weight: float = setting(20.0, least=0)
    """Weight of each choice's divergence from a uniform one at the start; it falls to 0 in the first
    half of the run. It spreads the use of the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(TrainingConfig):
    """A discrete VAE, which turns images into grids of tokens."""

    data: TokenizerData = field(default_factory=TokenizerData)
    model: TokenizerModel = field(default_factory=TokenizerModel)
    relaxation: Relaxation = field(default_factory=Relaxation)
    optim: Optim = field(default_factory=Optim)
    run: PlainRun = field(default_factory=PlainRun)
