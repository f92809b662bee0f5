"""The same command under torchrun equals one process (faults 3, 4 and 27)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FLAGS = (
    "--data.size 16 24 --data.held-out 4 --data.workers 1 --model.patch 4 --model.width 16 "
    "--model.depth 2 --model.heads 2 --model.decoder-width 8 --model.decoder-depth 2 "
    "--model.decoder-heads 2 --optim.steps 6 --optim.batch 8 --optim.micro-batch 3 "
    "--optim.base-lr 0.05 --optim.warmup-steps 1 --run.log-every 1 --run.checkpoint-every 2"
).split()
LOSS_TOLERANCE = 1e-5
"""Relative. Gradients are added up in another order; everything else is the same."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def torchrun(processes: int, *words: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        "-m", "unmask", *words,
    ]  # fmt: skip
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)


def pretrain(processes: int, photos: Path, out: Path, *more: str) -> list[float]:
    result = torchrun(processes, "pretrain", str(photos), "--out", str(out), *FLAGS, *more)
    assert result.returncode == 0, result.stderr[-3000:]
    records = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["step"]]


@pytest.mark.slow
def test_two_processes_equal_one(photos, tmp_path):
    one = pretrain(1, photos, tmp_path / "one")
    two = pretrain(2, photos, tmp_path / "two")
    assert len(one) == 6
    assert two == pytest.approx(one, rel=LOSS_TOLERANCE)
    assert two[0] != two[-1]


@pytest.mark.slow
def test_03_one_two_one(photos, tmp_path):
    """A run that goes on with another number of processes keeps its batches and masks."""
    import shutil

    whole = pretrain(1, photos, tmp_path / "whole")
    mixed = tmp_path / "mixed"
    for processes, keep in [(1, 2), (2, 4), (1, 6)]:
        losses = pretrain(processes, photos, mixed)
        assert losses == pytest.approx(whole, rel=LOSS_TOLERANCE)
        if keep < 6:
            (mixed / "model.safetensors").unlink()
            for path in (mixed / "checkpoints").iterdir():
                if int(path.name[5:]) > keep:
                    shutil.rmtree(path)


@pytest.mark.slow
def test_04_batch_that_processes_do_not_divide(photos, tmp_path):
    flags = [*FLAGS, "--optim.batch", "9"]
    result = torchrun(2, "pretrain", str(photos), "--out", str(tmp_path / "run"), *flags)
    assert result.returncode != 0
    assert "2 processes do not divide a batch of 9: choose --optim.batch 8 or 10" in result.stderr
