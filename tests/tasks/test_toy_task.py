"""The proof of the seam: a task that rotation.py alone writes does what every task of ours does."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unmask
from tasks.rotation import ACCURACY, ENTRY, Rotate, RotateConfig, RotateData
from tests_support import assert_same_state, stopped_after
from unmask.cli.main import run
from unmask.config.settings import Run
from unmask.tasks import TASKS

pytestmark = pytest.mark.usefixtures("blank_charts")

KEY = ACCURACY.key
SCRIPT = """
import sys
from tasks.rotation import ENTRY
from unmask.cli.main import main
from unmask.tasks import TASKS

TASKS["rotate"] = ENTRY
main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def registered(monkeypatch) -> None:
    monkeypatch.setitem(TASKS, "rotate", ENTRY)


@pytest.fixture
def config(photos, tmp_path) -> RotateConfig:
    return RotateConfig(
        out=str(tmp_path / "run"),
        data=RotateData(source=(str(photos),), workers=0),
        run=Run(precision="fp32", log_every=1, evaluate_every=2, checkpoint_every=2),
    )


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def measured(run: Path) -> list[float]:
    return [record[KEY] for record in records(run) if KEY in record]


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in records(run) if record["step"]]


def test_it_is_short():
    assert len(Path(__file__).with_name("rotation.py").read_text().splitlines()) <= 100


def test_the_command(photos, tmp_path, monkeypatch, capsys):
    """It is listed, has its help, trains, and its result is in the console and in the report."""
    monkeypatch.chdir(tmp_path)
    assert run(["--help"]) == 0
    assert "rotate       which way up?" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        run(["rotate", "--help"])
    flags = capsys.readouterr().out
    assert "--optim.base-lr" in flags
    assert "--mask.ratio" not in flags
    assert run(["rotate", str(photos), "--data.workers", "0", "--optim.steps", "3"]) == 0
    folder, printed = tmp_path / "runs" / "rotate-photos", capsys.readouterr().out
    assert f"rotation accuracy {measured(folder)[-1]:.1%}" in printed
    page = (folder / "report.html").read_text()
    assert f"Rotation accuracy {measured(folder)[-1]:.1%}" in page
    assert "Rotation prediction" in page
    assert (folder / "plots" / "curves.png").exists()
    model = unmask.load(folder)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    assert model.description.model.type == "rotation"
    assert run(["rotate", str(photos), "--data.workers", "0", "--optim.steps", "3"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run(["rotate", str(photos), "--recipe", "nothing"]) == 2
    assert "choose one of four-turns" in capsys.readouterr().err


@pytest.mark.parametrize("step", [1, 4])
def test_it_resumes_bit_for_bit(config, tmp_path, monkeypatch, step):
    whole = unmask.train("rotate", replace(config, out=str(tmp_path / "whole")))
    stopped_after(monkeypatch, step, lambda: unmask.train("rotate", config))
    resumed = unmask.train("rotate", config)
    assert_same_state(*(load_file(path / "model.safetensors") for path in (whole, resumed)))
    assert losses(resumed) == losses(whole)
    assert measured(resumed) == measured(whole)


def test_it_learns(config, tmp_path):
    """Pictures that are bright above and dark below; chance is a quarter."""
    folder = tmp_path / "upright"
    folder.mkdir()
    for i in range(16):
        noise = np.random.default_rng(i).integers(0, 60, (20, 20))
        sky = np.linspace(180, 0, 20)[:, None] + noise
        Image.fromarray(np.uint8(sky)).save(folder / f"{i}.png")
    data = replace(config.data, source=(str(folder),))
    longer = replace(config.optim, steps=60, base_lr=0.3)
    found = measured(unmask.train("rotate", replace(config, data=data, optim=longer)))
    assert found[-1] > 0.9 > found[0]


def test_it_is_swept_over_seeds(config, capsys):
    done = unmask.train("rotate", config, seeds=[0, 1])
    (row,) = json.loads((done.path / "sweep.json").read_text())
    assert row["runs"] == ["seed=0", "seed=1"]
    assert row[KEY]["values"] == [measured(done.path / name)[-1] for name in row["runs"]]
    assert "rotation accuracy" in capsys.readouterr().out
    assert "rotation accuracy" in (done.path / "report.html").read_text()


def test_it_plans(config):
    plan = unmask.train("rotate", config, dry_run=True)
    assert plan.model == Rotate(config).spec(None, plan.image, None)
    assert not Path(config.out).exists()


@pytest.mark.slow
def test_two_processes_equal_one(photos, tmp_path):
    """Training to rounding, and the score of each evaluation exactly, of the same weights."""
    runs = []
    for processes in (1, 2):
        runs.append(out := tmp_path / str(processes))
        flags = ["--data.workers", "0", "--run.precision", "fp32", "--run.log-every", "1"]
        words = ["rotate", str(photos), "--out", str(out), "--run.evaluate-every", "2", *flags]
        done = torchrun(processes, tmp_path, words)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = runs
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert measured(two)[0] == measured(one)[0]
    assert len(measured(one)) == len(measured(two)) == 4


def torchrun(processes: int, folder: Path, words: list[str]) -> subprocess.CompletedProcess:
    script = folder / "rotate.py"
    script.write_text(SCRIPT)
    places = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [sys.executable, *launcher, str(script), *words],
        env={**environment, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=240,
    )
