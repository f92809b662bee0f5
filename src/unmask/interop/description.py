"""What a set of weights is: model.json beside model.safetensors, or the entry `unmask` elsewhere."""

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from unmask.config.io import from_dict
from unmask.config.plan import PixelType
from unmask.core.mae import Architecture
from unmask.errors import CheckpointError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OUR_ENTRY = "unmask"
"""Where files of other layouts hold our description: as JSON text, or as JSON within their own."""
UNKNOWN_LICENCE = "of unknown origin: look up the licence of the checkpoint"
AUTOENCODER, CLASSIFIER = "masked-autoencoder", "classifier"
HEAD_LEFT_OUT = "the classification head was left out"
NORM_LEFT_OUT = "the final norm, which stood behind the pooling, was left out"


@dataclass(frozen=True, kw_only=True)
class Head:
    """A linear classifier on the encoder."""

    classes: tuple[str, ...]
    """Names, in the order of the outputs."""
    pool: Literal["class", "mean"]
    batch_norm: bool = False
    """Whether features are normalised before it: the linear probe's."""
    eval_crop: float = 1.0
    """Share of an image's side that evaluation crops."""
    precision: Literal["bf16", "fp32"] = "fp32"
    """Of the matrix multiplications in its training and evaluation."""

    def __post_init__(self) -> None:
        if self.pool not in ("class", "mean"):
            raise ValueError(f"a head pools 'class' or 'mean', not {self.pool!r}")


@dataclass(frozen=True, kw_only=True)
class Description:
    """Enough to build the model and to feed it."""

    kind: str = AUTOENCODER
    architecture: Architecture
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Per channel; on the scale 0 to 1 where pixels are uint8 or other integers of up to 16 bits."""
    pixel_type: PixelType = "uint8"
    """What images were decoded as."""
    display: tuple[int, ...] | None = None
    """Bands shown as red, green and blue, counted from 1."""
    has_decoder: bool = True
    head: Head | None = None
    """Where the model is a classifier: its weights are the encoder's, `fc_norm`'s and `head`'s."""
    recipe: str = ""
    data: str = ""
    steps: int = 0
    weights: str = "last step"
    """Whether these are the weights after the last step, or their running average."""
    licence_note: str = ""
    """What the licences of code, data and initial weights say of these weights."""
    notes: tuple[str, ...] = ()
    """What was left out or changed when another library's weights were read."""


@dataclass(frozen=True)
class Weights:
    """A state dict under our names, and what it is."""

    state: dict[str, Tensor]
    description: Description

    @property
    def has_norm(self) -> bool:
        """Whether a norm ends the encoder; a mean-pooled classifier's stands behind the pooling."""
        return any(name.startswith("encoder.norm.") for name in self.state)

    def encoder_only(self) -> "Weights":
        """The encoder without its decoder or head; what went with the head is in the notes."""
        state = {name: v for name, v in self.state.items() if name.startswith("encoder.")}
        d = replace(self.description, has_decoder=False)
        if d.head is None:
            return Weights(state, d)
        left_out = (HEAD_LEFT_OUT,) if self.has_norm else (HEAD_LEFT_OUT, NORM_LEFT_OUT)
        return Weights(state, replace(d, kind=AUTOENCODER, head=None, notes=(*d.notes, *left_out)))


def parse_description(values: Any, origin: object) -> Description:
    """From JSON, as text or as read. Raises CheckpointError that names `origin`."""
    try:
        values = json.loads(values) if isinstance(values, str) else values
        architecture = from_dict(Architecture, values["architecture"])
        head = None if values.get("head") is None else from_dict(Head, values["head"])
        return from_dict(Description, {**values, "architecture": architecture, "head": head})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{origin} does not describe a model: {error}") from error


def foreign_description(
    architecture: Architecture,
    *,
    has_decoder: bool,
    head: Head | None = None,
    statistics: tuple[Any, Any] | None = None,
    licence_note: str = UNKNOWN_LICENCE,
    notes: tuple[str, ...] = (),
    recorded: Any = None,
) -> Description:
    """Of weights that another library wrote.

    Args:
        architecture: as read from the other library's own settings.
        has_decoder: whether the weights have one.
        head: what the weights have of a classifier.
        statistics: mean and deviation per channel; ImageNet's, or 0.5 and 0.25, where there are none
            for these channels.
        licence_note: what is known of their licence.
        notes: what reading left out or changed.
        recorded: our own description, where the file holds one; used if it is of such an encoder.
    """
    channels = architecture.channels
    kind = CLASSIFIER if head else AUTOENCODER
    if recorded is not None:
        ours = parse_description(recorded, f"the entry '{OUR_ENTRY}'")
        if _encoder(ours.architecture) == _encoder(architecture):
            if head and ours.head and _outputs(ours.head) == _outputs(head):
                head = ours.head
            notes = (*ours.notes, *notes)
            return replace(ours, kind=kind, has_decoder=has_decoder, head=head, notes=notes)
    if statistics is None or not all(_one_each(values, channels) for values in statistics):
        usual = channels == len(IMAGENET_MEAN)
        statistics = (IMAGENET_MEAN, IMAGENET_STD) if usual else ((0.5,) * channels, (0.25,) * channels)
    mean, std = (tuple(map(float, values)) for values in statistics)
    return Description(
        kind=kind,
        architecture=architecture,
        mean=mean,
        std=std,
        has_decoder=has_decoder,
        head=head,
        licence_note=licence_note,
        notes=notes,
    )


def _one_each(values: Any, channels: int) -> bool:
    return isinstance(values, list | tuple) and len(values) == channels


def _encoder(a: Architecture) -> tuple[object, ...]:
    return a.image_size, a.patch_size, a.channels, a.width, a.depth, a.heads, a.class_tokens


def _outputs(head: Head) -> tuple[object, ...]:
    return head.classes, head.pool, head.batch_norm
