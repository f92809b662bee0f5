"""One run, one folder: who may write there, what is in it, and whether it goes on."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

from unmask.config.fields import Setting, settings_of
from unmask.config.io import to_json
from unmask.config.migrate import config_record, read_config
from unmask.config.output import MARKER, mark_output
from unmask.engine.checkpoint import steps_in
from unmask.engine.locks import LOCK, folder_errors_named, locked
from unmask.engine.machine import detect_machine
from unmask.errors import CheckpointError
from unmask.faults import fault_point
from unmask.storage import (
    aside_name,
    disk_errors_named,
    from_json,
    open_regular,
    read_regular,
    replace_file,
    size_of,
    unsealed,
)

OWN = (MARKER, LOCK, ".DS_Store", aside_name("config.json"))
"""What a folder may hold and yet be new: a kill in the first second leaves some of them."""
ENVIRONMENT = {
    "threads": "threads",
    "torch": "torch",
    "cpu": "instructions of the processor",
    "device": "device",
    "platform": "system",
}
"""What changes the rounding of sums, by its key in env.json."""
MOST_PARTS = 10**6
T = TypeVar("T")


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run."""

    path: Path
    lock: tuple[int, int] | None = None
    """Device and inode of our lock's file, if we hold it: a removed or replaced folder is noticed."""
    differs: tuple[str, ...] = ()
    """Changes of the environment since the previous part of the run, in words."""
    changed: str = ""
    """What of the image files is, in words."""
    notes: tuple[str, ...] = ()
    """Sentences on files in it that could not be used."""

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
        """Whether there is anything to resume; before that, settings may still be corrected."""
        return bool(steps_in(self.checkpoints))

    def write(self, name: str, content: str | bytes) -> None:
        """Writes a small file whole: aside, synced, then renamed. Raises CheckpointError."""
        self.check_present()
        target, content = self.path / name, _encoded(content)
        with disk_errors_named(str(target), self.path, len(content)):
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, content, "run")

    def append(self, name: str, content: str | bytes) -> None:
        """Adds to a file of lines; `sync` makes it durable. Raises CheckpointError."""
        self.check_present()
        content = _encoded(content)
        with disk_errors_named(str(self.path / name), self.path, len(content)):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with open_regular(self.path / name, flags) as descriptor:
                fault_point("run.append")
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(content)

    def sync(self, name: str) -> None:
        """Makes what was appended to a file durable. Raises CheckpointError."""
        self.check_present()
        with (
            disk_errors_named(str(path := self.path / name), self.path, size_of(path)),
            open_regular(path) as descriptor,
        ):
            os.fsync(descriptor)

    def read(self, name: str) -> Any:
        """A JSON file of the run, or None if it is not there. Raises CheckpointError."""
        path = self.path / name
        try:
            values = from_json(read_regular(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} is not valid JSON ({error}): restore it, or start a new run with another --out"
            ) from error
        try:
            if values is None:
                raise ValueError("it holds nothing")
            return unsealed(values)
        except ValueError as error:
            raise CheckpointError(
                f"{path} cannot be used ({error}): restore it, or start a new run with another --out"
            ) from error

    def asked(self, kind: type[T]) -> T:
        """The configuration in config.json. Raises CheckpointError if it is none of this kind."""
        values = self.read("config.json")
        try:
            return read_config(values, kind)
        except ValueError as error:
            raise CheckpointError(
                f"{self.path / 'config.json'} cannot be used ({error}): restore it, or start a new run "
                f"with another --out"
            ) from error

    def check_present(self) -> None:
        """Raises CheckpointError if the folder was removed, or replaced, since this run locked it."""
        if self.lock is None:
            return
        try:
            found = os.lstat(self.path / LOCK)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self.lock:
            raise CheckpointError(
                f"the run directory {self.path} was removed or replaced while the run went on, and "
                f"nothing more is written there: start a new run, with another --out"
            )


@contextmanager
def opened(path: Path, config: Any, command: str) -> Iterator[RunDirectory]:
    """A run directory for `config`: new, or an earlier one that goes on.

    Holds a lock that the operating system releases when the process ends, however it ends.
    Raises CheckpointError if the folder is no run, another run's, in use, or of other settings.
    """
    run = RunDirectory(path)
    with folder_errors_named(path):
        mark_output(path)
        check_settings(run, config, command)
    with locked(path / LOCK, path) as identity:
        (before, notes), now = environment_of(run), _environment(config)
        run = RunDirectory(path, identity, _differences(before, now), notes=notes)
        run.write("config.json", to_json(config_record(_with_earlier_init(run, config), command)))
        run.write("env.json", to_json(now | _history(before if run.has_begun else None)))
        yield run


