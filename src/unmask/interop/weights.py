"""Reading and writing models: our runs, and the reference's .pth files."""

import argparse
import json
import pickle
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmask.config.io import from_dict, read_json, to_json
from unmask.core.mae import Architecture, MaskedAutoencoder
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.description import IMAGENET_MEAN, IMAGENET_STD, Description
from unmask.interop.official import from_official, infer_architecture, to_official

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
OUR_ENTRY = "unmask"
"""Beside 'model' in the .pth files that we write: the description, as JSON text."""


@dataclass(frozen=True)
class Weights:
    """A state dict under our names, and what it is."""

    state: dict[str, Tensor]
    description: Description


def write_model(folder: Path, state: dict[str, Tensor], description: Description) -> None:
    """Writes model.json, then model.safetensors, whose presence means that both are there."""
    (folder / DESCRIPTION).write_text(to_json(description), encoding="utf-8")
    aside = folder / f".{WEIGHTS}.unfinished"
    save_file({name: value.contiguous() for name, value in state.items()}, aside)
    aside.replace(folder / WEIGHTS)


def write_official(path: Path, weights: Weights) -> None:
    """Writes the reference's layout; its own loader reads the result.

    Raises CheckpointError where that layout cannot hold the model.
    """
    a = weights.description.architecture
    if a.class_tokens != 1:
        raise CheckpointError(
            f"the reference's layout holds one class token and this model has {a.class_tokens}: "
            f"share the run's {WEIGHTS} instead"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"model": to_official(weights.state), OUR_ENTRY: to_json(weights.description)}
    torch.save(entry, path)


def read_weights(source: str | Path) -> Weights:
    """Reads a run directory, its model.safetensors, or a .pth file of the reference.

    Raises CheckpointError with the mend; never unpickles objects.
    """
    path = Path(source)
    if path.is_dir():
        return _read_run(path)
    if not path.exists():
        raise CheckpointError(f"there is no file or run directory {path}: check the path")
    if path.suffix == ".safetensors":
        return _read_run(path.parent) if path.name == WEIGHTS else _described(_safetensors(path))
    return _read_pth(path)


def build(weights: Weights) -> MaskedAutoencoder | VisionTransformer:
    """The model with these weights; the encoder alone where there is no decoder.

    The description is left on the model as `model.description`.
    """
    mae = MaskedAutoencoder(weights.description.architecture)
    if weights.description.has_decoder:
        load_state(mae, weights.state)
        model: MaskedAutoencoder | VisionTransformer = mae
    else:
        model = mae.encoder
        load_state(model, {n.removeprefix("encoder."): v for n, v in weights.state.items()})
    model.description = weights.description  # type: ignore[assignment]
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


def initialize_from(model: MaskedAutoencoder, weights: Weights, source: str) -> str:
    """Copies weights into a model that is about to be trained; returns what was done, in a sentence."""
    if not weights.description.has_decoder:
        load_state(model.encoder, {n.removeprefix("encoder."): v for n, v in weights.state.items()})
        return f"the encoder starts from {source}; the decoder, which it does not have, is new"
    load_state(model, weights.state)
    return f"encoder and decoder start from {source}"


def _read_run(folder: Path) -> Weights:
    if not (folder / WEIGHTS).exists():
        hint = (
            "its run is not finished: run its command again to resume it"
            if (folder / "config.json").exists()
            else "give a run directory, or a file of weights"
        )
        raise CheckpointError(f"{folder} holds no {WEIGHTS}; {hint}")
    state = _safetensors(folder / WEIGHTS)
    if not (folder / DESCRIPTION).exists():
        return _described(state)
    try:
        return Weights(state, _description(read_json(folder / DESCRIPTION)))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION} does not describe a model: {error}") from error


def _read_pth(path: Path) -> Weights:
    try:
        # The reference saves its command line beside the weights; a Namespace only holds values.
        # Torch warns of unusual pickles before it refuses them; one sentence is enough.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds Python objects or is no checkpoint, and unmask reads weights only: save "
            f"the weights alone, as safetensors, where the file comes from"
        ) from error
    except Exception as error:  # what is no checkpoint raises almost anything out of torch's reader
        raise CheckpointError(f"{path} cannot be read as a checkpoint: get a fresh copy") from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path} holds no dictionary of weights, neither at its top nor under 'model': "
            f"give a checkpoint of the reference, or a run of unmask"
        )
    if OUR_ENTRY in content:
        return Weights(from_official(state), _description(json.loads(content[OUR_ENTRY])))
    return _described(state)


def _described(state: dict[str, Tensor]) -> Weights:
    """Weights without a description, in the reference's layout."""
    description = Description(
        architecture=infer_architecture(state),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        has_decoder="decoder_embed.weight" in state,
        licence_note="of unknown origin; the authors' weights are CC BY-NC 4.0",
    )
    channels = description.architecture.channels
    if channels != len(IMAGENET_MEAN):
        description = replace(description, mean=(0.5,) * channels, std=(0.25,) * channels)
    return Weights(from_official(state), description)


def _description(values: dict[str, Any]) -> Description:
    values = {**values, "architecture": from_dict(Architecture, values["architecture"])}
    return from_dict(Description, values)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): get a fresh copy") from error


def _shape(value: Tensor | None) -> str:
    return "missing" if value is None else " x ".join(map(str, value.shape)) or "a number"
