"""Checkpoints that are whole or absent: written aside, synced, verified, renamed.

A checkpoint is a folder `step-00001234` of safetensors files and `state.json`, which names the format
and the checksum of each file; `state.sha256` holds the checksum of `state.json` itself, as sha256sum
writes it. Nothing is pickled. Format 1, without `state.sha256`, is still read.
"""

import errno
import hashlib
import json
import os
import re
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
from unmask.engine.optim import optimizer_tensors
from unmask.errors import CheckpointError
from unmask.faults import fault_point
from unmask.models.finite import first_not_finite
from unmask.storage import (
    ANY_SIZE,
    disk_errors_named,
    entries,
    free_space,
    from_json,
    is_there,
    need_space,
    read_regular,
    remove,
    set_aside,
    sha256_of,
    sync_folder,
    write_synced,
)

FORMAT_VERSION = 2
STEP_NAME = re.compile(r"step-(\d{8,})")
TENSOR_FILE = re.compile(r"[a-z]+\.safetensors")
UNFINISHED = ".unfinished-"
STATE, STATE_CHECKSUM = "state.json", "state.sha256"
WEIGHTS = ("model", "average")
"""The files whose tensors have to be finite."""

Say = Callable[[str], None]


DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.EFBIG)
"""Errors that say what is there instead of a checkpoint's file, not that a disk does not give it."""


class NotOursToJudgeError(CheckpointError):
    """A checkpoint with which nothing is known to be wrong, and which nothing may replace."""


class NewerFormatError(NotOursToJudgeError):
    """One of a later version."""


class UnreadableError(NotOursToJudgeError):
    """One that a disk, or another machine, does not give."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the loop needs to go on after `step` steps."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    """By file: model, optimizer, average."""
    loop: dict[str, Any]
    """Sums that the next log entry averages, and counters; plain JSON."""

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(value.nbytes for tensors in self.tensors.values() for value in tensors.values())


def _anything(_: Checkpoint) -> None:
    """For callers without demands on a checkpoint's `loop`."""


def save(
    folder: Path,
    checkpoint: Checkpoint,
    keep: int,
    say: Say = print,
    every: int | None = None,
    stay: int | None = None,
) -> Path:
    """Writes a checkpoint below `folder`, then removes all but the newest `keep` whole ones.

    Those of each `every` steps are never removed; the one of step `stay` is not as long as the disk has
    room for the next checkpoint.
    The older ones go only when the new one is on the disk and reads back as it was written. Broken ones
    are set aside, and do not count. `folder` is made, but not what it is in.
    Raises CheckpointError if the disk is too small or fails; then nothing has changed.
    """
    needed = int(checkpoint.nbytes * 1.05) + 2**20
    final = folder / step_name(checkpoint.step)
    with disk_errors_named(f"the checkpoint of step {checkpoint.step}", folder, needed):
        folder.mkdir(exist_ok=True)
        if is_there(final) and not _is_whole(final):
            say(f"set aside a broken checkpoint as {set_aside(final).name}")
        if not is_there(final):  # or it is of the same run, and so of the same content
            need_space(folder, needed, f"the checkpoint of step {checkpoint.step} needs")
            _write_whole(folder, checkpoint)
    if stay is not None and free_space(folder) < needed:
        stay = None
    _retain(folder, keep, checkpoint.step, say, every=every, stay=stay)
    return final


def load_newest(
    folder: Path, say: Say, usable: Callable[[Checkpoint], None] = _anything
) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there never was one.

    Broken ones that are newer are renamed to `broken-step-...`, and it says so. `usable` raises
    CheckpointError for a `loop` that does not fit. Raises CheckpointError if all are broken, or if the
    newest is of a later format, or on a disk that does not give it.
    """
    for orphan in folder.glob(f"{UNFINISHED}*"):
        remove(orphan)
        say(f"removed {orphan.name}, which a stop left half written")
    broken: list[tuple[Path, CheckpointError]] = []
    for _, path in reversed(steps_in(folder)):
        try:
            found = read(path)
            usable(found)
        except NotOursToJudgeError:
            raise
        except CheckpointError as error:
            broken.append((path, error))
            continue
        for other, why in broken:
            say(f"skipping a broken checkpoint, set aside as {set_aside(other).name}: {why}")
        return found
    count = len(broken) + len(list(folder.glob("broken-step-*")))
    if count:
        reason = f" (the newest: {broken[0][1]})" if broken else ""
        raise CheckpointError(
            f"none of the {count} checkpoints in {folder} is whole{reason}: restore one from a backup, "
            f"or start a new run with another --out"
        )
    return None


def read(path: Path) -> Checkpoint:
    """Raises CheckpointError unless every file is as it was written, and the weights are finite."""
    fault_point("checkpoint.read")
    try:
        state = _read_state(path)
        tensors = {
            Path(name).stem: _read_tensors(path / name, checksum)
            for name, checksum in state["sha256"].items()
        }
    except CheckpointError:
        raise
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in DAMAGE:
            raise UnreadableError(
                f"{path} cannot be read now ({error.strerror}): give the same command again when it "
                f"can; if it never can, move that folder away to go on from the one before"
            ) from error
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    for part in WEIGHTS:
        if name := first_not_finite(tensors.get(part, {})):
            raise CheckpointError(f"{path} holds weights that are not finite ({name})")
    return Checkpoint(state["step"], tensors, state["loop"])


def step_name(step: int) -> str:
    """Step of a checkpoint's folder."""
    return f"step-{step:08d}"


