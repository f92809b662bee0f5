"""Fault 25: a run that went wrong says so, and never replaces good weights by broken ones."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import unmask
from tests_support import stopped_after
from unmask.engine import checkpoint
from unmask.engine.ema import WeightAverage
from unmask.errors import CheckpointError, DivergenceError
from unmask.storage import unsealed
from unmask.tasks.pretrain import Pretrain

pytestmark = pytest.mark.usefixtures("blank_charts")


def losses_times(monkeypatch, factor) -> None:
    """Multiplies the loss of a task's nth micro-batch by `factor(n)`."""
    original, calls = Pretrain.step, iter(range(1000))

    def step(self, model, batch, draw):
        output = original(self, model, batch, draw)
        return output._replace(loss=output.loss * factor(next(calls)))

    monkeypatch.setattr(Pretrain, "step", step)


def kept_steps(run: str) -> list[int]:
    return [step for step, _ in checkpoint.steps_in(Path(run) / "checkpoints")]


def test_25_a_run_that_skipped_most_steps_fails(tiny, monkeypatch):
    """Of 7 steps of two micro-batches the last four are skipped; the same command fails again."""
    losses_times(monkeypatch, lambda n: math.nan if n >= 6 else 1.0)
    for _ in range(2):
        with pytest.raises(DivergenceError, match=r"4 of 7 steps were skipped.*another --out"):
            unmask.pretrain(tiny)
    assert not (Path(tiny.out) / "model.safetensors").exists()


def test_25_a_run_that_skipped_few_steps_succeeds(tiny, monkeypatch):
    losses_times(monkeypatch, lambda n: math.nan if n >= 8 else 1.0)
    assert (unmask.pretrain(tiny) / "model.safetensors").exists()


def test_25_skipped_steps_in_a_row_count_across_a_stop(tiny, monkeypatch):
    """Of twelve steps that are all skipped, stopped after the fourth: eight would be too few."""
    losses_times(monkeypatch, lambda n: math.nan)
    longer = replace(tiny, optim=replace(tiny.optim, steps=12))
    stopped_after(monkeypatch, 4, lambda: unmask.pretrain(longer))
    with pytest.raises(DivergenceError, match="10 steps in a row"):
        unmask.pretrain(longer)


@pytest.mark.parametrize("which", ["weights", "average"])
def test_25_broken_weights_never_replace_good_ones(tiny, monkeypatch, which):
    """The weights, or their average, break between the checkpoints of steps 4 and 6."""
    update, calls = WeightAverage.update, itertools.count(1)

    def broken(self, model):
        update(self, model)
        if next(calls) == 6:
            values = dict(model.named_parameters()) if which == "weights" else self.weights
            next(iter(values.values())).data.fill_(math.inf)

    monkeypatch.setattr(WeightAverage, "update", broken)
    first = "encoder" if which == "weights" else "average of encoder"
    with pytest.raises(DivergenceError, match=rf"after step 6 the weights .*the first is the {first}"):
        unmask.pretrain(replace(tiny, optim=replace(tiny.optim, ema=0.9)))
    assert kept_steps(tiny.out) == [2, 4]
    assert not (Path(tiny.out) / "model.safetensors").exists()


def test_25_starting_from_broken_weights_is_refused(tiny, tmp_path):
    run = unmask.pretrain(tiny)
    state = load_file(run / "model.safetensors")
    name = next(iter(state))
    state[name].view(-1)[0] = math.nan
    save_file(state, run / "model.safetensors")
    (description := run / "model.json").write_text(
        json.dumps({**unsealed(json.loads(description.read_text())), "sha256": None})
    )
    with pytest.raises(CheckpointError, match=f"not finite.*{name}"):
        unmask.pretrain(replace(tiny, out=str(tmp_path / "next")), init=run)
    with pytest.raises(CheckpointError, match="not finite"):
        unmask.load(run)
