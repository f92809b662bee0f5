"""Faults 11, 12 and 16: kills, full disks and other writers at the edges of a run."""

import json
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import unmask
from faults_support import KILLED, PASSED, in_child
from unmask import storage
from unmask.data.loader import Batches
from unmask.engine import checkpoint
from unmask.engine.metrics import MetricsLog
from unmask.engine.run_directory import ENVIRONMENT, RunDirectory, opened
from unmask.engine.session import _resuming
from unmask.errors import CheckpointError
from unmask.faults import armed
from unmask.tasks import find_task

pytestmark = pytest.mark.usefixtures("blank_charts")


def table(run: Path) -> list[str]:
    return (run / "metrics.csv").read_text().splitlines()


@pytest.mark.parametrize("point", ["write", "sync", "rename", "renamed"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_11_killed_in_the_first_second(tmp_path, tiny, point, nth):
    """config.json, env.json and what follows: the same command goes on."""
    path = tmp_path / "run"

    def begin():
        with opened(path, tiny, "pretrain") as run:
            run.write("plan.json", "{}")

    assert in_child(begin, f"run.{point}:kill:{nth}") == KILLED
    assert in_child(begin) == PASSED
    assert json.loads((path / "config.json").read_text())["out"] == tiny.out


def test_12_disk_full_in_the_first_second(tmp_path, tiny):
    for nth in (1, 2):
        with (
            armed(f"run.write:enospc:{nth}"),
            pytest.raises(CheckpointError, match=r"needs [\d.]+ (bytes|KiB).*disk of .* free"),
            opened(tmp_path / "run", tiny, "pretrain"),
        ):
            pass
    with opened(tmp_path / "run", tiny, "pretrain") as run:
        assert not [p.name for p in run.path.iterdir() if p.name.endswith(".unfinished")]


def test_12_space_is_checked_before_the_first_step(tiny, monkeypatch):
    usage = shutil.disk_usage(tiny.data.source[0])._replace(free=50_000)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"checkpoints and the model need up to .* free"):
        unmask.pretrain(tiny)
    assert not (Path(tiny.out) / "checkpoints").exists()


def test_11_killed_between_the_last_checkpoint_and_the_table(tiny):
    """Four checkpoints, of steps 2, 4, 6 and 7."""
    run = Path(tiny.out)
    assert in_child(lambda: unmask.pretrain(tiny), "checkpoint.renamed:kill:4") == KILLED
    assert [step for step, _ in checkpoint.steps_in(run / "checkpoints")][-1] == 7
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(table(run)) < len(steps) + 1
    unmask.pretrain(tiny)
    assert [line.split(",")[0] for line in table(run)[1:]] == [str(step) for step in steps]


@pytest.mark.parametrize("back", [False, True])
def test_12_run_directory_removed_in_mid_run(tiny, monkeypatch, back):
    """It does not come back by itself, and one that took its place is not written to."""
    original, run = Batches.from_step, Path(tiny.out)

    def from_step(self, start, stopping):
        for step, micro_batches in enumerate(original(self, start, stopping), start):
            if step == 3:
                shutil.rmtree(run)
                if back:
                    run.mkdir()
                    (run / ".lock").touch()
                    (run / "config.json").write_text("{}")
            yield micro_batches

    monkeypatch.setattr(Batches, "from_step", from_step)
    with pytest.raises(CheckpointError, match="removed or replaced while the run went on"):
        unmask.pretrain(tiny)
    assert sorted(p.name for p in run.glob("*")) == ([".lock", "config.json"] if back else [])


def test_16_two_threads_of_one_process(tmp_path, tiny):
    printed: list[str] = []

    def second():
        try:
            with opened(tmp_path / "other" / ".." / "run", tiny, "pretrain"):
                printed.append("opened")
        except CheckpointError as error:
            printed.append(str(error))

    (tmp_path / "other").mkdir()
    with opened(tmp_path / "run", tiny, "pretrain"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert "another thread of this process" in printed[0]
        assert in_child(second) == PASSED  # and the first one's lock still holds
    with opened(tmp_path / "run", tiny, "pretrain"):
        pass


def test_16_a_lock_that_is_a_link_empties_nothing(tmp_path, tiny):
    (tmp_path / "run").mkdir()
    (tmp_path / "thesis").write_text("precious")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "thesis")
    with pytest.raises(CheckpointError, match="is a link"), opened(tmp_path / "run", tiny, "pretrain"):
        pass
    assert (tmp_path / "thesis").read_text() == "precious"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [".lock", "config.json", "metrics.jsonl"])
def test_16_a_pipe_in_the_place_of_a_file_does_not_hang(tmp_path, tiny, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "run" / name)
    with pytest.raises(CheckpointError), opened(tmp_path / "run", tiny, "pretrain") as run:
        MetricsLog(run, None)


@pytest.mark.parametrize("content", ["[]", "3", "", "{", "\ufffd", '{"seed": ' + "[" * 50_000])
def test_32_a_damaged_config_is_a_sentence(tmp_path, tiny, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(content)
    with (
        pytest.raises(CheckpointError, match=r"config\.json"),
        opened(tmp_path / "run", tiny, "pretrain"),
    ):
        pass


def test_01_what_changes_the_rounding_is_said(tmp_path, tiny):
    with opened(tmp_path / "run", tiny, "pretrain") as run:
        assert run.differs == ()
    known = json.loads((run.path / "env.json").read_text())
    for key, words in ENVIRONMENT.items():
        run.write("env.json", json.dumps({**known, key: "another"}))
        with opened(tmp_path / "run", tiny, "pretrain") as run:
            assert run.differs == (f"{words} another then, {known[key]} now",)
    assert RunDirectory(run.path).differs == ()


def test_01_a_model_that_a_gpu_does_not_repeat_is_not_said_to_be_exact():
    on = {device: SimpleNamespace(device=device, steps=9) for device in ("cpu", "cuda")}
    said = {
        (device, task): _resuming(
            SimpleNamespace(run=RunDirectory(Path()), training=on[device], task=find_task(task)), 4
        )
        for device in on
        for task in ("pretrain", "segment", "detect")
    }
    inexact = {key for key, words in said.items() if "the same up to rounding, since a GPU" in words}
    assert inexact == {("cuda", "segment"), ("cuda", "detect")}
    assert said["cuda", "pretrain"] == said["cpu", "detect"] == "resuming exactly after step 4 of 9"