def steps_in(folder: Path) -> list[tuple[int, Path]]:
    """Finished checkpoints by rising step. Raises OSError if the folder cannot be read."""
    matches = ((STEP_NAME.fullmatch(path.name), path) for path in entries(folder))
    steps = ((int(match[1]), path) for match, path in matches if match)
    return sorted((step, path) for step, path in steps if path.name == step_name(step))


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


def _write_whole(folder: Path, checkpoint: Checkpoint) -> None:
    """Aside, and renamed when all of it is on the disk; what fails leaves nothing behind."""
    aside = folder / f"{UNFINISHED}{checkpoint.step:08d}"
    try:
        _write(aside, checkpoint)
        fault_point("checkpoint.rename")
        os.rename(aside, folder / step_name(checkpoint.step))
    except Exception:
        remove(aside)
        raise
    fault_point("checkpoint.renamed")
    sync_folder(folder)


def _write(aside: Path, checkpoint: Checkpoint) -> None:
    """All files of a checkpoint, synced and read back."""
    remove(aside)
    fault_point("checkpoint.mkdir")
    aside.mkdir()
    checksums = {
        f"{name}.safetensors": write_synced(
            aside / f"{name}.safetensors", tensors_to_bytes(tensors), "checkpoint"
        )
        for name, tensors in checkpoint.tensors.items()
        if tensors
    }
    state = {
        "format": FORMAT_VERSION,
        "step": checkpoint.step,
        "loop": checkpoint.loop,
        "sha256": checksums,
    }
    text = json.dumps(state, indent=2).encode()
    write_synced(aside / STATE, text, "checkpoint")
    write_synced(aside / STATE_CHECKSUM, _checksum_line(text), "checkpoint")
    sync_folder(aside)


def _retain(
    folder: Path, keep: int, newest: int, say: Say, *, every: int | None, stay: int | None
) -> None:
    """Removes what is older than the newest `keep` whole ones; the one of step `newest` is one of them.

    Those of each `every` steps and that of step `stay` are left.

    What cannot be read or removed stays, and does not count: a run does not end for that.
    """
    whole = 0
    for step, path in reversed(steps_in(folder)):
        removed = step != newest and whole >= keep
        if removed and (step == stay or (every and step % every == 0)):
            continue
        try:
            if removed:
                _remove_old(path)
            elif step == newest or _is_whole(path):
                whole += 1
            else:
                say(f"set aside a broken checkpoint as {set_aside(path).name}")
        except OSError as error:
            what = "removed" if removed else "read"
            say(f"{path} cannot be {what} ({error.strerror}): remove it yourself")


def _remove_old(path: Path) -> None:
    """First out of sight: a kill in the midst leaves no broken checkpoint behind, but an orphan."""
    fault_point("checkpoint.remove")
    orphan = path.with_name(f"{UNFINISHED}{path.name}")
    os.rename(path, orphan)
    fault_point("checkpoint.removed")
    remove(orphan)


def _is_whole(path: Path) -> bool:
    """Whether every file has its checksum; a later format counts, since it is not ours to judge.

    Raises OSError if the disk does not give a file.
    """
    try:
        return all(sha256_of(path / name) == x for name, x in _read_state(path)["sha256"].items())
    except NewerFormatError:
        return True
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        return False
    except (ValueError, TypeError):
        return False


def _read_state(path: Path) -> dict[str, Any]:
    """state.json, with every entry of the right type. Raises CheckpointError and what reading raises."""
    content = read_regular(path / STATE)
    has_checksum = is_there(path / STATE_CHECKSUM)
    if has_checksum and read_regular(path / STATE_CHECKSUM) != _checksum_line(content):
        raise CheckpointError(f"{path / STATE} does not match its checksum")
    state = from_json(content)
    version = state.get("format") if isinstance(state, dict) else None
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{path / STATE} names no format")
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path} has format {version} and this unmask reads up to {FORMAT_VERSION}: install the "
            f"newer version that wrote it, or start a new run with another --out"
        )
    if version >= 2 and not has_checksum:
        raise CheckpointError(f"{path / STATE_CHECKSUM} is missing")
    if type(state.get("step")) is not int or step_name(state["step"]) != path.name:
        raise CheckpointError(
            f"{path / STATE} is of step {state.get('step')!r}, which is not its folder's"
        )
    files = state.get("sha256")
    if not isinstance(files, dict) or "model.safetensors" not in files:
        raise CheckpointError(f"{path / STATE} lists no weights")
    if not all(TENSOR_FILE.fullmatch(name) for name in files):
        raise CheckpointError(f"{path / STATE} lists files with names of another kind")
    if not isinstance(state.get("loop"), dict):
        raise CheckpointError(f"{path / STATE} holds no state of the loop")
    return state


def _checksum_line(content: bytes) -> bytes:
    """As `sha256sum -c` takes it."""
    return f"{hashlib.sha256(content).hexdigest()}  {STATE}\n".encode()


def _read_tensors(path: Path, checksum: str) -> dict[str, Tensor]:
    content = read_regular(path, most=ANY_SIZE)
    if hashlib.sha256(content).hexdigest() != checksum:
        raise CheckpointError(f"{path} does not match its checksum")
    return tensors_from_bytes(content)
