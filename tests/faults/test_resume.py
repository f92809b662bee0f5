"""Faults 1, 2, 5, 6, 7, 8 and 10: a stopped run goes on as if nothing had happened."""

import json
import os
import re
import shlex
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from safetensors.torch import load_file

import unmask
from cli.test_commands import pretrain
from faults.test_checkpoints import as_format_1
from faults_support import KILLED, in_child
from tasks.test_detect import write_scenes as write_objects
from tasks.test_segment import CLASSES, tiny_segmenter
from tasks.test_segment import write_scenes as write_maps
from unmask.cli.main import run as command
from unmask.config.commands import PretrainConfig
from unmask.data.loader import Batches
from unmask.engine.checkpoint import steps_in
from unmask.errors import CheckpointError, DataError, Interrupted

pytestmark = pytest.mark.usefixtures("blank_charts")

TIMING = ("images_per_second", "data_wait", "memory_gib")


def weights(run: Path) -> dict:
    return load_file(run / "model.safetensors")


def learned(run: Path) -> list[dict]:
    """The metrics, without what depends on the clock."""
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in r.items() if name not in TIMING} for r in records]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    assert learned(one) == learned(other)


def signal_at(monkeypatch, step: int, number: int) -> None:
    """Sends this process a signal while the batch of `step` is being fetched."""
    original = Batches.from_step

    def from_step(self, start, stopping):
        with closing(original(self, start, stopping)) as batches:
            for current, micro_batches in enumerate(batches, start):
                if current == step:
                    os.kill(os.getpid(), number)
                yield micro_batches

    monkeypatch.setattr(Batches, "from_step", from_step)


def stopped(call, config, monkeypatch, at: int) -> Path:
    """A run that a signal stops after the step `at`, counted from 0."""
    with monkeypatch.context() as patch:
        signal_at(patch, at, signal.SIGTERM)
        with pytest.raises(Interrupted):
            call(config)
    return Path(config.out)


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory) -> Callable[[PretrainConfig], Path]:
    """A run of a configuration from its start to its end; of each there is one."""

    @cache
    def run(config: PretrainConfig) -> Path:
        return unmask.pretrain(replace(config, out=str(tmp_path_factory.mktemp("unstopped") / "run")))

    return lambda config: run(replace(config, out=None))


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("stop_at", [0, 1, 2, 3, 5])
def test_01_bit_for_bit(tiny, unstopped, monkeypatch, stop_at, ema):
    """Steps 0 to 6 of 6 images over 20: stops fall first, last and in the middle of an epoch."""
    tiny = replace(tiny, optim=replace(tiny.optim, ema=ema))
    with monkeypatch.context() as patch:
        signal_at(patch, stop_at, signal.SIGTERM)
        with pytest.raises(Interrupted) as stop:
            unmask.pretrain(tiny)
    assert stop.value.exit_code == 143
    assert steps_in(Path(tiny.out) / "checkpoints")[-1][0] == stop_at + 1
    assert_same_run(unmask.pretrain(tiny), unstopped(tiny))


def test_01_bit_for_bit_in_bf16(tiny, tmp_path, monkeypatch):
    """Also where bf16 is emulated."""
    tiny = replace(tiny, run=replace(tiny.run, precision="bf16"))
    whole = unmask.pretrain(replace(tiny, out=str(tmp_path / "whole")))
    stopped(unmask.pretrain, tiny, monkeypatch, at=3)
    assert_same_run(unmask.pretrain(tiny), whole)


def test_02_workers_change_nothing(tiny, unstopped, monkeypatch):
    whole = unstopped(tiny)
    with monkeypatch.context() as patch:
        signal_at(patch, 3, signal.SIGINT)
        with pytest.raises(Interrupted) as stop:
            unmask.pretrain(replace(tiny, data=replace(tiny.data, workers=2)))
    assert stop.value.exit_code == 130
    assert_same_run(unmask.pretrain(replace(tiny, data=replace(tiny.data, workers=1))), whole)


