"""Faults 11 and 12 at each system call: killed, or failed by the disk, below the run directory.

A child process counts its calls that change something below the run directory, and fails at the nth.
"""

import builtins
import errno
import io
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import unmask
from faults.test_kills import assert_same
from faults_support import KILLED, PASSED, in_child
from unmask.config.output import MARKER
from unmask.engine.checkpoint import STEP_NAME, UNFINISHED
from unmask.engine.metrics import JSONL
from unmask.errors import CheckpointError

EVERY = int(os.environ.get("UNMASK_EVERY_CALL", "15"))
"""Of so many calls one fails; UNMASK_EVERY_CALL=1 for all."""

PATHS = (
    "open",
    "mkdir",
    "rmdir",
    "rename",
    "replace",
    "unlink",
    "remove",
    "truncate",
    "link",
    "symlink",
)
MOVES = ("rename", "replace")
DESCRIPTORS = ("write", "fsync", "ftruncate")


class _File(io.FileIO):
    """A file whose writes count."""

    act: Callable[[Any], None]

    def write(self, content: Any) -> int:
        self.act(self.fileno())
        return super().write(content)


@contextmanager
def counted(folder: Path, fail: Callable[[int], None]) -> Iterator[itertools.count]:
    """Calls `fail(n)` before the nth call that changes something in or below a folder."""
    numbers, here = itertools.count(1), os.path.realpath(folder)

    def act(place: Any) -> None:
        if isinstance(place, int):
            place = os.readlink(f"/proc/self/fd/{place}")
        if os.path.abspath(os.fsdecode(place)).startswith(here):
            fail(next(numbers))

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(place: Any, *rest: Any, **named: Any) -> Any:
            changes = original is not os.open or (
                rest and rest[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if changes and isinstance(place, str | bytes | os.PathLike | int):
                act(place)
            return original(place, *rest, **named)

        return call

    def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+") or "t" in mode or "b" not in mode:
            if set(mode) & set("wax+"):
                act(file)
            return original_open(file, mode, *rest, **named)
        act(file)
        raw = _File(file, mode.replace("b", ""), closefd=named.get("closefd", True))
        raw.act = act
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    original_open = builtins.open
    patches = [mock.patch.object(os, name, wrapped(getattr(os, name))) for name in PATHS + DESCRIPTORS]
    patches += [mock.patch.object(module, "open", opened) for module in (builtins, io)]
    for patch in patches:
        patch.start()
    try:
        yield numbers
    finally:
        for patch in patches:
            patch.stop()


def run(config: Any, fail: Callable[[int], None], say: Callable[[int], None] = lambda _: None) -> None:
    with counted(Path(config.out), fail) as numbers:
        unmask.pretrain(config)
    say(next(numbers) - 1)


@pytest.fixture
def short(tiny, tmp_path):
    """Three steps, a checkpoint after each, one of them kept."""
    return replace(
        tiny,
        data=replace(tiny.data, workers=0),
        optim=replace(tiny.optim, steps=3, warmup_steps=1, ema=0.9),
        run=replace(tiny.run, checkpoint_every=1, keep_checkpoints=1, log_every=1),
    )


def number_of_calls(config: Any, place: Path) -> int:
    in_child(
        partial(run, config, lambda n: None, lambda n: (place / "calls").write_text(str(n)) and None)
    )
    return int((place / "calls").read_text())


def kill(at: int, n: int) -> None:
    if n == at:
        os.kill(os.getpid(), signal.SIGKILL)


def break_disk(at: int, number: int, n: int) -> None:
    """From that call on, until the process ends."""
    if n >= at:
        raise OSError(number, os.strerror(number))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("fault", ["kill", "ENOSPC", "EIO"])
def test_11_12_at_each_system_call(short, tmp_path, fault):
    """The same command afterwards ends as a run that nothing happened to."""
    whole = unmask.pretrain(replace(short, out=str(tmp_path / "whole")))
    calls = number_of_calls(replace(short, out=str(tmp_path / "count")), tmp_path)
    assert calls > 50
    offset = {"kill": 0, "ENOSPC": EVERY // 3, "EIO": 2 * EVERY // 3}[fault]
    for at in range(1 + offset, calls + 1, EVERY):
        config = replace(short, out=str(tmp_path / f"run{at}"))
        if fault == "kill":
            assert in_child(partial(run, config, partial(kill, at))) == KILLED, at
        else:
            assert in_child(partial(fails, config, at, getattr(errno, fault))) == PASSED, at
        said = in_child(partial(unmask.pretrain, config))
        assert said == PASSED, f"after {fault} at call {at} of {calls}"
        assert_same(Path(config.out), whole)
        left = [p.name for p in Path(config.out).rglob(".*unfinished*")]
        assert not left, f"after {fault} at call {at} of {calls}: {left}"


@contextmanager
def order_of_calls(folder: Path) -> Iterator[list[str]]:
    """What has a name in or below a folder though it is not whole on the disk: pictures and the
    marker may be written in place.

    A kill loses nothing that was written; a power cut loses what was not synced, in any order. So each
    file is synced after it is written and before it gets its name, and then its folder.
    """
    broken, synced, unsure = list[str](), set[str](), set[str]()
    here, sync, renames = os.path.realpath(folder), os.fsync, {n: getattr(os, n) for n in MOVES}

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.add(path)
        unsure.difference_update([one for one in unsure if os.path.dirname(one) == path])

    def moved(name: str, source: Any, target: Any) -> None:
        one, other = os.path.realpath(source), os.path.abspath(target)
        inside = [str(path) for path in Path(one).rglob("*")] + [one]
        if one.startswith(here) and not Path(other).name.startswith(UNFINISHED):
            broken.extend(f"{path} was not synced" for path in inside if path not in synced)
            also = [path for path in unsure if os.path.dirname(path) == os.path.dirname(other)]
            broken.extend(f"{path} was renamed, and its folder not synced" for path in also)
            unsure.add(other)
        synced.difference_update(inside)
        renames[name](source, target)

    def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if set(mode) & set("wx") and not isinstance(file, int):
            path = Path(os.path.abspath(os.fsdecode(file)))
            aside = path.name == MARKER or any("unfinished" in part for part in path.parts)
            if str(path).startswith(here) and not aside and path.suffix != ".png":
                broken.append(f"{path} was written under its own name")
        return original_open(file, mode, *rest, **named)

    original_open = builtins.open
    patches = [mock.patch.object(os, name, partial(moved, name)) for name in MOVES]
    patches += [mock.patch.object(module, "open", opened) for module in (builtins, io)]
    for patch in (patches := [*patches, mock.patch.object(os, "fsync", fsync)]):
        patch.start()
    try:
        yield broken
    finally:
        for patch in patches:
            patch.stop()
        broken.extend(f"{path} was renamed, and its folder not synced" for path in unsure)


def test_11_what_has_its_name_is_on_the_disk(short):
    """Of a run of three steps with its checkpoints, pages and final model."""
    with order_of_calls(Path(short.out)) as broken:
        unmask.pretrain(short)
    assert not broken, "\n".join(broken)


def test_11_records_are_on_the_disk_before_their_checkpoint(short):
    """As far as they were written: a resumed run counts on those up to its checkpoint."""
    metrics = os.path.realpath(Path(short.out) / JSONL)
    sync, rename, synced, unsynced = os.fsync, os.rename, dict[str, int](), list[int]()

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        synced[os.readlink(f"/proc/self/fd/{descriptor}")] = os.fstat(descriptor).st_size

    def renamed(source: Any, target: Any) -> None:
        if STEP_NAME.fullmatch(Path(target).name):
            unsynced.append(os.path.getsize(metrics) - synced.get(metrics, 0))
        rename(source, target)

    with mock.patch.object(os, "fsync", fsync), mock.patch.object(os, "rename", renamed):
        unmask.pretrain(short)
    assert unsynced == [0, 0, 0]


def test_11_the_models_weights_come_last(short):
    """Their presence means that everything else of the run is there."""
    names, replace_ = list[str](), os.replace

    def replaced(source: Any, target: Any) -> None:
        names.append(Path(target).name)
        replace_(source, target)

    with mock.patch.object(os, "replace", replaced):
        unmask.pretrain(short)
    assert names[-2:] == ["model.json", "model.safetensors"]


def fails(config: Any, at: int, number: int) -> None:
    """One sentence, and what was announced is still whole."""
    with pytest.raises((CheckpointError, OSError)):
        run(config, partial(break_disk, at, number))
