"""Faults 9, 11 to 14 and 25: a checkpoint is verified whole, or it is not there."""

import errno
import itertools
import json
import math
import os
import shutil
import signal
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faults_support import KILLED, PASSED, in_child, silent
from unmask.engine import checkpoint, session
from unmask.engine.checkpoint import Checkpoint
from unmask.errors import CheckpointError
from unmask.faults import armed

pytestmark = pytest.mark.usefixtures("blank_charts")

METER = {"weight": 1.5, "sums": {"loss": 0.25}, "skipped_steps": 0}
LOOP = {"meter": METER, "bad_in_a_row": 0}
ABSENT = object()
POINTS = ("mkdir", "write", "sync", "rename", "renamed", "remove", "removed")


def at_step(step: int, value: float | None = None) -> Checkpoint:
    weights = torch.full((10,), float(step) if value is None else value)
    return Checkpoint(step, {"model": {"w": weights}, "average": {"w": weights}}, LOOP)


def save(folder: Path, *steps: int, keep: int = 2) -> None:
    for step in steps:
        checkpoint.save(folder, at_step(step), keep, silent)


def newest(folder: Path) -> int:
    found = checkpoint.load_newest(folder, silent, session.check_loop)
    assert found is not None
    assert found.tensors["model"]["w"].eq(found.step).all()
    return found.step


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("nth", range(1, 6))
@pytest.mark.parametrize("point", POINTS)
def test_11_kill_9_at_every_point_of_a_save(tmp_path, point, nth):
    save(tmp_path, 1, keep=1)
    code = in_child(lambda: save(tmp_path, 2, keep=1), f"checkpoint.{point}:kill:{nth}")
    assert code == KILLED or (code == PASSED and nth > 1)
    assert newest(tmp_path) == (2 if code == PASSED or point in ("renamed", "remove", "removed") else 1)
    assert not list(tmp_path.glob(".unfinished*"))
    save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["step-00000003"]


def test_11_killed_while_an_old_one_is_removed(tmp_path):
    """What is left of it is no broken checkpoint."""
    save(tmp_path, 1)

    def killed(folder: Path) -> None:
        next(folder.iterdir()).unlink()
        os.kill(os.getpid(), signal.SIGKILL)

    with mock.patch.object(shutil, "rmtree", killed):
        assert in_child(lambda: save(tmp_path, 2, keep=1)) == KILLED
    assert newest(tmp_path) == 2
    assert names(tmp_path) == ["step-00000002"]


@pytest.mark.parametrize("kind", ["enospc", "eio", "raise"])
@pytest.mark.parametrize("point", POINTS[:4])
def test_12_a_disk_that_fails_at_any_point_changes_nothing(tmp_path, point, kind):
    save(tmp_path, 1)
    with armed(f"checkpoint.{point}:{kind}"), pytest.raises(Exception) as error:  # noqa: PT011  # below
        save(tmp_path, 2)
    if kind != "raise":
        assert isinstance(error.value, CheckpointError)
        assert str(tmp_path) in str(error.value)
        assert ("iB free: make room" in str(error.value)) is (kind == "enospc")
    assert names(tmp_path) == ["step-00000001"]
    assert newest(tmp_path) == 1


def test_12_a_removed_run_does_not_come_back(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written: No such file or directory"):
        save(tmp_path / "gone" / "checkpoints", 1)
    assert not (tmp_path / "gone").exists()


def test_13_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path):
    """A run would begin again from step 0."""
    save(tmp_path, 1)
    no_folder = mock.patch.object(Path, "is_dir", return_value=False)  # as Python 3.14 answers then
    broken = mock.patch.object(Path, "iterdir", side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))
    with no_folder, broken, pytest.raises(OSError, match="Input/output error"):
        checkpoint.load_newest(tmp_path, silent)


