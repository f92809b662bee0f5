"""Fault 11 at the named points of a run: of save, load, step and decode, for every task."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import unmask
from faults.every_task import TASKS, EveryTask
from faults.test_kills import assert_same
from faults_support import FAILED, KILLED, in_child
from unmask import faults
from unmask.config.image import PixelFormat
from unmask.data.bad_images import BadImageLog
from unmask.data.sources.find import find_images
from unmask.faults import NAMES, POINTS, InjectedError, armed, fault_point

pytestmark = pytest.mark.usefixtures("blank_charts")

CODES = {"kill": KILLED, "raise": FAILED}
OF_EVERY_RUN = [name for name in NAMES if not name.startswith("bad_images.")]
OF_STEPS = [name for name in NAMES if name.startswith("step.")]
DECODING = ("decode.open", "decode.pixels")


def saving_each_step(config, workers: int = 0):
    """With one checkpoint kept, so that each save removes one, too."""
    run = replace(config.run, checkpoint_every=1, keep_checkpoints=1, log_every=1, evaluate_every=100)
    return replace(config, data=replace(config.data, workers=workers), run=run)


def stop_at_each(points, call, config, folder: Path, code_of) -> None:
    """One run that is stopped at each point, one after another, and then equals one that was not."""
    whole = call(replace(config, out=str(folder / "whole")))
    one = partial(call, replace(config, out=str(folder / "run")))
    for name, kind in points:
        assert in_child(one, f"{name}:{kind}") == code_of(name, kind), name
    assert_same(one(), whole)


def code(name: str, kind: str) -> int:
    """Without loader processes."""
    return CODES[kind]


def test_11_killed_at_every_point_of_a_step(tiny, tmp_path):
    points = [(name, "kill") for name in OF_STEPS]
    stop_at_each(points, unmask.pretrain, saving_each_step(tiny), tmp_path, code)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", TASKS)
def test_11_killed_at_every_point_of_a_run(tiny, scratch, tmp_path, task):
    call, config = EveryTask(tiny, scratch, tmp_path).run_of(task, 6)
    points = [(name, "kill") for name in OF_EVERY_RUN]
    stop_at_each(points, call, saving_each_step(config), tmp_path, code)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_11_an_error_at_every_point_of_a_run(tiny, tmp_path):
    """Of no known kind. While an image is decoded, it is only that image that is broken."""
    points = [(name, "raise") for name in OF_EVERY_RUN if name not in DECODING]
    stop_at_each(points, unmask.pretrain, saving_each_step(tiny), tmp_path, code)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", ["scratch", "detect"])
def test_21_a_loader_process_is_killed_while_it_decodes(tiny, scratch, tmp_path, task):
    """Not the main one, which decodes nothing before if there is a checkpoint."""
    call, config = EveryTask(tiny, scratch, tmp_path).run_of(task, 5)
    points = [("checkpoint.renamed", "kill"), *((name, "kill") for name in DECODING)]

    def code_with_loaders(name: str, kind: str) -> int:
        return FAILED if name in DECODING else KILLED

    stop_at_each(points, call, saving_each_step(config, workers=2), tmp_path, code_with_loaders)


@pytest.mark.parametrize("name", DECODING)
def test_20_storage_that_fails_for_a_moment_changes_nothing(photos, name):
    images = find_images((str(photos),))
    wanted = PixelFormat(channels=3)
    before = images.decode(0, wanted)
    with armed(f"{name}:eio"):
        assert images.decode(0, wanted).equal(before)
    with armed(f"{name}:raise"):
        assert "InjectedError" in images.decode(0, wanted).reason


@pytest.mark.parametrize("point", POINTS["bad_images"])
def test_11_killed_while_a_damaged_list_is_repaired(tmp_path, point):
    file = tmp_path / "bad_images.jsonl"
    file.write_text('{"path": "a.png", "reason": "x"}\n{\n')

    def log() -> BadImageLog:
        return BadImageLog(file, images=100, max_share=0.5)

    assert in_child(log, f"bad_images.{point}:kill") == KILLED
    assert log().known == {"a.png"}
    assert file.read_text().count("\n") == 1
    assert set(file.with_name("bad_images.damaged.jsonl").read_text().split()) == {"{"}


def test_points_are_listed():
    """Else none could be armed: a name that is written nowhere is refused, and so is one in no list."""
    with pytest.raises(ValueError, match=r"checkpoint.renmae:kill.* a point of run.write"):
        faults._parse("checkpoint.renmae:kill")
    with armed("step.done:raise:2"):
        fault_point("step.done")
        with pytest.raises(AssertionError, match="missing in POINTS"):
            fault_point("step.dnoe")
        with pytest.raises(InjectedError):
            fault_point("step.done")
