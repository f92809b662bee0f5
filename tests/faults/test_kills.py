"""Fault 11: a run that is killed again and again ends as if nothing had happened."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from faults.every_task import TASKS, EveryTask
from faults_support import KILLED, in_child, started
from unmask.faults import POINTS

pytestmark = pytest.mark.usefixtures("blank_charts")

KILLS = int(os.environ.get("UNMASK_KILLS", "5"))
TIMING = ("images_per_second", "data_wait", "memory_gib")
PLACES = [f"{part}.{point}" for part in ("checkpoint", "run", "model") for point in POINTS[part]]


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
    child, deadline = started(call), time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


@pytest.mark.slow
@pytest.mark.timeout(120 + 120 * KILLS)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("task", TASKS)
def test_11_random_kills(tiny, scratch, tmp_path, task, workers):
    """Kills at random moments and named points, $UNMASK_KILLS of them; a run that ends in between begins
    anew."""
    call, config = EveryTask(tiny, scratch, tmp_path).run_of(task, TASKS[task])
    longer = replace(
        config,
        data=replace(config.data, workers=workers),
        run=replace(config.run, checkpoint_every=3),
    )
    started = time.monotonic()
    whole = call(replace(longer, out=str(tmp_path / "whole")))
    seconds, rng = time.monotonic() - started, random.Random(0)
    kills, count = 0, 0
    while kills < KILLS:
        one = partial(call, replace(longer, out=str(tmp_path / f"run{count}")))
        if rng.random() < 0.5:
            fault = f"{rng.choice(PLACES)}:kill:{rng.randint(1, 12)}"
            killed = in_child(one, fault) == KILLED
        else:
            killed = killed_after(one, rng.uniform(0.05, seconds))
        kills += killed
        if not killed:
            assert_same(tmp_path / f"run{count}", whole)
            count += 1
    assert_same(call(replace(longer, out=str(tmp_path / f"run{count}"))), whole)
