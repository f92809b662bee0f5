"""A detector under torchrun equals one process: 5 steps in fp32."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distributed.test_two_processes import assert_evaluated_alike
from tasks.test_detect import write_scenes

FLAGS = (
    "--scratch --data.size 32 48 --data.scale 0.5 1.5 --data.workers 1 --model.patch 8 --model.width 16 "
    "--model.depth 4 --model.heads 2 --detector.window 2 --detector.global-blocks 2 "
    "--detector.channels 8 --detector.head-width 16 --detector.anchor-scale 2 "
    "--detector.sampled-anchors 16 --detector.sampled-proposals 12 --detector.proposals 20 "
    "--detector.drop-path 0.3 --detector.detections 5 --optim.steps 5 --optim.warmup-steps 1 "
    "--optim.base-lr 0.05 "
    "--optim.ema 0.9 --run.precision fp32 --run.log-every 1"
).split()
PARTS = {
    "paper": "--detector.pyramid fpn --detector.relative-position shared --detector.head-norm batch",
    "vitdet": "--detector.pyramid simple --detector.relative-position decomposed "
    "--detector.head-norm layer",
}
BATCH = {
    "paper": "--optim.batch 6",
    "vitdet": "--optim.batch 6 --optim.micro-batch 2",
}
"""BatchNorm sees all of a step; without it the batch may be divided in any way."""


def records(processes: int, data: Path, out: Path, flags: list[str]) -> list[dict]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "unmask", "detect", str(data), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [*command, *flags], env=environment, capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("parts", PARTS)
def test_two_processes_equal_one(tmp_path, parts):
    data = write_scenes(tmp_path / "data", {"train": 14, "val": 5})
    flags = [*FLAGS, *PARTS[parts].split(), *BATCH[parts].split()]
    one, two = (records(n, data, tmp_path / str(n), flags) for n in (1, 2))
    assert_evaluated_alike(tmp_path / "2", data)
    losses = [[r["loss"] for r in rows if r.get("loss") is not None] for rows in (one, two)]
    assert len(losses[0]) == 5
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(set(losses[0])) == 5
    shared = {n for n in one[0] if n.startswith("detection/")}
    assert "detection/box_ap" in shared
    assert one[0]["detection/box_recall"] == pytest.approx(two[0]["detection/box_recall"], abs=0.05)
