"""The settings of `unmask plan`: a run elsewhere, of which nothing is read."""

from dataclasses import dataclass, field

from unmask.config.fields import setting
from unmask.config.settings import (
    Autoencoder,
    Mask,
    Optim,
    Precision,
    Target,
)


@dataclass(frozen=True, kw_only=True)
class PlanData:
    """Image settings that affect the cost."""

    size: tuple[int, ...] = (224,)
    """Pixels of the model's input: one number for a square, or height and width."""
    channels: int | None = setting(None, least=1, most=65_536)
    """Channels per image. Default: 3."""
    repeats: int = setting(1, least=1, most=1e6)
    """Samples per decoded image (Hoffer et al. 2019)."""


@dataclass(frozen=True, kw_only=True)
class PlanRun:
    """Run settings that affect the cost."""

    precision: Precision = "auto"
    """Precision of the matrix multiplications; auto uses bf16 if the device has it."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: far less memory, a third more computation."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """A pre-training run, and where it would run."""

    devices: str = "8xh100"
    """Number and type of devices: 8xh100, 64xa100, l4, ...; cpu or cuda measures this machine."""
    images: int = setting(1_281_167, least=1)
    """Training images; ImageNet-1K has 1281167."""
    utilisation: float | None = None
    """Share of the devices' peak that training reaches. Default: 0.4, or 0.5 of what cpu measures."""
    decode_ms: float = setting(5.0, least=0)
    """Milliseconds of one core per decoded image; a JPEG of 500 x 375 takes about 5."""
    data: PlanData = field(default_factory=PlanData)
    model: Autoencoder = field(default_factory=Autoencoder)
    mask: Mask = field(default_factory=Mask)
    target: Target = field(default_factory=Target)
    optim: Optim = field(default_factory=Optim)
    run: PlanRun = field(default_factory=PlanRun)
