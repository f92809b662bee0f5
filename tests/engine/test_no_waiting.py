"""A step never makes the host wait for the device, and the host reads late what it measured."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import unmask
from unmask.config.commands import PretrainConfig
from unmask.engine import loop
from unmask.engine.readings import Readings, StepMetrics

pytestmark = pytest.mark.usefixtures("blank_charts")

WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select"}
"""What cannot be answered before the device has computed it."""


class Waits(TorchDispatchMode):
    """Counts operations that a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().split(".")[0]
        if name in WAITS:
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


def waits_of_steps(monkeypatch, run) -> list[Counter]:
    """Of each step of what `run` trains."""
    original, found = loop.take_step, []

    def watched(*args):
        with Waits() as waits:
            reading = original(*args)
        found.append(waits.found)
        return reading

    monkeypatch.setattr(loop, "take_step", watched)
    run()
    return found


@pytest.fixture
def unchecked():
    """The shape checks of the tests look at values."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_pretraining_step_does_not_wait(tiny, monkeypatch, unchecked, clip):
    config = replace(tiny, optim=replace(tiny.optim, clip=clip, ema=0.9))
    steps = waits_of_steps(monkeypatch, lambda: unmask.pretrain(config))
    assert steps
    assert not sum(steps, Counter())


def test_what_is_due():
    def reading(step: int) -> StepMetrics:
        return StepMetrics(step, ("loss",), [], torch.tensor([float(step)]))

    late = Readings(late=1)
    late.add(reading(1))
    assert [r.step for r in late.take(wait=False)] == []
    late.add(reading(2))
    assert [r.step for r in late.take(wait=False)] == [1]
    late.add(reading(3))
    assert [r.step for r in late.take(wait=True)] == [2, 3]
    assert [r.step for r in late.take(wait=True)] == []


def test_late_readings_change_nothing(tiny: PretrainConfig, monkeypatch, tmp_path):
    """As on a GPU: the same metrics and weights."""
    runs = []
    for late in (0, 1):
        monkeypatch.setattr(Readings, "on", classmethod(lambda cls, device, late=late: cls(late=late)))
        config = replace(tiny, out=str(tmp_path / f"late-{late}"), run=replace(tiny.run, log_every=2))
        runs.append(unmask.pretrain(config))
    weights = [unmask.load(run).state_dict() for run in runs]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    losses = [[r.get("loss") for r in loop_metrics(run)] for run in runs]
    assert losses[0] == losses[1]


def loop_metrics(run):
    from unmask.engine.metrics import read_metrics
    from unmask.engine.run_directory import RunDirectory

    return read_metrics(RunDirectory(run))
