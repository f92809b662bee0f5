"""Checkpoints that are whole or absent: written aside, synced, verified, renamed.

A checkpoint is a folder `step-00001234` of safetensors files and `state.json`, which names the
format and the checksum of each file. Nothing is pickled.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from unmask.engine.ema import WeightAverage
from unmask.errors import CheckpointError

FORMAT_VERSION = 1
STEP_NAME = re.compile(r"step-(\d{8,})")
UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the loop needs to go on after `step` steps."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    """By file: model, optimizer, average."""
    loop: dict[str, Any]
    """Sums that the next log entry averages, and counters; plain JSON."""


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes a checkpoint below `folder`, then removes all but the newest `keep`.

    The older ones go only when the new one is on the disk and reads back as it was written.
    Raises CheckpointError where the disk is too small.
    """
    files = {f"{name}.safetensors": t for name, t in checkpoint.tensors.items() if t}
    _check_space(folder, sum(v.nbytes for tensors in files.values() for v in tensors.values()))
    aside = folder / f"{UNFINISHED}{checkpoint.step:08d}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    checksums = {name: _write(aside / name, tensors_to_bytes(t)) for name, t in files.items()}
    state = {
        "format": FORMAT_VERSION,
        "step": checkpoint.step,
        "loop": checkpoint.loop,
        "sha256": checksums,
    }
    _write(aside / "state.json", json.dumps(state, indent=2).encode())
    _sync_folder(aside)
    final = folder / f"step-{checkpoint.step:08d}"
    shutil.rmtree(final, ignore_errors=True)
    os.rename(aside, final)
    _sync_folder(folder)
    for _, old in steps_in(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def load_newest(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there never was one.

    Says which broken ones it passes over. Raises CheckpointError where all are broken.
    """
    for orphan in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(orphan)
        say(f"removed {orphan.name}, which a stop left half written")
    found = steps_in(folder)
    for _, path in reversed(found):
        try:
            return read(path)
        except CheckpointError as error:
            say(f"passing over a broken checkpoint: {error}")
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {folder} is whole: restore one from a backup, "
            f"or start anew with another --out"
        )
    return None


def read(path: Path) -> Checkpoint:
    """Raises CheckpointError unless every file is as it was written."""
    try:
        state = json.loads((path / "state.json").read_text())
        version = state["format"]
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format {version} and this unmask reads up to {FORMAT_VERSION}: "
                f"install the newer version that wrote it"
            )
        tensors = {
            Path(name).stem: _read_tensors(path / name, checksum)
            for name, checksum in state["sha256"].items()
        }
        return Checkpoint(state["step"], tensors, state["loop"])
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def steps_in(folder: Path) -> list[tuple[int, Path]]:
    """Finished checkpoints by rising step."""
    if not folder.is_dir():
        return []
    matches = ((STEP_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state, keyed by parameter name and state name."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"{names[p]}:{key}": value.detach().contiguous()
        for p, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`."""
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        name, key = full_name.rsplit(":", 1)
        parameter = parameters[name]
        on_device = key != "step" or parameter.device.type == "cuda"
        optimizer.state[parameter][key] = value.to(parameter.device if on_device else "cpu")


def collect(
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    loop: dict[str, Any],
) -> Checkpoint:
    """A checkpoint of a run as it stands."""
    tensors = {
        "model": {name: value.contiguous() for name, value in model.state_dict().items()},
        "optimizer": optimizer_tensors(optimizer, model),
        "average": average.weights if average else {},
    }
    return Checkpoint(step, tensors, loop)


def _write(path: Path, content: bytes) -> str:
    """Writes, syncs and reads back; returns the SHA-256."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    checksum = hashlib.sha256(content).hexdigest()
    if _sha256(path.read_bytes()) != checksum:
        raise CheckpointError(f"{path} does not read back as it was written: check the disk")
    return checksum


def _read_tensors(path: Path, checksum: str) -> dict[str, Tensor]:
    content = path.read_bytes()
    if _sha256(content) != checksum:
        raise CheckpointError(f"{path} does not match its checksum")
    return tensors_from_bytes(content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_space(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05 + 2**20:
        raise CheckpointError(
            f"a checkpoint needs {needed / 2**20:.0f} MiB and the disk of {folder} has "
            f"{free / 2**20:.0f} MiB free: make room, and run the same command again to resume"
        )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
