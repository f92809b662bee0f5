"""What a set of weights is: model.json beside model.safetensors, or the entry `unmask` elsewhere."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from unmask.config.image import Floats, ImageSpec
from unmask.config.io import from_dict
from unmask.config.migrate import MODEL_FORMAT, migrate_model
from unmask.core.spec import DecoderSpec, MAESpec, ModelSpec, ViTSpec, on_encoder
from unmask.errors import CheckpointError
from unmask.models.classifier_spec import ClassifierSpec, EncoderSpec
from unmask.models.detector_spec import DetectorSpec
from unmask.models.segmenter_spec import SegmenterSpec
from unmask.storage import from_json

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OUR_ENTRY = "unmask"
"""Where files of other layouts hold our description: as JSON text, or as JSON within their own."""
UNKNOWN_LICENCE = "of unknown origin: look up the licence of the checkpoint"
HEAD_LEFT_OUT = "the classification head was left out"
SEGMENTER_LEFT_OUT = "the segmentation head was left out"
DETECTOR_LEFT_OUT = "pyramid and heads of the detector were left out, and the encoder has no final norm"
BIAS_LEFT_OUT = ", nor the relative positions that it learnt with them: train it before it is used"
NORM_LEFT_OUT = "the final norm, which stood behind the pooling, was left out"


@dataclass(frozen=True, kw_only=True)
class Description:
    """Enough to build the model and to feed it."""

    format: int = MODEL_FORMAT
    model: ModelSpec
    image: ImageSpec
    precision: Literal["bf16", "fp32"] = "fp32"
    """Precision of the matrix multiplications in the evaluation of its run."""
    recipe: str = ""
    data: str = ""
    steps: int = 0
    weights: str = "last step"
    """Whether these are the weights after the last step, or their EMA."""
    licence_note: str = ""
    """What the licences of code, data and initial weights say of these weights."""
    notes: tuple[str, ...] = ()
    """What was left out or changed when another library's weights were read."""

    @property
    def encoder(self) -> ViTSpec:
        """The encoder's dimensions, whatever stands on it."""
        return self.model.encoder

    @property
    def autoencoder(self) -> MAESpec | None:
        """The model's spec if it is a masked autoencoder."""
        return self.model if isinstance(self.model, MAESpec) else None

    @property
    def classifier(self) -> ClassifierSpec | None:
        """The model's spec if it is a classifier."""
        return self.model if isinstance(self.model, ClassifierSpec) else None


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
        """The encoder without its decoder or head; what went with the head is in the notes.

        Raises CheckpointError if the encoder was given parts by its head that it cannot do without.
        """
        is_detector = isinstance(self.description.model, DetectorSpec)
        if not is_detector and any(
            ".ls1." in name or name.startswith("relative_position.") for name in self.state
        ):
            raise CheckpointError(
                "the encoder got relative positions or layer scale in its training with a head, and is "
                "none without them: give the run or the file that this training started from"
            )
        state = {name: v for name, v in self.state.items() if name.startswith("encoder.")}
        d = self.description
        model = EncoderSpec(encoder=d.encoder, final_norm=self.has_norm)
        if isinstance(d.model, DetectorSpec):
            bias = "" if d.model.relative_position == "none" else BIAS_LEFT_OUT
            left_out = (*d.notes, f"{DETECTOR_LEFT_OUT}{bias}")
            return Weights(state, replace(d, model=model, notes=left_out))
        if isinstance(d.model, SegmenterSpec):
            return Weights(state, replace(d, model=model, notes=(*d.notes, SEGMENTER_LEFT_OUT)))
        if d.classifier is None:
            return Weights(state, replace(d, model=model))
        left_out = (HEAD_LEFT_OUT,) if self.has_norm else (HEAD_LEFT_OUT, NORM_LEFT_OUT)
        image = replace(d.image, eval_crop=1.0)
        return Weights(state, replace(d, model=model, image=image, notes=(*d.notes, *left_out)))


