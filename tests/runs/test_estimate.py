"""A dry run: what a step on few images says of a whole run."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests_support import resolved
from unmask.cost.count import count_activations
from unmask.runs import estimate as estimates
from unmask.runs.estimate import Estimate, Step, estimate, summary_of_sweep
from unmask.runs.run import run
from unmask.tasks.classify import Scratch
from unmask.tasks.pretrain import Pretrain

MEASURED = Step(images=4, seconds=2.0, reading=0.5, image_bytes=2**20)


def estimated(plan, step: Step | None = MEASURED) -> Estimate:
    return Estimate(
        folder=Path("runs/x"),
        lines=("5 steps",),
        plan=plan,
        step=step,
        state_bytes=3 * 2**20,
        checkpoint_bytes=2**20,
        disk_bytes=2**21,
        free_bytes=2**30,
        evaluations=3,
    )


def planned(tiny, *, keep: bool, workers: int, batch: int = 8):
    config = replace(tiny, optim=replace(tiny.optim, steps=100, batch=batch, micro_batch=4))
    plan = resolved(config, images=80)
    return replace(plan, loading=replace(plan.loading, keep_decoded=keep, workers=workers))


def test_the_slower_of_arithmetic_and_reading_counts(tiny):
    """100 steps of 8 images at half a second each; or 800 samples at half a second, or 80 if kept."""
    assert estimated(planned(tiny, keep=True, workers=1)).seconds == pytest.approx(400)
    assert estimated(planned(tiny, keep=False, workers=1)).seconds == pytest.approx(400)
    slow = replace(MEASURED, reading=2.0)
    assert estimated(planned(tiny, keep=False, workers=1), slow).seconds == pytest.approx(1600)
    assert estimated(planned(tiny, keep=False, workers=2), slow).seconds == pytest.approx(800)
    assert estimated(planned(tiny, keep=True, workers=1), slow).seconds == pytest.approx(400)


def test_sentences(tiny):
    one = estimated(planned(tiny, keep=False, workers=1))
    assert list(one.messages()) == [
        "5 steps",
        "time: about 6.7 minutes on this machine for the steps, 4 s each, as measured on 4 images; 3 "
        "evaluations come on top",
        "memory: about 3 MiB for weights, gradients and optimizer, 4 MiB for the activations of 4 "
        "images, beside what Python and the libraries take",
        "disk: up to 2 MiB in runs/x, of which a checkpoint takes 1 MiB; 1 GiB are free",
    ]
    *_, total = summary_of_sweep({"seed=0": one, "seed=1": one})
    assert total == "2 runs, about 13.3 minutes in all"
    unmeasured = estimated(planned(tiny, keep=False, workers=1), None)
    assert "time: not estimated" in list(unmeasured.messages())[1]
    assert list(summary_of_sweep({"a": unmeasured}))[-1] == "1 run"


def test_a_model_too_large_to_be_measured(tiny, monkeypatch):
    monkeypatch.setattr(estimates, "MOST_SECONDS", 1e-9)
    assert estimate(Pretrain(tiny)).step is None


@pytest.mark.parametrize("batch", [6, 2])
def test_what_is_measured_of_a_pretraining(tiny, batch):
    """Activations as counted by arithmetic; the checkpoint as it is written; and nothing stays."""
    found = estimate(Pretrain(replace(tiny, optim=replace(tiny.optim, batch=batch))))
    assert found.step is not None
    assert found.step.images % 2 == 0
    counted = count_activations(found.plan.model, "fp32", "cpu").total
    assert found.step.image_bytes == pytest.approx(counted, rel=0.05)
    assert not Path(tiny.out).exists()
    folder = run(Pretrain(tiny))
    newest = max((folder / "checkpoints").iterdir())
    written = sum(path.stat().st_size for path in newest.iterdir())
    assert found.checkpoint_bytes == pytest.approx(written, rel=0.2)
    assert not math.isnan(found.seconds)


def test_labelled_training(scratch):
    """Mixup takes pairs of images, and batch normalisation more than one."""
    found = estimate(Scratch(replace(scratch, augment=replace(scratch.augment, mixup=0.8))))
    assert found.seconds > 0
    assert json.dumps(list(found.messages()))
