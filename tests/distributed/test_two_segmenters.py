"""Segmentation under torchrun equals one process."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from conftest import photograph
from distributed.test_two_processes import assert_evaluated_alike

FLAGS = (
    "--scratch --data.size 16 --data.workers 1 --model.patch 4 --model.width 16 --model.depth 2 "
    "--model.heads 2 --head.width 8 --head.drop-path 0.3 --optim.steps 5 --optim.batch 8 "
    "--optim.base-lr 0.05 --optim.warmup-steps 1 --optim.ema 0.7 --run.log-every 1 "
    "--run.evaluate-every 2 --run.precision fp32"
).split()
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.mark.slow
@pytest.mark.parametrize("head", ["upernet", "linear"])
def test_two_processes_equal_one(tmp_path, head):
    """BatchNorm over all of them; the loss averaged over labelled pixels, of which images have few or
    many; the confusion summed, of seven validation images."""
    for place in ("images", "labels"):
        (tmp_path / "data" / place).mkdir(parents=True)
    for i in range(28):
        photograph(i, 16, 24).save(tmp_path / "data" / "images" / f"{i}.png")
        labels = (np.arange(24) // 8 + np.zeros((16, 1))).astype(np.uint8)
        labels[: i // 2] = 255
        Image.fromarray(labels).save(tmp_path / "data" / "labels" / f"{i}.png")
    runs = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={processes}", "-m", "unmask", "segment", str(tmp_path / "data"),
            "--out", str(out), "--head", head, *FLAGS,
        ]  # fmt: skip
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        runs.append([json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()])
    assert_evaluated_alike(out, tmp_path / "data")
    for name, tolerance in [("loss", 1e-4), ("grad_norm", 1e-3), ("val/pixel_accuracy", 1e-2)]:
        one, two = ([record[name] for record in run if name in record] for run in runs)
        assert len(one) >= 4
        assert two == pytest.approx(one, rel=tolerance), name
