"""Files of weights: safetensors, torch's own format without its objects, and JSON beside them."""

import argparse
import hashlib
import io
import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PosixPath
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from unmask.config.io import read_json
from unmask.errors import CheckpointError
from unmask.storage import disk_errors_named, need_space, open_regular, replace_file, sha256_of, unsealed
from unmask.units import data_size

METADATA = {"format": "pt"}
"""Transformers refuses safetensors that do not say so."""
OBJECTS: list[Any] = [argparse.Namespace, PosixPath, (PosixPath, "pathlib._local.PosixPath")]
"""What the official MAE code and its submitit script save beside the weights: the command line, and the
folder of the job, under the name that Python 3.13 gives it too. Both only hold values."""
CONTAINERS = ("model", "state_dict")
"""Entries of a checkpoint that hold its weights."""
LONGEST_HEADER = 2**24
"""Bytes: a model of 100,000 tensors has half of it."""
MOST_PICKLED = 2**24
"""Bytes beside the weights: 40,000 tensors with the optimizer's have less, and as Python's objects they
take up to 100 times as much."""
ARCHIVE = b"PK\3\4"
"""How torch tells an archive; `zipfile` also finds one behind other content."""
PICKLES_OF_OLD_FILES = 5
"""What torch.save wrote before the weights until torch 1.6: one of them is the dictionary."""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and the file's own metadata. Raises CheckpointError."""
    try:
        _check_header(path)
        with _opened(path) as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            return state, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise cannot_be_read(path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """safetensors takes names in UTF-8 only: a file with another is opened here."""
    with open_regular(path) as descriptor:
        is_utf8 = os.fsencode(path).decode("utf-8", "replace") == str(path)
        name = path if is_utf8 else f"/dev/fd/{descriptor}"
        with safe_open(name, framework="pt") as file:
            yield file


def read_metadata(path: Path) -> dict[str, str]:
    """A safetensors file's own metadata, without its tensors. Raises CheckpointError."""
    try:
        _check_header(path)
        with _opened(path) as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise cannot_be_read(path, error) from error


def cannot_be_read(path: Path, error: Exception) -> CheckpointError:
    """The error to raise for a file that is there."""
    if isinstance(error, PermissionError):
        return CheckpointError(
            f"{path} is not yours to read: ask its owner for chmod a+r, and a+x for the folders above it"
        )
    return CheckpointError(f"{path} cannot be read ({error}): get a fresh copy")


def write_safetensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes aside, syncs, then renames: the file is whole or absent. Raises CheckpointError."""
    write_whole(path, safetensors_bytes(state, metadata))


def safetensors_bytes(state: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The content of a file; safetensors' own writing ignores the umask and never syncs."""
    contiguous = {name: value.contiguous() for name, value in state.items()}
    return tensors_to_bytes(contiguous, {**METADATA, **metadata})


def write_whole(path: Path, content: bytes) -> None:
    """A file of a finished model, on the disk when this returns, or nothing. Raises CheckpointError."""
    with disk_errors_named(str(path), path.parent, len(content)):
        need_space(path.parent, len(content), f"{path} needs")
        replace_file(path, content, "model")


def check_sha256(path: Path, checksum: Any, description: Path) -> None:
    """Raises CheckpointError if a file is not the one whose checksum `description` holds."""
    try:
        found = sha256_of(path)
    except OSError as error:
        raise cannot_be_read(path, error) from error
    if found != checksum:
        raise CheckpointError(
            f"{path} is damaged, or another file than the one that {description} describes (its SHA-256 "
            f"differs): restore it from a backup; or remove it and run the command of its run again, "
            f"which writes it again from the last checkpoint"
        )


def sha256_of_bytes(content: bytes) -> str:
    """As `check_sha256` compares it."""
    return hashlib.sha256(content).hexdigest()


def read_pth(path: Path) -> dict[str, Any]:
    """What torch.save wrote, as a dictionary; objects are refused and never unpickled.

    Raises CheckpointError.
    """
    _check_pth(path)
    try:
        # Torch warns of unusual pickles before it refuses them; one sentence is enough.
        with warnings.catch_warnings(), torch.serialization.safe_globals(OBJECTS):
            warnings.simplefilter("ignore")
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        which = f" ({named[1]})" if named else ""
        raise CheckpointError(
            f"{path} holds Python objects{which} or is no checkpoint, and unmask reads weights only: "
            f"save the weights alone, as safetensors, where the file comes from"
        ) from error
    except Exception as error:  # what is no checkpoint raises almost anything out of torch's reader
        if isinstance(error, PermissionError):
            raise cannot_be_read(path, error) from error
        raise CheckpointError(f"{path} cannot be read as a checkpoint: get a fresh copy") from error
    return content if isinstance(content, dict) else {"model": content}


def weights_in(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The state dict of a .pth file: the whole of it, or its entry 'model' or 'state_dict'.

    Raises CheckpointError.
    """
    state = next((content[name] for name in CONTAINERS if name in content), content)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        entries = [name for name, value in content.items() if isinstance(value, dict)]
        others = f" (it has {', '.join(map(str, entries[:4]))})" if entries else ""
        raise CheckpointError(
            f"{path} holds no dictionary of weights, neither at its top nor under 'model' or "
            f"'state_dict'{others}: save the one that is meant under one of these names"
        )
    for name, value in state.items():
        if value.layout != torch.strided or value.nbytes > value.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path} holds {name} as {value.numel()} values that are not all in the file: save "
                f"the weights as dense tensors where the file comes from"
            )
    return {str(name): value for name, value in state.items()}


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no file. Raises CheckpointError."""
    try:
        if not path.exists():
            return {}
        values = read_json(path)
    except OSError as error:
        raise cannot_be_read(path, error) from error
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no names and values: get a fresh copy")
    try:
        return unsealed(values)
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be used ({error}): get a fresh copy") from error


def _check_header(path: Path) -> None:
    """Checks the length of a safetensors header. Raises OSError before it is read into memory."""
    with open_regular(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(LONGEST_HEADER, path.stat().st_size):
        raise OSError(f"its header has {length} bytes")


def _check_pth(path: Path) -> None:
    """Refuses pipes, what is larger unpacked, since torch compresses nothing, and endless objects."""
    try:
        with open_regular(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
            if file.read(len(ARCHIVE)) == ARCHIVE:
                with zipfile.ZipFile(file) as archive:
                    entries = archive.infolist()
                pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
                unpacked, pickled = (sum(e.file_size for e in some) for some in (entries, pickles))
            else:
                unpacked, pickled = 0, _pickled_before_weights(file)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise cannot_be_read(path, error) from error
    if unpacked > path.stat().st_size:
        raise CheckpointError(
            f"{path} is compressed ({unpacked} bytes in {path.stat().st_size}) and torch.save "
            f"compresses nothing: get a fresh copy"
        )
    if pickled > MOST_PICKLED:
        raise CheckpointError(
            f"{path} holds more than {data_size(MOST_PICKLED)} of Python objects beside its weights: "
            f"save the weights alone where the file comes from"
        )


def _pickled_before_weights(file: IO[bytes]) -> int:
    """Bytes; one more than are allowed if they go on after these. Nothing is made of them."""
    file.seek(0)
    start = io.BytesIO(file.read(MOST_PICKLED + 1))
    with suppress(Exception):  # what is no pickle raises almost anything: torch's reader reports it
        for _ in range(PICKLES_OF_OLD_FILES):
            deque(pickletools.genops(start), maxlen=0)
    return start.tell()
