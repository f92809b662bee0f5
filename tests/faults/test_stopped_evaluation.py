"""Fault 10: a signal does not wait for an evaluation, and the resumed run measures what was left out."""

import os
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
from torch.nn.modules.module import register_module_forward_hook

import unmask
from faults.test_kills import assert_same
from faults_support import KILLED, in_child
from tasks.test_segment import tiny_segmenter, write_scenes
from unmask.engine import report
from unmask.errors import Interrupted

pytestmark = pytest.mark.usefixtures("blank_charts")


def signal_in_evaluation(monkeypatch, step: int) -> None:
    """Sends this process a signal during the first forward pass of an evaluation, which then hangs."""
    original = report._evaluate

    def hang(*_) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    def evaluate(session, evaluator, now, processes):
        if now != step:
            return original(session, evaluator, now, processes)
        hook = register_module_forward_hook(hang)
        try:
            return original(session, evaluator, now, processes)
        finally:
            hook.remove()

    monkeypatch.setattr(report, "_evaluate", evaluate)


def stopped(call, config, monkeypatch, step: int) -> str:
    with monkeypatch.context() as patch:
        signal_in_evaluation(patch, step)
        with pytest.raises(Interrupted) as stop:
            call(config)
    assert stop.value.exit_code == 143
    return str(stop.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("at", [3, 6, 7])
def test_10_an_evaluation_is_left_and_measured_on_resume(tiny, tmp_path, monkeypatch, at, ema):
    """Between checkpoints, at one, and after the last step; twice at the same place."""
    tiny = replace(tiny, optim=replace(tiny.optim, ema=ema))
    whole = unmask.pretrain(replace(tiny, out=str(tmp_path / "whole")))
    assert f"saved after step {at}" in stopped(unmask.pretrain, tiny, monkeypatch, at)
    stopped(unmask.pretrain, tiny, monkeypatch, at)
    assert_same(unmask.pretrain(tiny), whole)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("at", "point"), [(3, "step.update"), (7, "model.write")])
def test_10_killed_between_that_evaluation_and_the_next_checkpoint(
    tiny, tmp_path, monkeypatch, at, point
):
    """Its record is written, and the checkpoint still says that it is to be measured."""
    whole = unmask.pretrain(replace(tiny, out=str(tmp_path / "whole")))
    stopped(unmask.pretrain, tiny, monkeypatch, at)
    assert in_child(partial(unmask.pretrain, tiny), f"{point}:kill") == KILLED
    assert_same(unmask.pretrain(tiny), whole)


@pytest.mark.timeout(60)
def test_10_an_evaluation_before_the_first_step(tiny, tmp_path, monkeypatch):
    assert "stopped before the first step" in stopped(unmask.pretrain, tiny, monkeypatch, 0)
    assert_same(unmask.pretrain(tiny), unmask.pretrain(replace(tiny, out=str(tmp_path / "whole"))))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [0, 1])
def test_10_an_evaluation_with_loader_processes(tmp_path, monkeypatch, children, workers):
    config = tiny_segmenter(write_scenes(tmp_path / "maps"), tmp_path / "run")
    config = replace(config, data=replace(config.data, workers=workers))
    whole = unmask.segment(replace(config, out=str(tmp_path / "whole")))
    stopped(unmask.segment, config, monkeypatch, config.optim.steps)
    assert not children()
    assert_same(unmask.segment(config), whole)
