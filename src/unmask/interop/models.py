"""Models that hold given weights."""

import torch
from torch import Tensor, nn

from unmask.core.mae import Architecture, MaskedAutoencoder, new_encoder
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.description import Head, Weights
from unmask.models.classifier import Classifier

Model = MaskedAutoencoder | VisionTransformer | Classifier
"""With a decoder, an encoder alone, or an encoder with a head."""


def build(weights: Weights) -> Model:
    """The model with these weights: the classifier, the autoencoder, or else the encoder alone.

    An encoder whose final norm stood behind a classifier's pooling has none: its features are the last
    block's. The description is left on the model as `model.description`.
    """
    d, state = weights.description, weights.state
    model: Model
    if d.head is not None:
        model = _new_classifier(d.architecture, d.head)
    elif d.has_decoder:
        model = MaskedAutoencoder(d.architecture)
    else:
        model = new_encoder(d.architecture)
        state = {name.removeprefix("encoder."): value for name, value in state.items()}
        if not weights.has_norm:
            model.norm = nn.Identity()  # type: ignore[assignment]
    load_state(model, state)
    model.description = d  # type: ignore[assignment]
    return model.eval()


def load_state(model: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """Raises CheckpointError where names or shapes differ."""
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
    model.load_state_dict(state)


def _new_classifier(a: Architecture, head: Head) -> Classifier:
    return Classifier(
        new_encoder(a),
        classes=len(head.classes),
        pool=head.pool,
        normalize_features=head.batch_norm,
    )


def _shape(value: Tensor | None) -> str:
    return "missing" if value is None else " x ".join(map(str, value.shape)) or "a number"
