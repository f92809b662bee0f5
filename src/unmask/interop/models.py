"""Models that hold given weights."""

from typing import Any

import torch
from torch import Tensor

from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import DecoderSpec, MAESpec, ModelSpec, ViTSpec
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.description import Weights
from unmask.models.classifier import Classifier
from unmask.models.classifier_spec import ClassifierSpec, EncoderSpec

Model = MaskedAutoencoder | VisionTransformer | Classifier
"""With a decoder, an encoder alone, or an encoder with a head."""


def build(weights: Weights) -> Any:
    """The model with these weights, in evaluation mode, as its spec says: an encoder, say.

    The description is left on the model as `model.description`. Names and shapes are compared before
    anything is allocated. Raises CheckpointError.
    """
    d, state = weights.description, weights.state
    if isinstance(d.model, EncoderSpec):
        state = {name.removeprefix("encoder."): value for name, value in state.items()}
    _check_sizes(d.model, state)
    try:
        # A sketch takes no memory, but a second of imports.
        if _seems_larger(d.model, state):
            with torch.device("meta"):
                check_state(d.model.build(), state)
        model = d.model.build()
    except CheckpointError:
        raise
    except Exception as error:  # hostile values raise almost anything out of a model's construction
        raise CheckpointError(f"the description of these weights fits no model: {error}") from error
    load_state(model, state)
    model.description = d
    return model.eval()


def _check_sizes(model: ModelSpec, state: dict[str, Tensor]) -> None:
    """Raises CheckpointError if a spec is larger than its weights can be.

    A million blocks take gigabytes even as a sketch without values.
    """
    blocks, values = len(state), sum(value.numel() for value in state.values())
    parts = {"": _encoder_of(model) or model, "decoder's ": getattr(model, "decoder", None)}
    for part, dimensions in parts.items():
        for name, most in (("depth", blocks), ("blocks", blocks), ("width", values)):
            size = getattr(dimensions, name, 0)
            if type(size) is not int or not 0 <= size <= most:
                raise CheckpointError(
                    f"these weights have {blocks} tensors of {values} values, and their description "
                    f"says {part}{name} {size}: get a fresh copy of both"
                )


def _encoder_of(model: ModelSpec) -> ViTSpec | None:
    """None if the model stands on none, as a tokenizer."""
    try:
        return model.encoder
    except ValueError:
        return None


def _seems_larger(model: ModelSpec, state: dict[str, Tensor]) -> bool:
    """Whether a model may have more than a few times the values of its weights, roughly.

    True of a model with other parts than blocks, which are not counted here.
    """
    if not isinstance(model, MAESpec | EncoderSpec | ClassifierSpec):
        return True
    e = model.encoder
    stacks: list[ViTSpec | DecoderSpec] = [e]
    rows = e.patches + e.class_tokens + e.values_per_patch
    if isinstance(model, MAESpec):
        stacks.append(model.decoder)
        rows += model.outputs
    size = sum(s.width * (rows + s.depth * s.width * (4 + 2 * s.mlp_ratio)) for s in stacks)
    return size > 100_000_000 + 10 * sum(value.numel() for value in state.values())


def load_state(model: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """Raises CheckpointError if names or shapes differ."""
    check_state(model, state)
    model.load_state_dict(state)


def check_state(model: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """Raises CheckpointError if names or shapes differ from the model's."""
    expected = model.state_dict()
    wrong = [
        f"{name} is {_shape(state.get(name))} and should be {_shape(expected.get(name))}"
        for name in sorted({*expected, *state})
        if _shape(state.get(name)) != _shape(expected.get(name))
    ]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} weights do not fit this architecture, the first: {wrong[0]}; build the "
            f"model with the checkpoint's own dimensions, or choose other weights"
        )


def _shape(value: Tensor | None) -> str:
    return "missing" if value is None else " x ".join(map(str, value.shape)) or "a number"
