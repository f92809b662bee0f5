"""The loop: averages by true counts, skips bad steps, follows the schedule."""

import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import unmask
from tests_support import plan_for
from unmask.config.commands import PretrainConfig
from unmask.data.loader import Batch
from unmask.distributed.processes import ALONE
from unmask.engine.ema import WeightAverage
from unmask.engine.loop import count_step, process_metrics, take_step
from unmask.engine.optim import build_optimizer, decay_groups, learning_rate
from unmask.engine.readings import Measured
from unmask.engine.session import TrainingState
from unmask.engine.task import StepOutput
from unmask.errors import DataError, DivergenceError

pytestmark = pytest.mark.usefixtures("blank_charts")

FEATURES = 3


class Regression(nn.Module):
    """A task whose weights are the number of rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Linear(FEATURES, 1)

    def forward(self, rows, draw):
        loss = (self.model(rows) - rows.sum(dim=1, keepdim=True)).square().mean()
        return StepOutput(loss, len(rows), {"mean": rows.mean()})


def one_step(batches: list[torch.Tensor], **changes) -> tuple[Regression, TrainingState]:
    module, plan = Regression(), replace(plan_for(PretrainConfig()), warmup_steps=0, **changes)
    state = TrainingState(0, build_optimizer(decay_groups(module.model, 0.05), plan), None)
    session = SimpleNamespace(
        training=plan, plan=None, model=module.model, processes=ALONE, run=SimpleNamespace(path=None),
        console=SimpleNamespace(say=lambda text: None),
    )  # fmt: skip
    micro = [Batch(rows, torch.arange(len(rows)), []) for rows in batches]
    reading = take_step(session, state, module, micro, stop=SimpleNamespace(signal=None))
    assert not process_metrics(session, state, [reading])
    return module, state


@pytest.mark.parametrize("sizes", [(10,), (4, 4, 2), (1, 9), (3, 3, 3, 1)])
def test_accumulation_equals_the_whole_batch(sizes):
    rows = torch.randn(10, FEATURES, generator=torch.Generator().manual_seed(1))
    whole, _ = one_step([rows])
    parts, state = one_step(list(rows.split(sizes)))
    torch.testing.assert_close(parts.model.weight, whole.model.weight, rtol=1e-6, atol=1e-7)
    fresh = Regression()
    expected = (fresh.model(rows) - rows.sum(dim=1, keepdim=True)).square().mean()
    averages = state.meter.averages()
    assert averages["loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert averages["mean"] == pytest.approx(rows.mean().item(), rel=1e-5)


def test_clip_bounds_the_update_and_reports_the_true_norm():
    rows = torch.randn(10, FEATURES, generator=torch.Generator().manual_seed(1)) * 100
    _, state = one_step([rows], clip=0.5)
    clipped = state.optimizer.state
    squares = sum(s["exp_avg"].div(1 - 0.9).square().sum() for s in clipped.values())
    assert squares.sqrt().item() == pytest.approx(0.5, rel=1e-3)
    assert state.meter.averages()["grad_norm"] > 100


def test_25_bad_gradient_leaves_the_weights(tiny, monkeypatch):
    """A NaN batch is skipped, counted and written down; the run goes on."""
    from unmask.tasks.pretrain import Pretrain

    original, steps = Pretrain.step, iter(range(100))

    def step(self, model, batch, draw):
        output = original(self, model, batch, draw)
        return output._replace(loss=output.loss * math.nan) if next(steps) == 4 else output

    monkeypatch.setattr(Pretrain, "step", step)
    run = unmask.pretrain(tiny)
    (bad,) = map(json.loads, (run / "bad_steps.jsonl").read_text().splitlines())
    assert bad["step"] == 2
    assert len(bad["samples"]) == 6
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["skipped_steps"] == 1
    assert all(p.isfinite().all() for p in unmask.load(run).parameters())


def test_25_a_good_step_ends_a_row_of_bad_ones():
    _, state = one_step([torch.ones(2, FEATURES)])
    good, bad = (Measured({"loss": 1.0}, 1.0, stops=False, norm=norm) for norm in (1.0, math.nan))
    assert [count_step(state, one) for one in (bad, bad, good, bad)] == [False, False, True, False]
    assert (state.bad_in_a_row, state.meter.skipped_steps) == (1, 3)


def test_25_endless_bad_gradients_stop(tiny, monkeypatch):
    from unmask.tasks.pretrain import Pretrain

    original = Pretrain.step

    def step(self, model, batch, draw):
        output = original(self, model, batch, draw)
        return output._replace(loss=output.loss * math.inf)

    monkeypatch.setattr(Pretrain, "step", step)
    longer = replace(tiny, optim=replace(tiny.optim, steps=50))
    with pytest.raises(DivergenceError, match="10 steps in a row"):
        unmask.pretrain(longer)


def test_21_lost_loader_reported_in_the_middle_of_a_step(tiny, monkeypatch):
    """Torch raises where the program happens to be when it hears of the death."""
    from unmask.tasks.pretrain import Pretrain

    def step(self, model, batch, draw):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(Pretrain, "step", step)
    with pytest.raises(DataError, match=r"--data\.workers 0"):
        unmask.pretrain(tiny)


def test_learning_rate():
    plan = replace(plan_for(PretrainConfig()), steps=110, warmup_steps=10, lr=2.0)
    rates = [learning_rate(step, plan) for step in range(111)]
    assert rates[0] == 0
    assert rates[5] == 1.0
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[110] == pytest.approx(0.0)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_decay_groups(tiny):
    from tests_support import spec_for
    from unmask.core.mae import MaskedAutoencoder

    model = MaskedAutoencoder(spec_for(tiny))
    decayed, free = decay_groups(model, 0.05)
    names = {id(p): name for name, p in model.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert {names[id(p)] for p in free["params"]} == {
        name for name in names.values() if name.endswith("bias") or "norm" in name
    }
    assert {"encoder.cls_token", "decoder.mask_token"} <= {names[id(p)] for p in decayed["params"]}
    assert not any("pos_embed" in names[id(p)] for p in [*decayed["params"], *free["params"]])


def test_average_follows():
    model = nn.Linear(2, 1)
    average = WeightAverage(model, 0.75)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update(model)
    torch.testing.assert_close(average.weights["weight"], before + 0.25)
