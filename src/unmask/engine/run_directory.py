"""One run, one folder: who may write there, what is in it, and whether it goes on."""

import fcntl
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unmask.config.io import read_json, to_json
from unmask.engine.checkpoint import steps_in
from unmask.errors import CheckpointError

HARMLESS = (
    "recipe",
    "out",
    "data.source",
    "data.other",
    "data.workers",
    "data.cache_gib",
    "data.max_bad_share",
    "optim.micro_batch",
    "probe.data",
    "probe.val",
    "probe.label_column",
    "probe.images",
    "probe.every",
    "run.device",
    "run.compile",
    "run.activation_checkpointing",
    "run.evaluate_every",
    "run.sample_every",
    "run.checkpoint_every",
    "run.keep_checkpoints",
)
"""Settings that may change when a run is resumed: they do not change what is learned."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def model(self) -> Path:
        """Its presence means that the run is finished."""
        return self.path / "model.safetensors"

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to resume; before that, settings may still be mended."""
        return bool(steps_in(self.checkpoints))

    def write(self, name: str, content: str | bytes) -> None:
        """Writes a small file whole: aside, then renamed."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.unfinished")
        aside.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)
        os.replace(aside, target)

    def read(self, name: str) -> Any:
        """A JSON file of the run, or None where it is not there."""
        path = self.path / name
        return read_json(path) if path.exists() else None


@contextmanager
def opened(path: Path, config: Any) -> Iterator[RunDirectory]:
    """A run directory for `config`: new, or an earlier one that goes on.

    Holds a lock that the operating system releases when the process ends, however it ends.
    Raises CheckpointError where the folder is no run, another run's, in use, or of other settings.
    """
    run = RunDirectory(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_settings(run, config)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise CheckpointError(
            f"the run directory {path} cannot be written ({error.strerror}): choose another --out"
        ) from error
    with lock:  # its file stays: another process may already wait on it
        try:
            # Not flock: loader workers would inherit that and outlive a killed run with it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(
                f"another process is writing to {path}: wait for it, or choose another --out"
            ) from error
        run.write("config.json", to_json(config))
        run.write("env.json", to_json(_environment()))
        yield run


def check_settings(run: RunDirectory, config: Any) -> None:
    """Refuses a foreign folder, and a run whose settings would change on resume."""
    earlier = run.read("config.json")
    if earlier is None:
        strangers = sorted(p.name for p in run.path.iterdir() if p.name not in (".lock", ".DS_Store"))
        if strangers:
            raise CheckpointError(
                f"{run.path} is not empty and no run of unmask (it holds {strangers[0]}): "
                f"choose another --out"
            )
        return
    if not run.has_begun and not run.model.exists():
        return
    # A setting that the earlier version did not have was at its default.
    before, now = _flat(asdict(type(config)())) | _flat(earlier), _flat(asdict(config))
    changed = [
        f"--{name.replace('_', '-')} was {before.get(name)} and is {now.get(name)}"
        for name in sorted({*before, *now})
        if _plain(before.get(name)) != _plain(now.get(name)) and name not in HARMLESS
    ]
    if changed:
        raise CheckpointError(
            f"{run.path} holds a run with other settings ({'; '.join(changed)}): give the same "
            f"settings to resume it, or another --out to start anew"
        )


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _environment() -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "unmask": version("unmask"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }
