"""Faults 11 to 16: the newest announced checkpoint survives."""

import contextlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest
import torch

from unmask import api
from unmask.engine import checkpoint
from unmask.engine.checkpoint import Checkpoint
from unmask.errors import CheckpointError


def at_step(step: int) -> Checkpoint:
    return Checkpoint(step, {"model": {"w": torch.full((1000,), float(step))}}, {"sum": 0.1})


def silent(_: str) -> None:
    pass


class Killed(BaseException):
    """kill -9: nothing after it runs."""


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir", "open"])
@pytest.mark.parametrize("nth", range(5))
def test_11_killed_anywhere_in_a_save(tmp_path, monkeypatch, call, nth):
    """At every write, sync and rename, the previous or the new checkpoint is whole."""
    checkpoint.save(tmp_path, at_step(1), keep=2)
    calls = 0
    owner = Path if call in ("mkdir", "open") else checkpoint.os
    original = getattr(owner, call)

    def dies(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls > nth:
            raise Killed
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, dies)
        with contextlib.suppress(Killed):
            checkpoint.save(tmp_path, at_step(2), keep=2)
    said: list[str] = []
    found = checkpoint.load_newest(tmp_path, said.append)
    assert found is not None
    assert found.step in (1, 2)
    assert found.tensors["model"]["w"].eq(found.step).all()
    assert not list(tmp_path.glob(".unfinished-*"))


def test_12_disk_full(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, at_step(1), keep=2)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match="MiB free: make room"):
        checkpoint.save(tmp_path, at_step(2), keep=2)
    assert checkpoint.load_newest(tmp_path, silent).step == 1


@pytest.mark.parametrize("damage", ["truncate", "flip", "state", "missing"])
def test_13_damaged_newest(tmp_path, damage):
    for step in (1, 2):
        newest = checkpoint.save(tmp_path, at_step(step), keep=2)
    file = newest / ("state.json" if damage == "state" else "model.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        content[-5] ^= 0x40
        file.write_bytes(content[: len(content) // 2] if damage in ("truncate", "state") else content)
    said: list[str] = []
    assert checkpoint.load_newest(tmp_path, said.append).step == 1
    assert "step-00000002" in said[0]
    shutil.rmtree(tmp_path / "step-00000001")
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        checkpoint.load_newest(tmp_path, silent)


def test_14_order_is_by_step_and_two_are_kept(tmp_path):
    for step in (9, 100_000_001, 10):
        checkpoint.save(tmp_path, at_step(step), keep=2)
    assert [step for step, _ in checkpoint.steps_in(tmp_path)] == [10, 100_000_001]


def test_09_newer_format_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT_VERSION", 99)
        path = checkpoint.save(tmp_path, at_step(1), keep=1)
    with pytest.raises(CheckpointError, match="format 99 and this unmask reads up to"):
        checkpoint.read(path)


def test_15_output_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").write_text("in its place")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match="choose another --out"):
            api.pretrain(replace(tiny, out=str(out)))


def test_15_foreign_folder(tiny, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match=r"thesis.txt"):
        api.pretrain(replace(tiny, out=str(tmp_path / "mine")))


def test_16_second_writer(tiny):
    run = Path(tiny.out)
    run.mkdir()
    lock = str(run / ".lock")
    holder = f"import fcntl; f = open({lock!r}, 'w'); fcntl.lockf(f, 2); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", holder], stdin=PIPE, stdout=PIPE) as other:
        other.stdout.readline()
        with pytest.raises(CheckpointError, match="another process"):
            api.pretrain(tiny)
        other.kill()
    api.pretrain(tiny)  # the lock's file is still there, and stale
