"""Reading models of any known layout, and writing our own."""

from pathlib import Path
from typing import Any

from torch import Tensor

from unmask.config.io import to_json
from unmask.core.mae import MaskedAutoencoder
from unmask.errors import CheckpointError
from unmask.interop.description import OUR_ENTRY, Description, Weights, parse_description
from unmask.interop.files import read_pth, read_safetensors, read_settings, weights_in, write_safetensors
from unmask.interop.fit import fit
from unmask.interop.hf import is_hf, read_hf
from unmask.interop.models import Model, build, load_state
from unmask.interop.official import from_official, read_official
from unmask.interop.timm import read_timm

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
CONFIG, PREPROCESSOR, TORCH_WEIGHTS = "config.json", "preprocessor_config.json", "pytorch_model.bin"
"""Of folders as the hub holds them."""

__all__ = ["Model", "Weights", "build", "initialize_from", "load_state", "read_weights", "write_model"]


def write_model(folder: Path, state: dict[str, Tensor], description: Description) -> None:
    """Writes model.json, then model.safetensors, whose presence means that both are there."""
    (folder / DESCRIPTION).write_text(to_json(description), encoding="utf-8")
    write_safetensors(folder / WEIGHTS, state, {})


def read_weights(source: str | Path) -> Weights:
    """Reads a run directory, a folder of timm or Hugging Face, or a file of weights.

    Files are our safetensors, the reference's .pth, and timm's in either format; one inside such a
    folder is read with what lies beside it. Values become float32. A classification head is kept;
    who wants the encoder takes `encoder_only()`.
    Raises CheckpointError with the mend; never unpickles objects.
    """
    path = Path(source)
    if not path.exists():
        raise CheckpointError(f"there is no file or run directory {path}: check the path")
    weights = _read_folder(path) if path.is_dir() else _read_file(path)
    state = {n: v.float() if v.is_floating_point() else v for n, v in weights.state.items()}
    return Weights(state, weights.description)


def initialize_from(model: MaskedAutoencoder, weights: Weights, source: str) -> str:
    """Copies weights into a model that is about to be trained; returns what was done, in a sentence.

    Positions, patches and channels are fitted to the model's, and a decoder that does not fit stays
    new; a classification head is left out. Raises CheckpointError where the encoder is another one.
    """
    if weights.description.head:
        weights = weights.encoder_only()
    state, changes = fit(weights, model.architecture)
    has_decoder = any(name.startswith("decoder.") for name in state)
    if not has_decoder:
        fresh = {n: v for n, v in model.state_dict().items() if not n.startswith("encoder.")}
        state = {**fresh, **state}
    load_state(model, state)
    start = "encoder and decoder start" if has_decoder else "the encoder starts"
    return "; ".join([f"{start} from {source}", *changes, *weights.description.notes])


def _read_file(path: Path) -> Weights:
    if path.name in (WEIGHTS, TORCH_WEIGHTS) and (
        (path.parent / DESCRIPTION).exists() or _hub_config(path.parent)
    ):
        return _read_folder(path.parent)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = read_pth(path)
    state = weights_in(content, path)
    if OUR_ENTRY in content:
        return Weights(from_official(state), parse_description(content[OUR_ENTRY], path))
    return _described(state, path)


def _read_safetensors(path: Path) -> Weights:
    state, metadata = read_safetensors(path)
    if OUR_ENTRY in metadata:
        return Weights(state, parse_description(metadata[OUR_ENTRY], path))
    return _described(state, path)


def _read_folder(folder: Path) -> Weights:
    config = _hub_config(folder)
    names = [WEIGHTS, TORCH_WEIGHTS] if config else [WEIGHTS]
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        unfinished = (folder / CONFIG).exists() and not config
        hint = (
            "its run is not finished: run its command again to resume it"
            if unfinished
            else "give a run directory, or a file of weights"
        )
        raise CheckpointError(f"{folder} holds no {WEIGHTS}; {hint}")
    if config is None and not (folder / DESCRIPTION).exists():
        return _read_safetensors(path)
    if config is None:
        description = parse_description(read_settings(folder / DESCRIPTION), folder / DESCRIPTION)
        return Weights(_state(path), description)
    if "model_type" in config:
        return read_hf(_state(path), config, read_settings(folder / PREPROCESSOR))
    return read_timm(_state(path), config)


def _hub_config(folder: Path) -> dict[str, Any] | None:
    """config.json where it is timm's or Hugging Face's; our runs have a config.json too."""
    if (folder / DESCRIPTION).exists() or not (folder / CONFIG).exists():
        return None
    config = read_settings(folder / CONFIG)
    return config if "architecture" in config or "model_type" in config else None


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    return weights_in(read_pth(path), path)


def _described(state: dict[str, Tensor], path: Path) -> Weights:
    """Weights without a description: the reference's, or timm's, whose encoder is the same."""
    if is_hf(state):
        raise CheckpointError(
            f"{path} has Hugging Face's names, and only their config.json says what the weights are: "
            f"give the folder that holds both"
        )
    return read_official(state) if "decoder_embed.weight" in state else read_timm(state)
