"""The same command under torchrun equals one process (faults 3, 4 and 27)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import photograph
from tests_support import random_weights, resolved
from unmask.interop.weights import write_model

FLAGS = (
    "--data.size 16 24 --data.held-out 4 --data.workers 1 --model.patch 4 --model.width 16 "
    "--model.depth 2 --model.heads 2 --model.decoder-width 8 --model.decoder-depth 2 "
    "--model.decoder-heads 2 --optim.steps 6 --optim.batch 8 --optim.micro-batch 3 "
    "--optim.base-lr 0.05 --optim.warmup-steps 1 --run.log-every 1 --run.checkpoint-every 2"
).split()
FINETUNE = (
    "--data.workers 1 --head.drop-path 0.3 --augment.erasing 0.3 --optim.steps 6 --optim.batch 8 "
    "--optim.base-lr 0.05 --optim.layer-decay 0.75 --optim.warmup-steps 1 --optim.ema 0.7 "
    "--augment.mixup 0.8 --augment.cutmix 1 --run.log-every 1 --run.evaluate-every 2"
).split()
PROBE = (
    "--data.workers 1 --tune-blocks 0.5 --optim.optimizer adamw --optim.steps 6 --optim.batch 8 "
    "--optim.base-lr 0.05 --optim.warmup-steps 1 --run.log-every 1 --run.evaluate-every 2"
).split()
"""With a part of the encoder, so that gradients pass the BatchNorm."""
LOSS_TOLERANCE = 1e-5
"""Relative. Gradients are added up in another order; everything else is the same."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def torchrun(processes: int, *words: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        "-m", "unmask", *words,
    ]  # fmt: skip
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)


def records(processes: int, command: str, data: Path, out: Path, *flags: str) -> list[dict]:
    result = torchrun(processes, command, str(data), "--out", str(out), *flags)
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def pretrain(processes: int, photos: Path, out: Path, *more: str) -> list[float]:
    found = records(processes, "pretrain", photos, out, *FLAGS, *more)
    return [record["loss"] for record in found if record["step"]]


@pytest.fixture
def labelled(tmp_path) -> Path:
    """48 photographs in three classes; a quarter is for validation."""
    for i in range(48):
        folder = tmp_path / "labelled" / "abc"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        photograph(i, 16, 24).save(folder / f"{i}.png")
    return tmp_path / "labelled"


@pytest.fixture
def encoder(tiny, tmp_path) -> Path:
    """A run directory with random weights."""
    weights = random_weights(resolved(tiny, images=1000).architecture)
    folder = tmp_path / "encoder"
    folder.mkdir()
    write_model(folder, weights.state, weights.description)
    return folder


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "flags", "micro_batches"),
    [
        ("finetune", FINETUNE, (6, 2)),
        ("probe", PROBE, (8, 4)),
    ],
    ids=["finetune", "probe"],
)
def test_two_processes_equal_one_with_labels(labelled, encoder, tmp_path, command, flags, micro_batches):
    """Mixing, drop path, running average, however a batch is divided; BatchNorm over the whole of it."""
    one, two = (
        records(
            processes, command, labelled, tmp_path / str(processes), "--init", str(encoder), *flags,
            "--optim.micro-batch", str(micro_batch),
        )
        for processes, micro_batch in zip((1, 2), micro_batches, strict=True)
    )  # fmt: skip
    assert [record["step"] for record in one] == [*range(7)]
    for name in ("loss", "accuracy", "grad_norm"):
        values = [[record[name] for record in run if record["step"]] for run in (one, two)]
        assert values[1] == pytest.approx(values[0], rel=LOSS_TOLERANCE), name
    for name in ("val/top1", "val/nll", "val/calibration_error"):
        values = [[record[name] for record in run if name in record] for run in (one, two)]
        assert values[1] == pytest.approx(values[0], rel=LOSS_TOLERANCE, abs=1e-6), name
        assert len(values[0]) == 4
    assert one[0]["val/nll"] != one[-1]["val/nll"]
