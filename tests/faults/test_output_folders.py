"""Fault 16 for results: two commands that write into one folder, or to one file, at the same time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import unmask
from faults_support import started
from tests_support import contents
from unmask.cli.main import run as command
from unmask.config.output import mark_output
from unmask.engine.locks import only_writer_in, only_writer_of
from unmask.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("blank_charts")

PLACES = {
    "predict": "results",
    "evaluate": "results",
    "knn": "results",
    "reconstruct": "results",
    "replay": "results",
    "check": "results",
    "embed": "results/features.safetensors",
    "export": "results/model.safetensors",
}


@contextmanager
def held_by_another_process(out: Path) -> Iterator[None]:
    """As by a command that is writing there."""
    (ready, is_ready), (done, is_done) = os.pipe(), os.pipe()

    def hold() -> None:
        os.close(is_done)
        with only_writer_in(out) if out.is_dir() else only_writer_of(out):
            os.write(is_ready, b".")
            os.read(done, 1)

    child = started(hold)
    try:
        assert os.read(ready, 1)
        yield
    finally:
        for end in (is_done, ready, is_ready, done):
            os.close(end)
        assert os.waitpid(child, 0)[1] == 0


def words(name: str, out: Path, mae: str, classifier: str, stripes: Path) -> list[str]:
    """A command that writes to `out`."""
    model = {"predict": classifier, "evaluate": classifier}.get(name, mae)
    if name == "replay":
        given = [mae, "--step", "2"]
    elif name == "export":
        given = [mae, "--to", "safetensors"]
    else:
        given = [str(stripes), *([] if name == "check" else ["--init", model])]
    return [name, *given, "--out", str(out)]


@pytest.fixture(scope="module")
def models(photos, stripes, tmp_path_factory) -> tuple[str, str]:
    """The runs of a masked autoencoder and of a classifier."""
    folder = tmp_path_factory.mktemp("models")
    short = {"data_size": [16, 24], "data_workers": 0, "steps": 2, "warmup_steps": 1, "batch": 4}
    sizes = {"patch": [4], "width": 16, "depth": 1, "heads": 2}
    decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    mae = unmask.pretrain(str(photos), out=str(folder / "mae"), **short, **sizes, **decoder)
    classifier = unmask.scratch(str(stripes), out=str(folder / "classifier"), **short, **sizes)
    return str(mae), str(classifier)


QUICK = ("predict", "embed")


@pytest.mark.parametrize(
    "name", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in PLACES]
)
def test_16_a_second_command_is_refused(name, models, stripes, tmp_path, capsys):
    out = tmp_path / PLACES[name]
    typed = words(name, out, *models, stripes)
    assert command(typed) == 0
    before = contents(tmp_path / "results")
    capsys.readouterr()
    with held_by_another_process(out):
        assert command(typed) == 4
        assert f"another process is writing to {out}: wait for it" in capsys.readouterr().err
    with only_writer_in(out) if out.is_dir() else only_writer_of(out):
        assert command(typed) == 4
        assert f"another thread of this process is writing to {out}" in capsys.readouterr().err
    assert contents(tmp_path / "results") == before
    assert command(typed) == 0
    assert not [place for place in contents(tmp_path / "results") if place.endswith(".lock")]


def test_16_a_second_sweep_is_refused(tiny, tmp_path):
    """Before its first run, whichever run the other is at."""
    mark_output(out := tmp_path / "sweep")
    with (
        held_by_another_process(out),
        pytest.raises(CheckpointError, match=f"another process is writing to {out}: wait for it"),
    ):
        unmask.pretrain(tiny, out=out, seeds=[0, 1])
    assert list(contents(out)) == [".unmask"]


@pytest.mark.parametrize("is_there_again", [False, True])
def test_16_a_lock_that_was_replaced_is_none(tmp_path, monkeypatch, is_there_again):
    """Removed by its owner at its end, after we opened it and before we have locked it.

    A third command may have made its own since.
    """
    file, original = tmp_path / "features.parquet", fcntl.lockf

    def late(descriptor, *rest):
        (lock := tmp_path / ".features.parquet.lock").unlink()
        if is_there_again:
            lock.touch()
        return original(descriptor, *rest)

    monkeypatch.setattr(fcntl, "lockf", late)
    refused = pytest.raises(CheckpointError, match=f"another process is writing to {file}")
    with refused, only_writer_of(file):
        pass


def test_16_folders_that_were_made_for_nothing_go(tmp_path):
    with pytest.raises(ZeroDivisionError), only_writer_of(tmp_path / "new" / "deep" / "model.pth"):
        _ = 1 / 0
    assert not (tmp_path / "new").exists()
    with only_writer_of(tmp_path / "new" / "model.pth"):
        (tmp_path / "new" / "model.pth").touch()
    assert list(contents(tmp_path)) == ["new/model.pth"]
