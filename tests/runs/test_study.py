"""Several runs of one command: compared by the task's first metric, resumable, the best first."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

import unmask
from tests_support import linked
from unmask.config.commands import ScratchConfig
from unmask.config.keywords import with_settings
from unmask.errors import CheckpointError, DivergenceError
from unmask.runs.study import Row, Study, run_sweep
from unmask.tasks.classify import Scratch

pytestmark = pytest.mark.usefixtures("blank_charts")


def test_sweep_reports_all_and_chooses_the_best(scratch, tmp_path, capsys):
    base = replace(scratch, out=str(tmp_path / "sweep"), optim=replace(scratch.optim, steps=2))
    sweep = {"optim.base_lr": [0.001, 0.01]}
    done = unmask.scratch(base, sweep=sweep, seeds=[0, 1])
    assert [len(row.values) for row in done.rows] == [2, 2]
    assert done.best.mean >= done.rows[1].mean
    runs = {f"base_lr={rate}_seed={seed}" for rate in ("0.001", "0.01") for seed in "01"}
    assert {p.name for p in done.path.iterdir()} == {*runs, ".unmask", "sweep.json", "report.html"}
    assert linked(done.path / "report.html") == runs
    assert "over 2 runs" in capsys.readouterr().out
    unmask.scratch(base, sweep=sweep, seeds=[0, 1])
    assert capsys.readouterr().out.count("nothing to do") == 4


def test_a_folder_of_others_is_no_place_for_a_sweep(tiny, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty and unmask did not write it"):
        unmask.pretrain(tiny, out=tmp_path, seeds=[0, 1])
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_dry_run_plans_every_run(tiny):
    plans = unmask.pretrain(tiny, dry_run=True, seeds=[0, 1], sweep={"mask.ratio": [0.5]})
    assert [plan.training.seed for plan in plans.values()] == [0, 1]
    assert list(plans) == ["ratio=0.5_seed=0", "ratio=0.5_seed=1"]
    with pytest.raises(ValueError, match="batch is 0"):
        unmask.pretrain(tiny, dry_run=True, sweep={"optim.batch": [6, 0]})
    assert not Path(tiny.out).exists()


def test_seeds_of_a_pretraining(tiny, tmp_path, capsys):
    """Compared by the held-out error, the lowest first; finished runs keep their weights alone."""
    short = replace(tiny, out=str(tmp_path / "sweep"), optim=replace(tiny.optim, steps=2))
    done = unmask.pretrain(short, seeds=[0, 1])
    assert re.search(
        r"held-out error on masked pixels 0\.\d+ \+- 0\.\d+ over 2 runs", capsys.readouterr().out
    )
    (row,) = json.loads((done.path / "sweep.json").read_text())
    assert row["runs"] == ["seed=0", "seed=1"]
    measured = [_last(done.path / name, "held_out/error") for name in row["runs"]]
    assert row["held_out/error"]["values"] == measured
    assert measured[0] != measured[1]
    for name in row["runs"]:
        assert (done.path / name / "model.safetensors").exists()
        assert not (done.path / name / "checkpoints").exists()
    assert unmask.pretrain(short, seeds=[0, 1]) == done, "they are finished"
    swept = unmask.pretrain(short, out=tmp_path / "other", sweep={"base_lr": [0.0, 0.1]})
    assert swept.rows[0].mean < swept.rows[1].mean
    assert swept.best.settings == {"optim.base_lr": "0.1"}


def _last(run: Path, key: str) -> float:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [record[key] for record in map(json.loads, lines) if key in record][-1]


def rates(scratch: ScratchConfig, out: Path, *asked: str) -> list[tuple[dict[str, str], Scratch]]:
    """A sweep of learning rates, over steps enough to diverge."""
    base = with_settings(scratch, {"out": out, "steps": 16})
    return [
        (
            {"optim.base_lr": rate, "run.seed": seed},
            Scratch(with_settings(base, {"base_lr": float(rate), "seed": int(seed)})),
        )
        for rate in asked
        for seed in "01"
    ]


def swept(runs: list[tuple[dict[str, str], Scratch]]) -> Study:
    return run_sweep(runs, base=runs[0][1])


@pytest.mark.drawn
def test_a_sweep_goes_on_where_a_run_diverges(scratch, tmp_path, capsys):
    runs = rates(scratch, tmp_path / "sweep", "1e38", "1e-3")[1:]
    for _ in range(2):
        done = swept(runs)
        assert [row.diverged for row in done.rows] == [(), ("base_lr=1e38_seed=1",)]
        assert 0 <= done.best.mean <= 1
        assert math.isnan(done.rows[1].mean)
        printed = capsys.readouterr().out
        assert "base_lr=1e38_seed=1 diverged and counts as not measured: the gradient" in printed
        assert re.search("base_lr=1e38 .*not measured; diverged: base_lr=1e38_seed=1", printed)
    best, last = json.loads((done.path / "sweep.json").read_text(), parse_constant=pytest.fail)
    assert best["diverged"] == []
    assert last["val/top1"] == {"mean": None, "deviation": None, "values": [None]}
    assert "diverged (base_lr=1e38_seed=1)" in (done.path / "report.html").read_text()


def test_a_sweep_of_diverging_runs_alone(scratch, tmp_path):
    with pytest.raises(DivergenceError, match="every run of the sweep diverged: lower --optim"):
        swept(rates(scratch, tmp_path / "sweep", "1e38"))


def test_spread_of_runs_of_which_one_did_not_measure():
    row = Row(settings={}, values=(0.5, math.nan), runs=("a", "b"))
    assert math.isnan(row.mean)
    assert math.isnan(row.spread)