def parse_description(values: Any, origin: object) -> Description:
    """From JSON, as text or as read; earlier formats are migrated.

    Raises CheckpointError that names `origin`.
    """
    try:
        values = from_json(values) if isinstance(values, str) else values
        return from_dict(Description, migrate_model(values))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{origin} does not describe a model: {error}") from error


def foreign_description(
    model: ModelSpec,
    *,
    statistics: tuple[Any, Any] | None = None,
    eval_crop: float = 1.0,
    licence_note: str = UNKNOWN_LICENCE,
    notes: tuple[str, ...] = (),
    of_input: tuple[str, ...] = (),
    recorded: Any = None,
) -> Description:
    """Description of weights that another library wrote.

    Args:
        model: as read from the other library's own settings.
        statistics: mean and standard deviation per channel; ImageNet's, or 0.5 and 0.25, if there are
            none for these channels.
        eval_crop: share of the side that evaluation crops.
        licence_note: what is known of their licence.
        notes: what reading left out or changed.
        of_input: notes on images, which our own description makes void.
        recorded: our own description, if the file holds one; used if it is of such an encoder.
    """
    if recorded is not None:
        ours = parse_description(recorded, f"the entry '{OUR_ENTRY}'")
        if _shape(ours.encoder) == _shape(model.encoder):
            ours = ours if _is_ours(ours.model, model) else _with_another_model(ours, model, eval_crop)
            return replace(ours, notes=tuple(dict.fromkeys((*ours.notes, *notes))))
    channels = model.encoder.channels
    mean, std, assumed = _statistics(statistics, channels)
    image = ImageSpec(
        size=model.encoder.image_size, channels=channels, mean=mean, std=std, eval_crop=eval_crop
    )
    notes = (*notes, *of_input, *assumed)
    return Description(model=model, image=image, licence_note=licence_note, notes=notes)


def _statistics(given: tuple[Any, Any] | None, channels: int) -> tuple[Floats, Floats, tuple[str, ...]]:
    """Mean and standard deviation, with a note if they are assumed."""
    notes: tuple[str, ...] = ()
    if given is None or not all(_one_each(values, channels) for values in given):
        usual = channels == len(IMAGENET_MEAN)
        given = (IMAGENET_MEAN, IMAGENET_STD) if usual else ((0.5,) * channels, (0.25,) * channels)
        what = "ImageNet's mean and standard deviation" if usual else "mean 0.5, standard deviation 0.25"
        notes = (f"{what} are assumed, since no file says them",)
    mean, std = (tuple(map(float, values)) for values in given)
    return mean, std, notes


def _one_each(values: Any, channels: int) -> bool:
    return isinstance(values, list | tuple) and len(values) == channels


def _is_ours(ours: ModelSpec, theirs: ModelSpec) -> bool:
    """Whether our record is of this model on the same encoder; it may say more of it."""
    if isinstance(ours, MAESpec) and isinstance(theirs, MAESpec):
        return _blocks(ours.decoder) == _blocks(theirs.decoder)
    return ours == on_encoder(theirs, ours.encoder)


def _with_another_model(ours: Description, model: ModelSpec, eval_crop: float) -> Description:
    """Our record of an encoder on which someone else has put another decoder or head, or none."""
    image = replace(ours.image, eval_crop=eval_crop)
    precision = "fp32" if isinstance(model, ClassifierSpec) else ours.precision
    return replace(ours, model=on_encoder(model, ours.encoder), image=image, precision=precision)


def _shape(e: ViTSpec) -> tuple[object, ...]:
    return e.image_size, e.patch_size, e.channels, e.class_tokens, *_blocks(e)


def _blocks(one: ViTSpec | DecoderSpec) -> tuple[object, ...]:
    """MLPs by their width: other ratios may give the same, since the product is truncated."""
    return one.width, one.depth, one.heads, int(one.width * one.mlp_ratio)
