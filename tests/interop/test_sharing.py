"""Files for other people: what is written follows the umask, and what may not be read says so."""

import os
import stat
from pathlib import Path

import pytest
import torch

from tests_support import mae_spec, random_weights
from unmask import api
from unmask.cli.main import run as unmask
from unmask.errors import CheckpointError
from unmask.interop import files
from unmask.interop.export import DEFAULT_NAMES
from unmask.interop.official import to_official
from unmask.interop.weights import model_type, read_weights, write_model

SPEC = mae_spec(
    image_size=(16, 16), patch_size=(4, 4), channels=3, width=24, depth=1, heads=2,
    decoder_width=8, decoder_depth=1, decoder_heads=2,
)  # fmt: skip


@pytest.fixture(params=[0o022, 0o007, 0o077], ids=oct)
def mode(request):
    """Of new files, by a umask."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in paths}


def test_models_exports_and_features_follow_the_umask(tmp_path, photos, mode):
    run = tmp_path / "run"
    run.mkdir()
    weights = random_weights(SPEC)
    write_model(run, weights.state, weights.description)
    for layout in DEFAULT_NAMES:
        api.export(run, to=layout)
    for suffix in ("safetensors", "parquet"):
        api.embed(photos, init=run, out=tmp_path / f"features.{suffix}", workers=0)
    found = modes(tmp_path)
    assert {
        "run/model.safetensors", "run/model.json", "run/official.pth", "run/unmask.safetensors",
        "run/hf/model.safetensors", "run/timm/config.json", "features.safetensors", "features.csv",
        "features.parquet",
    } <= found.keys()  # fmt: skip
    assert set(found.values()) == {mode}, found


def test_a_whole_run_follows_the_umask(tiny, tmp_path):
    before = os.umask(0o027)
    try:
        api.pretrain(tiny, steps=2)
    finally:
        os.umask(before)
    found = modes(tmp_path)
    assert any("checkpoints" in name for name in found)
    assert set(found.values()) == {0o640}, found


def forbidden(*arguments: object, **options: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("kind", ["run", "safetensors", "pth"])
def test_what_belongs_to_somebody_else(tmp_path, monkeypatch, capsys, kind):
    weights = random_weights(SPEC)
    if kind == "run":
        write_model(tmp_path, weights.state, weights.description)
        source = tmp_path
    else:
        source = tmp_path / f"weights.{kind}"
        torch.save(to_official(weights.state), source)
    monkeypatch.setattr(files, "open_regular", forbidden)
    monkeypatch.setattr(files, "read_json", forbidden)
    with pytest.raises(CheckpointError, match=r"not yours to read: ask its owner for chmod a\+r"):
        read_weights(source)
    assert unmask(["predict", str(tmp_path), "--init", str(source)]) == 4
    assert "not yours to read" in capsys.readouterr().err


def test_a_folder_of_somebody_else(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "exists", forbidden)
    monkeypatch.setattr(Path, "is_dir", forbidden)
    for read in (read_weights, model_type):
        with pytest.raises(CheckpointError, match=r"not yours to read.*a\+x for the folders above"):
            read(tmp_path / "run")
