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


def fails(config: Any, at: int, number: int) -> None:
    """One sentence, and what was announced is still whole."""
    with pytest.raises((CheckpointError, OSError)):
        run(config, partial(break_disk, at, number))
