"""The same command under torchrun equals one process (faults 3, 4 and 27)."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import photograph
from tests_support import random_weights, resolved
from unmask.config.schema import ProbeConfig
from unmask.config.schema_classify import (
    ClassifyConfig,
    ClassifyOptimConfig,
    HeadConfig,
    LabelledDataConfig,
)
from unmask.interop.weights import write_model
from unmask.tasks.quickstart import Stages

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
    "--recipe small-probe --data.workers 1 --tune-blocks 0.5 --optim.optimizer adamw --optim.steps 6 "
    "--optim.batch 8 --optim.base-lr 0.05 --optim.warmup-steps 1 --run.log-every 1 "
    "--run.evaluate-every 2"
).split()
"""Of finetune: a part of the encoder too, so that gradients pass the BatchNorm."""
LOSS_TOLERANCE = 1e-5
"""Relative. Gradients are added up in another order; everything else is the same."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def torchrun(processes: int, *words: str) -> subprocess.CompletedProcess:
    return torchrun_python(processes, "-m", "unmask", *words)


def torchrun_python(processes: int, *words: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        *words,
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
    ("flags", "micro_batches"),
    [
        (FINETUNE, (6, 2)),
        (PROBE, (8, 4)),
    ],
    ids=["finetune", "probe"],
)
def test_two_processes_equal_one_with_labels(labelled, encoder, tmp_path, flags, micro_batches):
    """Mixing, drop path, running average, however a batch is divided; BatchNorm over the whole of it."""
    one, two = (
        records(
            processes, "finetune", labelled, tmp_path / str(processes), "--init", str(encoder), *flags,
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


@pytest.mark.slow
def test_several_runs_of_one_command(labelled, encoder, tmp_path):
    """The processes stay connected from run to run; the main one alone says what came of them."""
    out = tmp_path / "sweep"
    words = ["finetune", str(labelled), "--init", str(encoder), "--out", str(out), "--seeds", "0,1"]
    result = torchrun(2, *words, *PROBE, "--optim.steps", "2")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count(f"report: {out / 'report.html'}") == 1
    (row,) = json.loads((out / "sweep.json").read_text())
    assert row["runs"] == ["seed=0", "seed=1"]
    assert all((out / name / "model.safetensors").exists() for name in row["runs"])


QUICKSTART = """
import pickle, sys
from pathlib import Path
from unmask.tasks.quickstart import run_stages

run_stages(pickle.loads(Path(sys.argv[1]).read_bytes()), print)
"""


@pytest.mark.slow
def test_quickstart(labelled, tiny, tmp_path):
    """Its runs, as several processes, of a small data set."""
    out = tmp_path / "quickstart"
    pretraining = replace(
        tiny, out=str(out / "pretrain"), optim=replace(tiny.optim, steps=2), probe=ProbeConfig(images=0)
    )
    data = LabelledDataConfig(source=(str(labelled),), size=(16, 24), workers=0)
    config = ClassifyConfig(data=data, optim=ClassifyOptimConfig(steps=2, warmup_steps=0, batch=8))
    commands = {
        "probe": {"init": pretraining.out, "head": HeadConfig(tune_blocks=0)},
        "finetune": {"init": pretraining.out},
        "scratch": {"model": tiny.model},
    }
    runs = {name: replace(config, out=str(out / name), **more) for name, more in commands.items()}
    stages = Stages(out=out, pretraining=pretraining, classifications=runs)
    (tmp_path / "stages").write_bytes(pickle.dumps(stages))
    (tmp_path / "script.py").write_text(QUICKSTART)
    result = torchrun_python(2, str(tmp_path / "script.py"), str(tmp_path / "stages"))
    assert result.returncode == 0, result.stderr[-3000:]
    for sentence in ("1 of 4: ", "4 of 4: ", f"report: {out / 'report.html'}"):
        assert result.stdout.count(sentence) == 1, sentence
    assert (out / "report.html").exists()