@pytest.mark.parametrize(
    ("call", "file"),
    [
        ("lstat", checkpoint.STATE_CHECKSUM),
        ("open", checkpoint.STATE_CHECKSUM),
        *itertools.product(("open", "fstat"), (checkpoint.STATE, "model.safetensors")),
    ],
)
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
def test_12_a_checkpoint_that_the_disk_does_not_give_is_not_a_broken_one(tmp_path, call, file, number):
    """A run would go on from an older one; a save does not count it, and leaves it where it is."""
    save(tmp_path, 1, 2)
    given, original = tmp_path / "step-00000002" / file, getattr(os, call)

    def failing(place, *rest, **keywords):
        path = Path(os.readlink(f"/proc/self/fd/{place}") if type(place) is int else place)
        if path == given:
            raise OSError(number, os.strerror(number), str(path))
        return original(place, *rest, **keywords)

    said = list[str]()
    with mock.patch.object(os, call, failing):
        with pytest.raises(CheckpointError, match=rf"cannot be read now \({os.strerror(number)}\)"):
            checkpoint.load_newest(tmp_path, silent)
        checkpoint.save(tmp_path, at_step(3), 2, said.append)
    assert f"step-00000002 cannot be read ({os.strerror(number)})" in "".join(said)
    assert names(tmp_path) == ["step-00000001", "step-00000002", "step-00000003"]
    save(tmp_path, 3)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]


def test_13_every_bit_of_the_state_counts(tmp_path):
    save(tmp_path, 20, 30)
    for name in (checkpoint.STATE, checkpoint.STATE_CHECKSUM):
        file = tmp_path / "step-00000030" / name
        content = file.read_bytes()
        for bit in range(0, 8 * len(content), 7):  # every place in a byte comes up
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            with pytest.raises(CheckpointError):
                checkpoint.read(tmp_path / "step-00000030")
        file.write_bytes(content)
    assert newest(tmp_path) == 30


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_13_a_state_that_is_something_else(tmp_path, content):
    save(tmp_path, 20, 30)
    (tmp_path / "step-00000030" / "state.json").write_bytes(content)
    assert newest(tmp_path) == 20
    assert names(tmp_path) == ["broken-step-00000030", "step-00000020"]


def as_format_1(folder: Path, **changes) -> None:
    """As earlier versions wrote it: no checksum of state.json."""
    file = folder / "state.json"
    state = {**json.loads(file.read_text()), "format": 1, **changes}
    file.write_text(json.dumps({name: value for name, value in state.items() if value is not ABSENT}))
    (folder / "state.sha256").unlink(missing_ok=True)


def test_09_format_1_is_still_read(tmp_path):
    save(tmp_path, 3)
    as_format_1(tmp_path / "step-00000003")
    assert newest(tmp_path) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 20}, {"step": None}, {"step": 30.0}, {"step": True}, {"step": ABSENT},
        {"loop": None}, {"loop": {}}, {"loop": {**LOOP, "meter": {"weight": 1}}},
        *({"loop": {**LOOP, "bad_in_a_row": value}} for value in (None, -1, 1.0)),
        *({"loop": {**LOOP, "meter": {**METER, "weight": value}}} for value in (None, "1", 10**400)),
        *({"loop": {**LOOP, "meter": {**METER, "sums": {"loss": value}}}} for value in (None, "1")),
        {"loop": {**LOOP, "meter": {**METER, "sums": None}}},
        *({"loop": {**LOOP, "meter": {**METER, "skipped_steps": value}}} for value in (-1, 1.0)),
        {"sha256": {}}, {"sha256": {"model.safetensors": 3}}, {"sha256": ["model.safetensors"]},
        {"format": None}, {"format": "1"}, {"format": 0}, {"format": 2},
    ],
)  # fmt: skip
def test_13_values_of_the_state_are_checked(tmp_path, changes):
    """Of the format without a checksum, where nothing else would notice."""
    save(tmp_path, 20, 30)
    as_format_1(tmp_path / "step-00000030", **changes)
    assert newest(tmp_path) == 20


def test_13_files_of_other_folders_are_not_read(tmp_path):
    save(tmp_path, 20, 30)
    checksums = json.loads((tmp_path / "step-00000030" / "state.json").read_text())["sha256"]
    (tmp_path / "step-00000030" / "average.safetensors").rename(tmp_path / "average.safetensors")
    moved = {f"../{n}" if n.startswith("average") else n: x for n, x in checksums.items()}
    as_format_1(tmp_path / "step-00000030", sha256=moved)
    assert newest(tmp_path) == 20


