"""Reading models of any known layout, and writing our own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from unmask.config.image import Bands
from unmask.config.io import to_json
from unmask.config.migrate import migrate_model
from unmask.core.mae import MaskedAutoencoder
from unmask.errors import CheckpointError
from unmask.interop.dall_e import is_dall_e, read_dall_e
from unmask.interop.description import OUR_ENTRY, Description, Weights, parse_description
from unmask.interop.files import (
    cannot_be_read,
    check_sha256,
    read_metadata,
    read_pth,
    read_safetensors,
    read_settings,
    safetensors_bytes,
    sha256_of_bytes,
    weights_in,
    write_whole,
)
from unmask.interop.fit import fit
from unmask.interop.hf import is_hf
from unmask.interop.hub import CONFIG, WEIGHTS, hub_config, is_hub_file, read_hub
from unmask.interop.layouts import DECODER_MARK, find_layout
from unmask.interop.models import Model, build, load_state
from unmask.interop.official import (
    NO_TRAINER,
    Trainer,
    from_official,
    read_official,
    trainer_of,
)
from unmask.interop.timm import read_timm
from unmask.models.classifier_spec import EncoderSpec
from unmask.models.finite import first_not_finite
from unmask.storage import from_json, sealed

DESCRIPTION = "model.json"
CHECKSUM = "sha256"
"""The entry of model.json for the file of weights beside it; model files of earlier versions lack it."""

__all__ = [
    "Model",
    "Weights",
    "build",
    "check_model",
    "initialize_from",
    "load_state",
    "read_asked",
    "read_weights",
    "write_model",
]


def write_model(folder: Path, state: dict[str, Tensor], description: Description) -> None:
    """Writes model.json, then model.safetensors, whose presence means that both are there.

    Both are whole or absent, and model.json holds the checksums of both. Raises CheckpointError.
    """
    content = safetensors_bytes(state, {})
    described = {**from_json(to_json(description)), CHECKSUM: sha256_of_bytes(content)}
    write_whole(folder / DESCRIPTION, to_json(sealed(described)).encode())
    write_whole(folder / WEIGHTS, content)


def check_model(folder: Path) -> None:
    """Raises CheckpointError unless a finished run's model is the one that was written.

    One of an earlier version, without a checksum, only has to be readable.
    """
    checksum = read_settings(folder / DESCRIPTION).get(CHECKSUM)
    if checksum is None:
        read_safetensors(folder / WEIGHTS)
    else:
        check_sha256(folder / WEIGHTS, checksum, folder / DESCRIPTION)


def model_type(source: str | Path) -> str:
    """The type of the model of a run directory, of the weights in it, or of another of our files.

    Only descriptions are read; empty if there is none. Raises CheckpointError if it is not readable.
    """
    path = origin = Path(source)
    values, entry = dict[str, Any](), ""
    try:
        run = run_folder(source)
        if run is not None:
            origin, values = run / DESCRIPTION, read_settings(run / DESCRIPTION)
        elif path.suffix == ".safetensors" and path.is_file():
            entry = read_metadata(path).get(OUR_ENTRY, "")
    except PermissionError as error:  # of a folder, into which one may not look
        raise cannot_be_read(path, error) from error
    if not values and not entry:
        return ""
    try:
        values = values or from_json(entry)
        values.pop(CHECKSUM, None)
        return str(migrate_model(values)["model"]["type"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{origin} does not describe a model: {error}") from error


def run_folder(source: str | Path) -> Path | None:
    """The folder of a run, named itself or by its model.safetensors; None for any other file.

    A folder counts whether or not it is a run's.
    """
    path = Path(source)
    if path.is_dir():
        return path
    return path.parent if path.name == WEIGHTS and (path.parent / DESCRIPTION).exists() else None


def read_weights(source: str | Path, *, heads: int | None = None) -> Weights:
    """Reads a run directory, a folder of timm or Hugging Face, or a file of weights.

    Files are our safetensors, .pth of the official MAE code, timm's in either format, and what trainers
    make of these (`layouts`); one inside such a folder is read with what lies beside it. Values become
    float32. A classification head is kept; who wants the encoder takes `encoder_only()`.

    Args:
        source: the path.
        heads: attention heads of the encoder, for weights that do not say them; those that do keep
            theirs.

    Raises CheckpointError with a fix; never unpickles objects.
    """
    path = Path(source)
    try:
        if not path.exists():
            raise CheckpointError(f"there is no file or run directory {path}: check the path")
        weights = _read_folder(path, heads) if path.is_dir() else _read_file(path, heads)
    except PermissionError as error:  # of a folder, into which one may not look
        raise cannot_be_read(path, error) from error
    state = {n: v.float() if v.is_floating_point() else v for n, v in weights.state.items()}
    if name := first_not_finite(state):
        raise CheckpointError(
            f"{path} holds weights that are not finite, the first is {name}: its training diverged; "
            f"train it again with a lower --optim.base-lr, or give other weights"
        )
    return Weights(state, weights.description)


def read_asked(source: str | Path, heads: int | None) -> Weights:
    """As `read_weights`; raises CheckpointError if the weights say another number of heads, too."""
    weights = read_weights(source, heads=heads)
    if heads is not None and (says := weights.description.encoder.heads) != heads:
        raise CheckpointError(
            f"{source} says that its encoder has {says} attention heads, and --model.heads {heads} is "
            f"for weights that do not say it: leave it out"
        )
    return weights


def initialize_from(
    model: MaskedAutoencoder, weights: Weights, source: str, display: Bands | None = None
) -> str:
    """Copies weights into a model that is about to be trained; returns what was done, in a sentence.

    Positions, patches and channels are fitted to the model's, and a decoder that does not fit stays
    new; a classification head is left out. `display` names the bands that are red, green and blue.
    Raises CheckpointError if the encoder is another one.
    """
    if not weights.description.autoencoder:
        weights = weights.encoder_only()
    state, changes = fit(weights, model.spec, display)
    has_decoder = any(name.startswith("decoder.") for name in state)
    if not has_decoder:
        fresh = {n: v for n, v in model.state_dict().items() if not n.startswith("encoder.")}
        state = {**{n: v for n, v in state.items() if n.startswith("encoder.")}, **fresh}
    load_state(model, state)
    start = "encoder and decoder start" if has_decoder else "the encoder starts"
    return "; ".join([f"{start} from {source}", *changes, *weights.description.notes])


def _read_file(path: Path, heads: int | None) -> Weights:
    folder = path.parent
    is_ours = path.name == WEIGHTS and (folder / DESCRIPTION).exists()
    if is_ours or (is_hub_file(path.name) and hub_config(folder)):
        return _read_folder(folder, heads)
    if path.suffix == ".safetensors":
        state, metadata = read_safetensors(path)
        if OUR_ENTRY in metadata:
            return _recorded(state, metadata[OUR_ENTRY], path)
        return _described(state, path, NO_TRAINER, heads)
    content = read_pth(path)
    state = weights_in(content, path)
    if OUR_ENTRY in content:
        return _recorded(from_official(state), content[OUR_ENTRY], path)
    return _described(state, path, trainer_of(content), heads)


def _read_folder(folder: Path, heads: int | None) -> Weights:
    if (folder / DESCRIPTION).exists() and (folder / WEIGHTS).exists():
        return _read_ours(folder)
    if (config := hub_config(folder)) is not None:
        return read_hub(folder, config)
    if (folder / WEIGHTS).exists():
        return _read_file(folder / WEIGHTS, heads)
    unfinished = (folder / CONFIG).exists()
    hint = (
        "its run is not finished: run its command again to resume it"
        if unfinished
        else "give a run directory, or a file of weights"
    )
    raise CheckpointError(f"{folder} holds no {WEIGHTS}; {hint}")


def _read_ours(folder: Path) -> Weights:
    settings = read_settings(folder / DESCRIPTION)
    if (checksum := settings.pop(CHECKSUM, None)) is not None:
        check_sha256(folder / WEIGHTS, checksum, folder / DESCRIPTION)
    return _recorded(read_safetensors(folder / WEIGHTS)[0], settings, folder / DESCRIPTION)


def _recorded(state: dict[str, Tensor], entry: Any, origin: Path) -> Weights:
    """Weights with our description; format 1 left it to them whether an encoder ends in a norm."""
    weights = Weights(state, parse_description(entry, origin))
    if not isinstance(model := weights.description.model, EncoderSpec):
        return weights
    model = replace(model, final_norm=weights.has_norm)
    return replace(weights, description=replace(weights.description, model=model))


def _described(state: dict[str, Tensor], path: Path, trainer: Trainer, heads: int | None) -> Weights:
    """Weights without a description: those of the official MAE code, or of timm, whose encoder is the
    same, as they are or as a trainer wrapped them; or DALL-E's tokenizer."""
    if is_dall_e(state):
        return read_dall_e(state)
    if is_hf(state):
        raise CheckpointError(
            f"{path} has Hugging Face's names, and only their config.json says what the weights are: "
            f"give the folder that holds both"
        )
    found = find_layout(state)
    if DECODER_MARK in found.state:
        weights = read_official(found.state, trainer, heads=heads)
    else:
        weights = read_timm(found.state, trainer=trainer, heads=heads)
    d = weights.description
    return replace(weights, description=replace(d, notes=(*found.notes, *d.notes)))
