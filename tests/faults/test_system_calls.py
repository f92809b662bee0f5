"""Faults 11 and 12 at each system call that changes something below the run directory, by the kernel."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from matplotlib.figure import Figure
from PIL import Image

from faults.every_task import TASKS, EveryTask
from faults.test_kills import assert_same
from faults_calls import CALLS, GO_ON, KILL, READS, Call, watched
from faults_support import KILLED, PASSED, in_child
from unmask.config.output import MARKER
from unmask.engine.checkpoint import STEP_NAME, UNFINISHED, steps_in
from unmask.engine.metrics import JSONL
from unmask.errors import CheckpointError, DataError

pytestmark = pytest.mark.synced

EVERY = int(os.environ.get("UNMASK_EVERY_CALL", "101"))
"""Of so many faults one is tried; UNMASK_EVERY_CALL=1 for all."""
TIMED = ("train.log", "env.json", "metrics.jsonl", "metrics.csv", "report.html")
"""What holds times, and so is never twice the same."""


class Fault(NamedTuple):
    """What happens at a call."""

    fate: int
    lasts: bool = False
    """Whether it happens at all later calls, too."""


FAULTS = {
    "kill": Fault(KILL),
    "a disk that is full": Fault(errno.ENOSPC, lasts=True),
    "a disk that fails once": Fault(errno.EIO),
    "a disk that is full for a moment": Fault(errno.ENOSPC),
    "a disk that is broken": Fault(errno.EIO, lasts=True),
}
READ_FAULTS = {
    "a disk that fails once": Fault(errno.EIO),
    "a disk that is broken": Fault(errno.EIO, lasts=True),
}


@pytest.fixture
def short(request, tiny, scratch, tmp_path, monkeypatch) -> Callable[[Path], Path]:
    """Three steps with a checkpoint after each, one of them kept; empty pictures, which are fast."""
    task = request.node.callspec.params["task"]
    command, config = EveryTask(tiny, scratch, tmp_path).run_of(task, 3)
    monkeypatch.setattr(Figure, "draw", lambda *_: None)
    monkeypatch.setattr(Image.Image, "save", lambda _, file, **__: file.write(b"picture"))
    often = {"checkpoint_every": 1, "log_every": 1, "evaluate_every": 3, "sample_every": 3}
    config = replace(
        config,
        optim=replace(config.optim, warmup_steps=1),
        run=replace(config.run, keep_checkpoints=1, **often),
    )
    return lambda folder: command(replace(config, out=str(folder)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("task", TASKS)
def test_11_12_at_each_system_call(short, task, tmp_path):
    """The same command afterwards ends as a run that nothing happened to."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    calls, ended = list[Call](), set[frozenset]()
    run = partial(short, folder)
    assert watched(run, folder, lambda call: calls.append(call) or GO_ON) == PASSED
    folder.rename(whole)
    assert len(calls) > 100
    for at, fault in list(product(range(len(calls)), FAULTS))[::EVERY]:
        print(f"{fault} at call {at} of {len(calls)}, {calls[at]}")
        fails_at(run, folder, at, FAULTS[fault])
        if (left := content_of(folder)) not in ended:
            newest = newest_step(folder)
            assert in_child(run) == PASSED
            assert_ends_as(folder, whole, newest)
            ended.add(left)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("task", TASKS)
def test_12_a_resume_from_a_disk_that_does_not_read(short, task, tmp_path):
    """What cannot be read is neither damaged nor absent: nothing is set aside, nothing begins anew."""
    folder, begun, whole = tmp_path / "run", tmp_path / "begun", tmp_path / "whole"
    run, calls = partial(short, folder), list[Call]()
    run().rename(whole)
    assert in_child(run, "checkpoint.remove:kill") == KILLED
    shutil.copytree(folder, begun)
    assert watched(run, folder, lambda call: calls.append(call) or GO_ON, READS) == PASSED
    assert len(calls) > 100
    ended = set[frozenset]()
    for at, fault in list(product(range(len(calls)), READ_FAULTS))[::EVERY]:
        print(f"{fault} at call {at} of {len(calls)}, {calls[at]}")
        shutil.rmtree(folder)
        shutil.copytree(begun, folder)
        fails_at(run, folder, at, READ_FAULTS[fault], READS)
        newest = newest_step(folder)
        assert newest >= 2
        if (left := content_of(folder)) not in ended:
            assert in_child(run) == PASSED
            assert_ends_as(folder, whole, newest)
            ended.add(left)