@settings(max_examples=30)
@given(st.binary(max_size=200) | st.sampled_from([b"null", b"3", b"[]", b"{}", b'"state"']))
def test_13_any_bytes_as_state_are_passed_over(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    save(folder, 20, 30)
    (folder / "step-00000030" / "state.json").write_bytes(content)
    (folder / "step-00000030" / "state.sha256").unlink()
    assert newest(folder) == 20


def test_09_a_newer_format_is_neither_passed_over_nor_replaced(tmp_path, monkeypatch):
    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT_VERSION", 99)
        save(tmp_path, 2)
    before = names(tmp_path)
    with pytest.raises(CheckpointError, match="format 99 and this unmask reads up to 2: install"):
        checkpoint.load_newest(tmp_path, silent)
    save(tmp_path, 2)
    assert names(tmp_path) == before
    assert json.loads((tmp_path / "step-00000002" / "state.json").read_text())["format"] == 99


def damage(path: Path) -> None:
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def test_14_broken_ones_do_not_count(tmp_path):
    """The newest broken, going on from the one before, with one kept: each new one stays."""
    save(tmp_path, 20, 30)
    damage(tmp_path / "step-00000030")
    printed: list[str] = []
    assert checkpoint.load_newest(tmp_path, printed.append).step == 20
    assert "broken-step-00000030" in printed[0]
    save(tmp_path, 25, keep=1)
    assert names(tmp_path) == ["broken-step-00000030", "step-00000025"]


def test_14_one_that_broke_since_does_not_count(tmp_path):
    save(tmp_path, 10, 20, 30, keep=3)
    damage(tmp_path / "step-00000020")
    save(tmp_path, 40, keep=3)
    assert names(tmp_path) == ["broken-step-00000020", *(f"step-000000{n}" for n in (10, 30, 40))]


def test_13_all_broken_is_an_error_again_and_again(tmp_path):
    save(tmp_path, 20, 30)
    for step in (20, 30):
        damage(tmp_path / f"step-000000{step}")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
            checkpoint.load_newest(tmp_path, silent)
    for step in (20, 30):
        os.rename(tmp_path / f"step-000000{step}", tmp_path / f"broken-step-000000{step}")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        checkpoint.load_newest(tmp_path, silent)


def test_14_links_in_the_place_of_checkpoints(tmp_path):
    """An old one that was moved to another disk: the link goes, what it leads to stays."""
    folder, other = tmp_path / "checkpoints", tmp_path / "elsewhere"
    save(folder, 1)
    shutil.move(folder / "step-00000001", other)
    (folder / "step-00000001").symlink_to(other)
    save(folder, 2, 3, keep=1)
    assert names(folder) == ["step-00000003"]
    assert (other / "state.json").exists()
    (folder / "step-00000004").symlink_to(tmp_path / "nowhere")
    save(folder, 4)
    assert names(folder) == ["broken-step-00000004", "step-00000003", "step-00000004"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["state.json", "state.sha256", "model.safetensors"])
def test_13_a_pipe_in_the_place_of_a_file_does_not_hang(tmp_path, name):
    save(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / name).unlink()
    os.mkfifo(tmp_path / "step-00000002" / name)
    assert newest(tmp_path) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_25_weights_that_are_not_finite_are_not_resumed(tmp_path, value):
    """An earlier version may have written them."""
    save(tmp_path, 1)
    checkpoint.save(tmp_path, at_step(2, value), 2, silent)
    printed: list[str] = []
    assert checkpoint.load_newest(tmp_path, printed.append).step == 1
    assert "not finite" in printed[0]


def test_14_what_cannot_be_removed_does_not_end_the_run(tmp_path):
    save(tmp_path, 1)
    printed: list[str] = []
    with armed("checkpoint.remove:eio"):
        checkpoint.save(tmp_path, at_step(2), 1, printed.append)
    assert "cannot be removed" in printed[0]
    assert newest(tmp_path) == 2
