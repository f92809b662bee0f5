"""Files of weights: safetensors, torch's own format without its objects, and JSON beside them."""

import argparse
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unmask.config.io import read_json
from unmask.errors import CheckpointError

METADATA = {"format": "pt"}
"""Transformers refuses safetensors that do not say so."""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and the file's own metadata. Raises CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            return state, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): get a fresh copy") from error


def write_safetensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes aside, then renames: the file is whole or absent."""
    aside = path.with_name(f".{path.name}.unfinished")
    contiguous = {name: value.contiguous() for name, value in state.items()}
    save_file(contiguous, aside, {**METADATA, **metadata})
    aside.replace(path)


def read_pth(path: Path) -> dict[str, Any]:
    """What torch.save wrote, as a dictionary; objects are refused and never unpickled.

    Raises CheckpointError.
    """
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
    return content if isinstance(content, dict) else {"model": content}


def weights_in(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The state dict of a .pth file: the whole of it, or its entry 'model' or 'state_dict'."""
    state = content.get("model", content.get("state_dict", content))
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path} holds no dictionary of weights, neither at its top nor under 'model' or "
            f"'state_dict': give a checkpoint of the reference, of timm, or a run of unmask"
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file. Raises CheckpointError."""
    if not path.exists():
        return {}
    try:
        values = read_json(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no names and values: get a fresh copy")
    return values