def differences(run: RunDirectory, config: Any) -> tuple[str, ...]:
    """What is not as when the run last went on, and rounds otherwise, in words."""
    return _differences(environment_of(run)[0], _environment(config))


def environment_of(run: RunDirectory) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """What env.json says and can be used, None if it is not there; and a sentence on what cannot.

    Nothing but messages depends on it: a damaged one keeps no run from going on.
    """
    path = run.path / "env.json"
    try:
        found = run.read(path.name)
    except CheckpointError:
        found = ()
    if found is None:
        return None, ()
    if not isinstance(found, dict):
        return {}, (f"{path} cannot be read: when and where the run began is not known",)
    usable = {name: value for name, value in found.items() if _is_usable(name, value)}
    odd = sorted(found.keys() - usable.keys())
    return usable, (f"{path} has no usable {', '.join(odd)}: ignored",) if odd else ()


def _is_usable(name: str, value: Any) -> bool:
    if name == "started":
        return _is_time(value)
    if name == "parts":
        return type(value) is int and 0 < value < MOST_PARTS
    if name == "command":
        return isinstance(value, list) and all(isinstance(word, str) for word in value)
    return isinstance(value, str | int)


def _is_time(value: Any) -> bool:
    """Whether it is one with its zone."""
    try:
        return datetime.fromisoformat(value).utcoffset() is not None
    except (TypeError, ValueError):
        return False


def check_settings(run: RunDirectory, config: Any, command: str) -> None:
    """Refuses a foreign folder, and a run whose settings would change on resume."""
    earlier = run.read("config.json")
    if earlier is None:
        strangers = sorted(p.name for p in run.path.iterdir() if p.name not in OWN)
        if strangers:
            raise CheckpointError(
                f"{run.path} is not empty and no run of unmask (it holds {strangers[0]}): "
                f"choose another --out"
            )
        return
    if not isinstance(earlier, dict):
        raise CheckpointError(
            f"{run.path / 'config.json'} holds no settings: restore it, or start a new run with "
            f"another --out"
        )
    if not run.has_begun and not run.model.exists():
        return
    if (other := earlier.get("command", command)) != command:
        raise CheckpointError(f"{run.path} holds a run of unmask {other}: choose another --out")
    changed = [
        f"{now.flag} was {_shown(was.value)} and is {_shown(now.value)}"
        for was, now in zip(settings_of(run.asked(type(config))), settings_of(config), strict=True)
        if not now.may_change and not _same(was, now)
    ]
    if changed:
        raise CheckpointError(
            f"{run.path} holds a run with other settings ({'; '.join(changed)}): give the same "
            f"settings to resume it, or another --out to start a new run"
        )


def _with_earlier_init(run: RunDirectory, config: Any) -> Any:
    """A resumed run says where its weights began, even if it was not told again."""
    if getattr(config, "init", "") is not None:
        return config
    return replace(config, init=(run.read("config.json") or {}).get("init"))


def _same(was: Setting, now: Setting) -> bool:
    """A resumed run has its weights: it need not be told again where they began."""
    return was.value == now.value or (now.name == "init" and now.value is None)


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _environment(config: Any) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "unmask": version("unmask"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": detect_machine(config.run.device).name,
        "command": sys.argv,
    }


def _history(before: dict[str, Any] | None) -> dict[str, Any]:
    """When a run was first started, and how often; not known of a part that an older version wrote."""
    if before is None:
        return {"started": datetime.now().astimezone().isoformat(timespec="seconds"), "parts": 1}
    return {name: before[name] for name in ("started",) if name in before} | {
        "parts": before.get("parts", 1) + 1
    }


def _differences(before: dict[str, Any] | None, now: dict[str, Any]) -> tuple[str, ...]:
    """Differences that change rounding; none if the run is new, or an older version recorded none."""
    if before is None:
        return ()
    return tuple(
        f"{words} {before[key]} then, {now[key]} now"
        for key, words in ENVIRONMENT.items()
        if key in before and before[key] != now[key]
    )


def _encoded(content: str | bytes) -> bytes:
    return content.encode("utf-8", "replace") if isinstance(content, str) else content