def test_05_changed_settings_are_named(tiny):
    unmask.pretrain(tiny)
    changed = replace(
        tiny, mask=replace(tiny.mask, ratio=0.5), optim=replace(tiny.optim, weight_decay=0.1)
    )
    with pytest.raises(CheckpointError, match=r"--mask.ratio was 0.75 and is 0.5; --optim.weight-decay"):
        unmask.pretrain(changed)


def test_05_settings_can_be_mended_before_the_first_checkpoint(tiny):
    wrong = replace(tiny, data=replace(tiny.data, size=(17,)))
    with pytest.raises(ValueError, match="does not divide"):
        unmask.pretrain(wrong)
    unmask.pretrain(tiny)


def test_06_finished_run_is_left_alone(tiny):
    run = unmask.pretrain(tiny)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert unmask.pretrain(tiny) == run
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_06_a_finished_run_of_other_images_is_named(tiny, photos, tmp_path, capsys):
    """The folder's name says little: other/photos would have the same run directory."""
    import shutil

    unmask.pretrain(tiny)
    other = shutil.copytree(photos, tmp_path / "other" / photos.name)
    moved = replace(tiny, data=replace(tiny.data, source=(str(other),)))
    assert unmask.pretrain(moved) == Path(tiny.out), "the same images elsewhere"
    assert f"is finished on images of the same names in {photos}" in capsys.readouterr().out
    next(other.rglob("*.png")).unlink()
    with pytest.raises(DataError, match="the images have changed since the run began"):
        unmask.pretrain(moved)


def test_06_the_images_of_a_finished_run_may_be_gone(tiny, photos, tmp_path):
    import shutil

    copy = shutil.copytree(photos, tmp_path / "copy")
    tiny = replace(tiny, data=replace(tiny.data, source=(str(copy),)))
    run = unmask.pretrain(tiny)
    shutil.rmtree(copy)
    assert unmask.pretrain(tiny) == run


