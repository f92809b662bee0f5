"""What a set of weights is: model.json beside model.safetensors."""

from dataclasses import dataclass

from unmask.core.mae import Architecture

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Description:
    """Enough to build the model and to feed it."""

    kind: str = "masked-autoencoder"
    architecture: Architecture
    mean: tuple[float, ...]
    std: tuple[float, ...]
    has_decoder: bool = True
    recipe: str = ""
    data: str = ""
    steps: int = 0
    weights: str = "last step"
    """Whether these are the weights after the last step, or their running average."""
    licence_note: str = ""
    """What the licences of code, data and initial weights say of these weights."""
