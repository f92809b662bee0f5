"""Faults 11 to 16: the newest announced checkpoint survives."""

import errno
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import PIPE
from unittest import mock

import pytest
import torch

import unmask
from faults_support import KILLED, in_child
from tests_support import contents
from unmask import storage
from unmask.engine import checkpoint
from unmask.engine.checkpoint import Checkpoint
from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("blank_charts")


def at_step(step: int) -> Checkpoint:
    return Checkpoint(step, {"model": {"w": torch.full((1000,), float(step))}}, {"sum": 0.1})


def silent(_: str) -> None:
    pass


def test_12_disk_full(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, at_step(1), keep=2)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match="free: make room"):
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
    printed: list[str] = []
    assert checkpoint.load_newest(tmp_path, printed.append).step == 1
    assert "step-00000002" in printed[0]
    shutil.rmtree(tmp_path / "step-00000001")
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        checkpoint.load_newest(tmp_path, silent)


def test_14_order_is_by_step_and_two_are_kept(tmp_path):
    """By name 100,000,001 would come before the others."""
    for step in (20_000_000, 100_000_001, 30_000_000):
        checkpoint.save(tmp_path, at_step(step), keep=2)
    assert [step for step, _ in checkpoint.steps_in(tmp_path)] == [30_000_000, 100_000_001]
    checkpoint.save(tmp_path, at_step(40_000_000), keep=1)
    assert [step for step, _ in checkpoint.steps_in(tmp_path)] == [40_000_000, 100_000_001]


def test_14_those_of_each_so_many_steps_stay(tiny, tmp_path):
    """Saved also between the others; what they take is in what the run says before its first step."""
    spare = replace(tiny.run, checkpoint_every=2, keep_checkpoints=1)
    runs = [
        unmask.pretrain(replace(tiny, out=str(tmp_path / f"{n}"), run=replace(spare, keep_every=n)))
        for n in (None, 3)
    ]
    kept = [[step for step, _ in checkpoint.steps_in(run / "checkpoints")] for run in runs]
    assert kept == [[7], [3, 6, 7]]
    said = [re.search(r"takes ([\d.]+) KiB, the run up to ([\d.]+) KiB", log_of(run)) for run in runs]
    (one, few), (_, many) = ([float(number) for number in found.groups()] for found in said)
    assert many - few == pytest.approx(2 * one, abs=3), "three digits are shown"


def test_14_the_last_removal_is_made_up_for(tiny):
    """A kill after the last save, before the older checkpoint went: the same command removes it."""
    config = replace(tiny, run=replace(tiny.run, checkpoint_every=2, keep_checkpoints=1))
    folder = Path(config.out) / "checkpoints"
    assert in_child(partial(unmask.pretrain, config), "checkpoint.remove:kill:3") == KILLED
    assert [step for step, _ in checkpoint.steps_in(folder)] == [6, 7]
    unmask.pretrain(config)
    assert [step for step, _ in checkpoint.steps_in(folder)] == [7]


def log_of(run: Path) -> str:
    return (run / "train.log").read_text()


@pytest.fixture
def unread(tiny):
    """A run whose images are not there: to look for them would be another error."""
    return replace(tiny, data=replace(tiny.data, source=("nowhere",)))


def test_15_output_that_cannot_be_written(unread, tmp_path):
    (tmp_path / "file").write_text("in its place")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match="choose another --out"):
            unmask.pretrain(replace(unread, out=str(out)))


def test_15_foreign_folder(unread, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match=r"thesis.txt"):
        unmask.pretrain(replace(unread, out=str(tmp_path / "mine")))


def test_16_second_writer(tiny):
    run = Path(tiny.out)
    run.mkdir()
    lock = str(run / ".lock")
    holder = f"import fcntl; f = open({lock!r}, 'w'); fcntl.lockf(f, 2); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", holder], stdin=PIPE, stdout=PIPE) as other:
        other.stdout.readline()
        with pytest.raises(CheckpointError, match="another process"):
            unmask.pretrain(tiny)
        other.kill()
    unmask.pretrain(tiny)  # the lock's file is still there, and stale


def test_12_what_a_full_disk_needs_when_it_is_synced(tiny):
    """Some disks say only then that they are full: what is needed is the file, not nothing."""
    run = RunDirectory(Path(tiny.out))
    run.path.mkdir()
    run.append("metrics.jsonl", b"x" * 2048)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    refused = pytest.raises(CheckpointError, match=r"needs 2 KiB, the disk of .* has .* free: make room")
    with mock.patch("os.fsync", side_effect=full), refused:
        run.sync("metrics.jsonl")


@pytest.mark.parametrize("name", ["features.safetensors", "features.parquet", "predictions.csv"])
def test_12_results_on_a_full_disk_say_free_and_needed(name, tiny, scratch, photos, tmp_path):
    """Each of the files that grow with the number of images; a half of one never stays."""
    file = tmp_path / "results" / name
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    refused = pytest.raises(
        CheckpointError, match=rf"{name} .*needs .*\d .*the disk of .* has \d.* free: make"
    )
    if name == "predictions.csv":
        classifier = unmask.scratch(scratch)
        with mock.patch("unmask.use.predict.escaped", side_effect=full), refused:
            unmask.predict(str(photos), init=str(classifier), out=str(file.parent))
    else:
        place = (
            "unmask.storage.write_synced"
            if file.suffix == ".safetensors"
            else "pyarrow.parquet.ParquetWriter.write_table"
        )
        run = unmask.pretrain(tiny)
        with mock.patch(place, side_effect=full), refused:
            unmask.embed(str(photos), init=str(run), out=str(file))
    assert not file.exists()
    assert not [path for path in contents(file.parent) if "unfinished" in path]


def test_13_a_disk_that_gives_other_bytes_back(tmp_path, monkeypatch):
    """What was there stays."""
    file = tmp_path / "state.json"
    storage.replace_file(file, b"old", "run")
    monkeypatch.setattr(storage, "sha256_of", lambda path: "0" * 64)
    with pytest.raises(CheckpointError, match="does not read back as it was written: check the disk"):
        storage.replace_file(file, b"new", "run")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
