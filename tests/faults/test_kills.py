"""Fault 11: a run that is killed again and again ends as if nothing had happened."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

import unmask
from faults_support import KILLED, in_child

TIMING = ("images_per_second", "data_wait", "memory_gib")
POINTS = (
    *(
        f"checkpoint.{point}"
        for point in ("mkdir", "write", "sync", "rename", "renamed", "remove", "removed")
    ),
    *(f"run.{point}" for point in ("write", "sync", "rename", "renamed", "append")),
    *(f"model.{point}" for point in ("write", "sync", "rename")),
)


def steps(run: Path) -> list[dict]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in r.items() if name not in TIMING} for r in records]


def table(run: Path) -> list[str]:
    return [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()]


def assert_same(run: Path, whole: Path) -> None:
    one, other = (load_file(path / "model.safetensors") for path in (run, whole))
    assert all(one[name].equal(other[name]) for name in other)
    assert steps(run) == steps(whole)
    assert table(run) == table(whole)


def killed_after(call, seconds: float) -> bool:
    """Whether the call was still running after so many seconds, and was killed."""
    child = os.fork()
    if child == 0:
        os._exit(0 if in_child(call) == 0 else 1)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return False
        time.sleep(0.005)
    grandchildren = Path(f"/proc/{child}/task/{child}/children").read_text().split()
    for pid in (*map(int, grandchildren), child):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_11_random_kills(tiny, tmp_path, workers):
    """25 kills at random moments and named points; a run that ends in between begins anew."""
    longer = replace(
        tiny,
        optim=replace(tiny.optim, steps=40, ema=0.9),
        data=replace(tiny.data, workers=workers),
        run=replace(tiny.run, checkpoint_every=3),
    )
    whole, rng = unmask.pretrain(replace(longer, out=str(tmp_path / "whole"))), random.Random(0)
    kills, runs = 0, 0
    while kills < 25:
        config = replace(longer, out=str(tmp_path / f"run{runs}"))
        if rng.random() < 0.5:
            fault = f"{rng.choice(POINTS)}:kill:{rng.randint(1, 12)}"
            killed = in_child(lambda config=config: unmask.pretrain(config), fault) == KILLED
        else:
            killed = killed_after(lambda config=config: unmask.pretrain(config), rng.uniform(0.05, 3.0))
        kills += killed
        if not killed:
            assert_same(Path(config.out), whole)
            runs += 1
    assert_same(unmask.pretrain(replace(longer, out=str(tmp_path / f"run{runs}"))), whole)
