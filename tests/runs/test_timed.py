"""--time: steps that are timed at the start, laid out in plan.json, and kept on resume."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import unmask
from unmask.cli.main import run
from unmask.config.budget import Costs
from unmask.engine import trial
from unmask.engine.run_directory import opened
from unmask.runs import timed
from unmask.runs.run import dry_run
from unmask.runs.run import run as run_task
from unmask.tasks.pretrain import Pretrain

pytestmark = pytest.mark.usefixtures("blank_charts")

MEASURED = Costs(step=1.0, later_step=1.0, once=0.0, evaluations=(0.0, 0.0, 0.0), save=0.0)


@pytest.fixture
def measured(monkeypatch):
    """Parts are timed really, and then taken to be a second for each step; those calls."""
    calls, really = [], timed.time_parts

    def fake(session, left):
        calls.append(really(session, 3600.0))
        return replace(MEASURED, evaluations=(0.0,) * len(session.evaluators))

    monkeypatch.setattr(timed, "time_parts", fake)
    monkeypatch.setattr(trial, "MOST_SECONDS", 0.0)
    for module in ("timed", "run"):  # what preparing takes, and not what the timing measures
        monkeypatch.setattr(f"unmask.runs.{module}.perf_counter", lambda: 0.0)
    return calls


@pytest.fixture
def asked(tiny):
    """A hundred steps, of which 20 are warm-up, unless the time says otherwise."""
    optim = replace(tiny.optim, steps=100, warmup_steps=20)
    return replace(tiny, optim=optim, run=replace(tiny.run, time="10.15s"))


def plan_in(path):
    return json.loads((path / "plan.json").read_text())["training"]


def test_the_timing_leaves_no_trace(asked, measured, tmp_path):
    """The run is the one that would have been, had its steps been given."""
    timed_run = run_task(Pretrain(asked))
    plan = plan_in(timed_run)
    assert (plan["steps"], plan["warmup_steps"]) == (10, 2), "the warm-up keeps its share"
    optim = replace(asked.optim, steps=10, warmup_steps=2)
    usual = replace(asked, out=str(tmp_path / "usual"), optim=optim, run=replace(asked.run, time=None))
    usual_run = run_task(Pretrain(usual))
    weights, same = (load_file(path / "model.safetensors") for path in (timed_run, usual_run))
    assert all(torch.equal(weights[name], same[name]) for name in same)
    assert {path.name for path in timed_run.iterdir()} == {path.name for path in usual_run.iterdir()}
    assert len(measured) == 1
    (costs,) = measured
    assert min(costs.step, costs.later_step, costs.once, costs.save, *costs.evaluations) >= 0
    assert costs.step > 0


def test_a_resumed_run_keeps_its_steps(asked, measured, monkeypatch):
    """What was timed then counts, however fast the machine is now."""
    path = run_task(Pretrain(asked))
    (path / "model.safetensors").unlink()
    shutil.rmtree(path / "checkpoints/step-00000010")
    monkeypatch.setattr(timed, "time_parts", lambda *_: pytest.fail("timed again"))
    run_task(Pretrain(asked))
    assert plan_in(path)["steps"] == 10
    assert "resuming exactly after step 8 of 10" in (path / "train.log").read_text()


def test_the_next_start_removes_what_a_killed_timing_left(asked, measured):
    path = Pretrain(asked).path()
    with opened(path, asked, "pretrain"):
        (path / f"{timed.PREFIX}abc/checkpoints").mkdir(parents=True)
    assert not list(run_task(Pretrain(asked)).glob(f"{timed.PREFIX}*"))


def test_dry_run_and_python(asked, measured):
    assert dry_run(Pretrain(asked)).training.steps == 10
    plan = unmask.pretrain(replace(asked, run=replace(asked.run, time=None)), time="20.3s", dry_run=True)
    assert plan.training.steps == 20
    assert any(note.startswith("--time 20.3s: 20 steps") for note in plan.notes)


def test_too_short(asked, monkeypatch, photos, capsys):
    """One sentence, whether the time ends during the timing or after it."""
    short = replace(asked, run=replace(asked.run, time="0.001s"))
    with pytest.raises(
        ValueError, match=r"--time 0.001s is over before the first step.*write --time \d+m"
    ):
        run_task(Pretrain(short))
    monkeypatch.setattr(
        timed, "time_parts", lambda *_: replace(MEASURED, step=1e9, evaluations=(0.0,) * 3)
    )
    with pytest.raises(ValueError, match=r"--time 10.15s is over before the first step"):
        run_task(Pretrain(asked))


def test_a_length_is_given_once(photos, capsys):
    assert run(["pretrain", str(photos), "--time", "10m", "--optim.steps", "5", "--dry-run"]) == 2
    expected = "--time decides the number of steps, and --optim.steps was given too: leave one out"
    assert expected in capsys.readouterr().err
    assert run(["scratch", str(photos), "--time=later", "--print-config"]) in (0, 2)
    with pytest.raises(ValueError, match="--time decides"):
        unmask.pretrain(str(photos), time="10m", epochs=3, dry_run=True)
