"""Faults 6, 11, 12, 13: the model of a finished run is the one that was written, or it is not used."""

import json
import os
import pickle
import re
import stat
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import unmask
from faults_support import KILLED, PASSED, in_child
from tests_support import random_weights, spec_for
from unmask.errors import CheckpointError
from unmask.faults import armed
from unmask.interop.files import MOST_PICKLED
from unmask.interop.weights import check_model, read_weights, write_model

pytestmark = pytest.mark.usefixtures("blank_charts")


@pytest.fixture
def weights(tiny):
    return random_weights(spec_for(tiny))


def write(folder: Path, weights) -> None:
    write_model(folder, weights.state, weights.description)


def damage(file: Path, kind: str) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes({"bit": bytes(content), "empty": b"", "short": bytes(content[:-1])}[kind])


@pytest.mark.parametrize("kind", ["bit", "empty", "short"])
def test_13_bit_rot_in_a_finished_model(tmp_path, weights, kind):
    write(tmp_path, weights)
    check_model(tmp_path)
    damage(tmp_path / "model.safetensors", kind)
    for use in (check_model, read_weights):
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged.*remove it and run"):
            use(tmp_path)


def test_13_bit_rot_in_the_description(tmp_path, weights):
    """It says how the model sees images: another mean is another model."""
    write(tmp_path, weights)
    file = tmp_path / "model.json"
    text = file.read_text()
    first = re.search(r'"std": \[\s*0\.(\d)', text)
    file.write_text(text[: first.start(1)] + str((int(first[1]) + 1) % 10) + text[first.end(1) :])
    for read in (check_model, read_weights):
        with pytest.raises(CheckpointError, match=r"model.json cannot be used .*get a fresh copy"):
            read(tmp_path)


def test_13_a_model_of_an_earlier_version_has_no_checksum(tmp_path, weights):
    write(tmp_path, weights)
    description = json.loads((tmp_path / "model.json").read_text())
    assert len(description.pop("sha256")) == 64
    assert len(description.pop("sha256_of_this")) == 64
    (tmp_path / "model.json").write_text(json.dumps(description))
    check_model(tmp_path)
    assert read_weights(tmp_path).description == weights.description
    damage(tmp_path / "model.safetensors", "empty")
    with pytest.raises(CheckpointError, match="cannot be read"):
        check_model(tmp_path)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", ["write", "sync", "rename", "renamed"])
def test_11_killed_while_the_model_is_written(tmp_path, weights, point, nth):
    """model.json comes first: without the weights the run is not finished."""
    assert in_child(lambda: write(tmp_path, weights), f"model.{point}:kill:{nth}") == KILLED
    assert (tmp_path / "model.safetensors").exists() is ((point, nth) == ("renamed", 2))
    write(tmp_path, weights)
    check_model(tmp_path)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", ["write", "sync", "rename"])
@pytest.mark.parametrize(
    ("kind", "sentence"), [("enospc", "it needs .* free"), ("eio", "check that disk")]
)
def test_12_a_disk_that_fails_while_the_model_is_written(tmp_path, weights, point, nth, kind, sentence):
    with armed(f"model.{point}:{kind}:{nth}"), pytest.raises(CheckpointError, match=sentence):
        write(tmp_path, weights)
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"][: nth - 1]


def test_06_a_finished_run_with_a_broken_model(tiny):
    """Said, not used; without the file, the last checkpoint gives it back."""
    run = unmask.pretrain(tiny)
    before = {name: value.clone() for name, value in load_file(run / "model.safetensors").items()}
    damage(run / "model.safetensors", "empty")
    with pytest.raises(CheckpointError, match="is damaged"):
        unmask.pretrain(tiny)
    (run / "model.safetensors").unlink()
    unmask.pretrain(tiny)
    after = load_file(run / "model.safetensors")
    assert all(after[name].equal(value) for name, value in before.items())


def test_files_follow_the_umask(tmp_path, weights):
    """safetensors 0.8 writes files that only their owner reads."""

    def with_umask():
        os.umask(0o027)
        write(tmp_path, weights)

    assert in_child(with_umask) == PASSED
    modes = {
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("model.safetensors", "model.json")
    }
    assert modes == {0o640}


EMPTY_LISTS = b"\x80\x02(" + b"]" * MOST_PICKLED + b"t."
"""A pickled tuple that would be as many lists."""


def zeros_of_no_size(folder: Path) -> None:
    torch.save({"model": {"w": torch.zeros(1).expand(30_000_000_000)}}, folder / "a.pth")


def sparse(folder: Path) -> None:
    torch.save({"model": {"w": torch.eye(10).to_sparse()}}, folder / "a.pth")


def compressed(folder: Path) -> None:
    torch.save({"model": {"w": torch.zeros(100_000)}}, folder / "plain.pth")
    with (
        zipfile.ZipFile(folder / "plain.pth") as plain,
        zipfile.ZipFile(folder / "a.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))


def endless_lists(folder: Path, name_of=str) -> None:
    torch.save({"model": {"w": torch.zeros(1)}}, folder / "plain.pth")
    with zipfile.ZipFile(folder / "plain.pth") as plain, zipfile.ZipFile(folder / "a.pth", "w") as other:
        for name in plain.namelist():
            other.writestr(name_of(name), EMPTY_LISTS if name.endswith(".pkl") else plain.read(name))


def endless_lists_of_old(folder: Path) -> None:
    """As torch.save wrote until 1.6."""
    with (folder / "a.pth").open("wb") as file:
        for begin in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(begin, file, protocol=2)
        file.write(EMPTY_LISTS)


def endless_lists_in_capitals(folder: Path) -> None:
    """Torch finds these too."""
    endless_lists(folder, lambda name: name.replace(".pkl", ".PKL"))


def endless_lists_before_an_archive(folder: Path) -> None:
    endless_lists_of_old(folder)
    with zipfile.ZipFile(folder / "a.pth", "a") as archive:
        archive.writestr("a", "b")


def long_header(folder: Path) -> None:
    length = 90_000_000
    (folder / "a.safetensors").write_bytes(length.to_bytes(8, "little") + b"{" + b" " * length)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.safetensors")


def other_pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.pth")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (zeros_of_no_size, "w as 30000000000 values that are not all in the file"),
        (sparse, "w as 100 values that are not all in the file"),
        (compressed, "is compressed"),
        (endless_lists, "more than 16 MiB of Python objects"),
        (endless_lists_of_old, "more than 16 MiB of Python objects"),
        (endless_lists_in_capitals, "more than 16 MiB of Python objects"),
        (endless_lists_before_an_archive, "more than 16 MiB of Python objects"),
        (long_header, "its header has 90000000 bytes"),
        (pipe, "no ordinary file"),
        (other_pipe, "no ordinary file"),
    ],
)
def test_30_weights_that_ask_for_more_than_they_hold(tmp_path, make, says):
    make(tmp_path)
    (tmp_path / "plain.pth").unlink(missing_ok=True)
    (file,) = tmp_path.iterdir()
    with pytest.raises(CheckpointError, match=rf"{file.name}.*{says}"):
        read_weights(file)
