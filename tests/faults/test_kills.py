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

import unmask
from faults_support import KILLED, in_child, started
from tasks.test_detect import tiny_detector
from tasks.test_detect import write_scenes as write_objects
from tasks.test_segment import tiny_segmenter
from tasks.test_segment import write_scenes as write_maps
from unmask.config.commands import FinetuneConfig, ProbeConfig

KILLS = int(os.environ.get("UNMASK_KILLS", "5"))
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


@pytest.fixture
def runs(request, tiny, scratch, tmp_path_factory) -> dict[str, tuple]:
    """By command: what runs it, and a configuration with everything random switched on."""
    folder = tmp_path_factory.mktemp("killed")
    pretrain = replace(tiny, optim=replace(tiny.optim, steps=40, ema=0.9))
    if request.node.callspec.params["command"] == "pretrain":
        return {"pretrain": (unmask.pretrain, pretrain)}
    init = str(unmask.pretrain(replace(tiny, out=str(folder / "init"))))
    longer = replace(scratch.optim, steps=20)
    labelled = {
        "data": scratch.data,
        "head": scratch.head,
        "augment": scratch.augment,
        "run": scratch.run,
    }
    finetune = FinetuneConfig(init=init, optim=longer, **labelled)
    probe = ProbeConfig(init=init, data=scratch.data, augment=scratch.augment, run=scratch.run)
    probe = replace(probe, optim=replace(probe.optim, steps=20, warmup_steps=2, batch=8))
    detect = tiny_detector(write_objects(folder / "objects", {"train": 14, "val": 4}), folder / "run")
    segment = tiny_segmenter(write_maps(folder / "maps"), folder / "run")
    return {
        "finetune": (unmask.finetune, finetune),
        "probe": (unmask.probe, probe),
        "detect": (unmask.detect, replace(detect, optim=replace(detect.optim, steps=12))),
        "segment": (unmask.segment, replace(segment, optim=replace(segment.optim, steps=12))),
    }


@pytest.mark.slow
@pytest.mark.timeout(120 + 120 * KILLS)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("command", ["pretrain", "finetune", "probe", "detect", "segment"])
def test_11_random_kills(runs, tmp_path, command, workers):
    """Kills at random moments and named points, $UNMASK_KILLS of them; a run that ends in between begins
    anew."""
    call, config = runs[command]
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
            fault = f"{rng.choice(POINTS)}:kill:{rng.randint(1, 12)}"
            killed = in_child(one, fault) == KILLED
        else:
            killed = killed_after(one, rng.uniform(0.05, seconds))
        kills += killed
        if not killed:
            assert_same(tmp_path / f"run{count}", whole)
            count += 1
    assert_same(call(replace(longer, out=str(tmp_path / f"run{count}"))), whole)
