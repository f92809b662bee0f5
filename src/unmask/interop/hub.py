"""Folders as the hub holds them: config.json of timm or Hugging Face, and weights, whole or in
shards.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from unmask.errors import CheckpointError
from unmask.interop.description import Weights
from unmask.interop.files import read_pth, read_safetensors, read_settings, weights_in
from unmask.interop.fit import at_size
from unmask.interop.hf import read_hf
from unmask.interop.hf_images import read_preprocessor
from unmask.interop.timm import read_timm

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS, TORCH_WEIGHTS = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"
"""How the name of the file ends that says which shard holds which weight."""
OUR_DESCRIPTION = "model.json"


def hub_config(folder: Path) -> dict[str, Any] | None:
    """config.json if it is timm's or Hugging Face's; our runs have a config.json too."""
    if (folder / OUR_DESCRIPTION).exists() or not (folder / CONFIG).exists():
        return None
    config = read_settings(folder / CONFIG)
    return config if "architecture" in config or "model_type" in config else None


def is_hub_file(name: str) -> bool:
    """Whether a file of this name holds such a folder's weights, or says where they are."""
    return name.removesuffix(INDEX) in (WEIGHTS, TORCH_WEIGHTS)


def read_hub(folder: Path, config: dict[str, Any]) -> Weights:
    """Weights and settings of a folder. Raises CheckpointError with a fix."""
    state, settings = _state(folder), read_settings(folder / PREPROCESSOR)
    try:
        if "model_type" not in config:
            return read_timm(state, config)
        return _as_processed(read_hf(state, config, settings), settings)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} or {PREPROCESSOR} has a value that no model has "
            f"({type(error).__name__}: {error}): get a fresh copy"
        ) from error


def _as_processed(weights: Weights, settings: dict[str, Any]) -> Weights:
    """A classifier for the size of images that its own image processor makes."""
    d, size = weights.description, read_preprocessor(settings).size
    if d.classifier is None or size is None or size == d.encoder.image_size:
        return weights
    if any(side % patch or not side for side, patch in zip(size, d.encoder.patch_size, strict=True)):
        return weights
    weights, (h, w) = at_size(weights, size), size
    note = f"positions are interpolated for images of {h} x {w}, which its image processor makes"
    d = weights.description
    return replace(weights, description=replace(d, notes=(*d.notes, note)))


def _state(folder: Path) -> dict[str, Tensor]:
    for name, read in READERS.items():
        if (folder / name).exists():
            return read(folder / name)
        if (folder / f"{name}{INDEX}").exists():
            return _read_shards(folder / f"{name}{INDEX}", read)
    raise CheckpointError(
        f"{folder} holds no {WEIGHTS}, {TORCH_WEIGHTS} or {WEIGHTS}{INDEX}: get a fresh copy of it"
    )


def _read_shards(index: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    """All weights that the index names. Raises CheckpointError if one is missing, or elsewhere."""
    places = read_settings(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise CheckpointError(f"{index} does not say which file holds which weight: get a fresh copy")
    state = dict[str, Tensor]()
    for file in sorted(set(places.values())):
        if PurePosixPath(file).name != file:
            raise CheckpointError(f"{index} names {file!r}, which is not beside it: get a fresh copy")
        if not (index.parent / file).exists():
            raise CheckpointError(f"{index.parent} lacks {file}, which {index.name} names: get it too")
        state |= read(index.parent / file)
    if missing := sorted(set(places) - set(state)):
        raise CheckpointError(
            f"{index.parent} lacks {len(missing)} weights that {index.name} names, the first is "
            f"{missing[0]}: get a fresh copy"
        )
    return state


def _read_torch(path: Path) -> dict[str, Tensor]:
    return weights_in(read_pth(path), path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    return read_safetensors(path)[0]


READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    WEIGHTS: _read_safetensors,
    TORCH_WEIGHTS: _read_torch,
}
