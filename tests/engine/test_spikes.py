"""Loss spikes: what is called one, and where it is said."""

from dataclasses import replace

import numpy as np
import pytest

import unmask
from unmask.engine.spikes import newest_spike, spikes

pytestmark = pytest.mark.usefixtures("blank_charts")


def records(losses) -> list[dict]:
    return [{"step": 10 * (i + 1), "loss": float(loss)} for i, loss in enumerate(losses)]


def steps(losses) -> list[int]:
    return [spike.step for spike in spikes(records(losses))]


@pytest.mark.parametrize("noise", [0, 0.01, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_noise_on_a_falling_curve_is_no_spike(noise, seed):
    rng = np.random.default_rng(seed)
    falling = 0.3 + np.exp(-np.arange(1000) / 100)
    assert not steps(falling * (1 + noise * rng.standard_normal(1000)))


def test_a_jump_is_one_spike_until_it_ends():
    losses = [0.5 + 0.01 * (-1) ** i for i in range(60)]
    losses[30:33] = [1.5, 1.4, 1.2]
    losses[40] = 3.0
    losses[50:53] = [0.9, 0.9, 0.9]
    assert steps(losses) == [310, 410, 510]
    assert spikes(records(losses))[0].median == pytest.approx(0.5, abs=0.011)


@pytest.mark.parametrize("seed", range(5))
def test_a_hard_batch_is_no_spike(seed):
    """As on ELPV: a batch of 16 with some bright cells has two to three times the usual loss."""
    rng = np.random.default_rng(seed)
    losses = 0.3 * (1 + 0.2 * rng.standard_normal(1000))
    losses[50::50] *= 2.5
    assert not steps(losses)


def test_a_new_level_is_one_spike():
    losses = [0.5 + 0.01 * (-1) ** i for i in range(30)]
    assert steps(losses + [2 * loss for loss in losses]) == [310]


def test_the_first_records_and_missing_losses_do_not_count():
    assert not steps([9, 3, 1, 5, 0.5, 4, 1])
    missing = [*records([0.5] * 20), {"step": 500, "loss": None}, {"step": 510, "held_out/error": 9}]
    assert not spikes(missing)


def test_only_the_newest_record_is_warned_of():
    losses = [0.5] * 60
    losses[30:33] = [1.0, 1.2, 1.0]
    losses[45] = 4.0
    found = [newest_spike(records(losses[:i])) for i in range(1, 61)]
    assert [(i + 1, spike.step) for i, spike in enumerate(found) if spike] == [(33, 310), (46, 460)]


def test_25_a_loss_spike_is_in_log_and_report(tiny, monkeypatch):
    from unmask.tasks.pretrain import Pretrain

    original, calls = Pretrain.step, iter(range(1000))

    def step(self, model, batch, draw):
        output = original(self, model, batch, draw)
        return output._replace(loss=output.loss * (50 if next(calls) // 2 == 20 else 1))

    monkeypatch.setattr(Pretrain, "step", step)
    run = unmask.pretrain(replace(tiny, optim=replace(tiny.optim, steps=24)))
    log = (run / "train.log").read_text()
    assert log.count("loss spike at step 22: ") == 1
    assert log.count("loss spike") == 1
    assert "Loss spikes" in (run / "report.html").read_text()