def test_10_the_command_that_resumes_is_printed(photos, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        signal_at(patch, 1, signal.SIGTERM)
        assert pretrain(str(photos), "--out", str(tmp_path / "a run")) == 143
    _, asked = capsys.readouterr().err.split("saved after step 2 and stopped, as SIGTERM asked. Resume ")
    assert command(shlex.split(asked.removeprefix("with: unmask "))) == 0
    assert "resuming exactly after step 2 of 4" in capsys.readouterr().out


@pytest.mark.parametrize("stop", ["signal", "kill"])
def test_07_one_header_no_doubled_step(tiny, monkeypatch, stop):
    """The kill comes when the records of steps 3 and 4 are written and their checkpoint is not."""
    if stop == "signal":
        stopped(unmask.pretrain, tiny, monkeypatch, at=4)
    else:
        assert in_child(lambda: unmask.pretrain(tiny), "checkpoint.rename:kill:2") == KILLED
        assert [record["step"] for record in learned(Path(tiny.out))] == [0, 2, 3, 4]
    run = unmask.pretrain(tiny)
    steps = [record["step"] for record in learned(run)]
    assert steps == sorted(set(steps)) == [0, 2, 3, 4, 6, 7]
    table = (run / "metrics.csv").read_text().splitlines()
    assert len(table) == len(steps) + 1
    assert table[0].startswith("step,epoch")


def test_08_changed_data_stop_a_resume(tiny, photos, tmp_path, monkeypatch):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    tiny = replace(tiny, data=replace(tiny.data, source=(str(copy),)))
    stopped(unmask.pretrain, tiny, monkeypatch, at=2)
    next(copy.rglob("*.png")).unlink()
    with pytest.raises(DataError, match=r"then 24 images.*now 23 images"):
        unmask.pretrain(tiny)


@pytest.mark.parametrize("size", ["same", "another"])
def test_08_changed_files_under_the_same_names_are_said(
    tiny, photos, tmp_path, monkeypatch, capsys, size
):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    tiny = replace(tiny, data=replace(tiny.data, source=(str(copy),)))
    stopped(unmask.pretrain, tiny, monkeypatch, at=2)
    changed = next(copy.rglob("*.png"))
    if size == "another":
        changed.write_bytes(changed.read_bytes() + b"more")
    else:
        os.utime(changed, ns=(0, 0))
    unmask.pretrain(tiny)
    what = "have another size than when" if size == "another" else "were written again since"
    assert f"but not exactly: image files {what} the run began" in capsys.readouterr().out


def test_08_other_files_than_a_finished_runs(tiny, photos, tmp_path):
    """Of the same names: not the same data if a size differs; a copy is."""
    import shutil

    unmask.pretrain(tiny)
    copy = shutil.copytree(photos, tmp_path / "copy", copy_function=shutil.copyfile)
    other = replace(tiny, data=replace(tiny.data, source=(str(copy),)))
    unmask.pretrain(other)
    changed = next(copy.rglob("*.png"))
    changed.write_bytes(changed.read_bytes() + b"more")
    with pytest.raises(DataError, match=r"of the same names as in .* but of other sizes"):
        unmask.pretrain(other)


def test_08_what_rounds_otherwise_is_said(tiny, monkeypatch, capsys):
    stopped(unmask.pretrain, tiny, monkeypatch, at=2)
    unmask.pretrain(replace(tiny, optim=replace(tiny.optim, micro_batch=2)))
    said = capsys.readouterr().out
    assert "the same up to rounding, not exactly (images at once 4 then, 2 now)" in said
    assert "resuming exactly" not in said


def test_08_changed_label_maps_are_said(tmp_path, monkeypatch, capsys):
    segment = tiny_segmenter(write_maps(tmp_path / "maps"), tmp_path / "run")
    stopped(unmask.segment, segment, monkeypatch, at=1)
    os.utime(tmp_path / "maps" / "labels" / "03.png", ns=(0, 0))
    unmask.segment(segment)
    assert "image files or label maps were written again since the run" in capsys.readouterr().out


def test_13_a_checkpoint_without_the_sums_of_the_log_is_skipped(tiny, monkeypatch, capsys):
    """Of the format without a checksum."""
    _, newest = steps_in(stopped(unmask.pretrain, tiny, monkeypatch, at=2) / "checkpoints")[-1]
    as_format_1(newest, loop={})
    unmask.pretrain(tiny)
    assert f"set aside as broken-{newest.name}: the state of step 3" in capsys.readouterr().out


def test_08_other_objects_below_drawn_label_maps_stop_a_resume(tmp_path, monkeypatch):
    """All of COCO's label maps are drawn from one file."""
    folder = write_objects(tmp_path / "objects", {"train": 14, "val": 4})
    segment = tiny_segmenter(folder, tmp_path / "run")
    stopped(unmask.segment, segment, monkeypatch, at=1)
    file = folder / "train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = [[1, 1, 9, 1, 9, 9, 1, 9]]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="have changed since the run began"):
        unmask.segment(segment)


def test_08_other_values_of_the_classes_stop_a_resume(tmp_path, monkeypatch):
    """The same label maps then mean other classes."""
    names, listed = CLASSES, tmp_path / "classes.csv"
    listed.write_text(f"name,value\n{names[0]},0\n{names[1]},1\n{names[2]},2\n")
    segment = tiny_segmenter(write_maps(tmp_path / "maps"), tmp_path / "run")
    segment = replace(segment, data=replace(segment.data, classes=str(listed)))
    stopped(unmask.segment, segment, monkeypatch, at=1)
    listed.write_text(f"name,value\n{names[0]},0\n{names[1]},2\n{names[2]},1\n")
    with pytest.raises(DataError, match="have changed since the run began"):
        unmask.segment(segment)


@pytest.mark.parametrize("damage", ["mean", "empty", "list"])
def test_13_a_damaged_plan_stops_a_resume(tiny, monkeypatch, damage):
    """It says what was learned of the images."""
    file = stopped(unmask.pretrain, tiny, monkeypatch, at=2) / "plan.json"
    text = file.read_text()
    first = re.search(r'"mean": \[\s*0\.(\d)', text)
    flipped = text[: first.start(1)] + str((int(first[1]) + 1) % 10) + text[first.end(1) :]
    file.write_text({"mean": flipped, "empty": "{}", "list": "[]"}[damage])
    with pytest.raises(CheckpointError, match=r"plan.json .*restore it, or start a new run"):
        unmask.pretrain(tiny)
