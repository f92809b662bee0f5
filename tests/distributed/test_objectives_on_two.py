"""Mask strategies and targets on two processes: the same losses as on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LOSS_TOLERANCE = 1e-5
"""Relative, in fp32. Gradients are added up in another order; everything else is the same."""
COMMON = (
    "--data.size 16 24 --data.held-out 4 --data.workers 1 --optim.steps 6 --optim.batch 8 "
    "--optim.micro-batch 3 --optim.warmup-steps 1 --run.log-every 1 --run.precision fp32"
).split()
PRETRAIN = (
    "--model.patch 4 --model.width 16 --model.depth 2 --model.heads 2 --model.decoder-width 8 "
    "--model.decoder-depth 2 --model.decoder-heads 2 --optim.base-lr 0.05"
).split()
TOKENIZER = (
    "--model.vocabulary 8 --model.downsampling 4 --model.width 8 --model.blocks 1 --optim.base-lr 0.3"
).split()
OBJECTIVES = {
    "block": "--mask.strategy block",
    "grid": "--mask.strategy grid --mask.decode-share 0.5",
    "pca": "--target.kind pca",
    "file": "--mask.file MASK",
}


def losses(processes: int, command: str, photos: Path, out: Path, *flags: str) -> list[float]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = ["-m", "unmask", command, str(photos), "--out", str(out), *COMMON, *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [sys.executable, *launcher, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    records = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["step"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_equal_one(photos, tmp_path, name):
    np.save(tmp_path / "mask.npy", np.arange(24).reshape(4, 6) % 3 > 0)
    more = OBJECTIVES[name].replace("MASK", str(tmp_path / "mask.npy")).split()
    one, two = (losses(n, "pretrain", photos, tmp_path / f"run-{n}", *PRETRAIN, *more) for n in (1, 2))
    assert two == pytest.approx(one, rel=LOSS_TOLERANCE)


@pytest.mark.slow
def test_a_tokenizer_and_its_tokens(photos, tmp_path):
    one, two = (losses(n, "tokenizer", photos, tmp_path / f"tokenizer-{n}", *TOKENIZER) for n in (1, 2))
    assert two == pytest.approx(one, rel=LOSS_TOLERANCE)
    tokens = ["--target.kind", "tokens", "--target.tokenizer", str(tmp_path / "tokenizer-1")]
    one, two = (losses(n, "pretrain", photos, tmp_path / f"run-{n}", *PRETRAIN, *tokens) for n in (1, 2))
    assert two == pytest.approx(one, rel=LOSS_TOLERANCE)