def fails_at(
    run: Callable[[], Path],
    folder: Path,
    at: int,
    fault: Fault,
    calls: dict[int, tuple[str, str]] = CALLS,
) -> None:
    """Killed, or ended by one sentence if at all; no checkpoint that was there is lost."""
    made, there = 0, 0

    def decide(_: Call) -> int:
        nonlocal made, there
        there = max(there, newest_step(folder))
        made += 1
        return fault.fate if made - 1 == at or (fault.lasts and made > at) else GO_ON

    code = watched(partial(ends_in_a_sentence, run), folder, decide, calls)
    killed = fault.fate == KILL and made > at  # a message may depend on the time
    assert code == (KILLED if killed else PASSED)
    assert newest_step(folder) >= there


def ends_in_a_sentence(run: Callable[[], Path]) -> None:
    """The errors of which the command line makes one."""
    with suppress(CheckpointError, DataError, OSError):
        run()


def assert_ends_as(run: Path, whole: Path, newest: int) -> None:
    """After the step `newest`, with the same files in the end."""
    assert_same(run, whole)
    log = (run / "train.log").read_text()
    assert newest in (0, 3) or f"resuming exactly after step {newest} of 3" in log
    if "remove it yourself" not in log:
        assert names_in(run) == names_in(whole)


def newest_step(run: Path) -> int:
    return max((step for step, _ in steps_in(run / "checkpoints")), default=0)


def names_in(run: Path) -> set[Path]:
    """But for a picture that each part of a run draws once."""
    return {path.relative_to(run) for path in run.rglob("*") if not path.name.startswith("statistics")}


def content_of(run: Path) -> frozenset[tuple[Path, bytes | int | None]]:
    """All files, those that hold times by their number of lines: what is the same ends as the same."""

    def content(path: Path) -> bytes | int | None:
        if path.is_dir():
            return None
        read = path.read_bytes()
        return read.count(b"\n") if path.name in TIMED else read

    return frozenset((path.relative_to(run), content(path)) for path in run.rglob("*"))


class Order:
    """What has a name in or below a folder though it is not whole on the disk: the marker may be written
    in place.

    A kill loses nothing that was written; a power cut loses what was not synced, in any order. So each
    file is synced after it is written and before it gets its name, and then its folder; and the records
    are synced before the checkpoint that counts on them gets its name.
    """

    def __init__(self) -> None:
        self.broken, self.renamed = list[str](), list[str]()
        self._synced, self._unsure, self._added = set[str](), set[str](), set[str]()

    def look(self, call: Call) -> int:
        """Before it is carried out; it is."""
        if call.name == "fsync":
            self._sync(*call.paths)
        elif call.name == "write":
            self._added.update(path for path in call.paths if Path(path).name == JSONL)
        elif call.name.startswith("rename"):
            self._rename(*call.paths)
        elif call.flags & (os.O_TRUNC | os.O_EXCL) and call.name == "openat":
            self._open(Path(*call.paths))
        return GO_ON

    def end(self) -> list[str]:
        """All that was found."""
        return self.broken + [f"{path} was renamed, and its folder not synced" for path in self._unsure]

    def _sync(self, path: str) -> None:
        self._synced.add(path)
        self._added.discard(path)
        self._unsure -= {one for one in self._unsure if os.path.dirname(one) == path}

    def _rename(self, source: str, target: str) -> None:
        inside = [str(path) for path in Path(source).rglob("*")] + [source]
        if not Path(target).name.startswith(UNFINISHED):
            self.broken += [f"{path} was not synced" for path in inside if path not in self._synced]
            also = [one for one in self._unsure if os.path.dirname(one) == os.path.dirname(target)]
            self.broken += [f"{path} was renamed, and its folder not synced" for path in also]
            if STEP_NAME.fullmatch(Path(target).name):
                self.broken += [f"{path} was not synced before {target}" for path in self._added]
            self._unsure.add(target)
            self.renamed.append(Path(target).name)
        self._synced -= set(inside)

    def _open(self, path: Path) -> None:
        if path.name != MARKER and not any("unfinished" in part for part in path.parts):
            self.broken.append(f"{path} was written under its own name")


@pytest.mark.parametrize("task", ["pretrain"])
def test_11_what_has_its_name_is_on_the_disk(short, task, tmp_path):
    """And the presence of the model's weights means that everything else of the run is there."""
    order, folder = Order(), tmp_path / "run"
    assert watched(partial(short, folder), folder, order.look) == PASSED
    assert not order.end(), "\n".join(order.end())
    assert order.renamed[-2:] == ["model.json", "model.safetensors"]
