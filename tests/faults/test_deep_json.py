"""Fault 22: JSON that is nested deeper than Python reads is damaged JSON, whoever wrote it."""

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import unmask
from unmask.cli.main import run
from unmask.interop.weights import OUR_ENTRY
from unmask.storage import from_json

pytestmark = pytest.mark.usefixtures("blank_charts")

DEEP = "[" * 200_000
SOURCES = Path(unmask.__file__).parent


def test_22_reads_json_or_says_that_it_is_none():
    assert from_json(b'{"a": [1, null]}') == {"a": [1, None]}
    for content in (DEEP, '{"a":' * 200_000, "{", b"\xff"):
        with pytest.raises(ValueError, match=r"nested too deep|Expecting|decode"):
            from_json(content)


def test_22_there_is_no_other_way_to_read_json():
    calls = re.compile(r"\bjson\.loads?\(")
    assert [p.name for p in SOURCES.rglob("*.py") if calls.search(p.read_text())] == ["storage.py"]


@pytest.mark.parametrize("name", ["model.json", "config.json", "entry"])
def test_22_weights_with_such_a_description_are_refused(name, tiny, photos, tmp_path, capsys):
    weights = unmask.pretrain(tiny, steps=1, warmup_steps=0) / "model.safetensors"
    folder = tmp_path / "copy"
    folder.mkdir()
    entry = {OUR_ENTRY: DEEP} if name == "entry" else None
    save_file(load_file(weights), folder / "model.safetensors", metadata=entry)
    if name != "entry":
        (folder / name).write_text(DEEP)
    source = folder / "model.safetensors" if name == "entry" else folder
    assert run(["reconstruct", str(photos), "--init", str(source), "--out", str(tmp_path / "r")]) == 4
    assert "nested too deep" in capsys.readouterr().err


def test_22_lists_and_shapes(tmp_path, capsys):
    (tmp_path / "list.jsonl").write_text(DEEP + "\n")
    assert run(["check", str(tmp_path / "list.jsonl")]) == 3
    assert "nested too deep" in capsys.readouterr().err
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/a.json").write_text('{"shapes": [{"label": ' + DEEP)
    assert run(["segment", str(tmp_path / "shapes"), "--scratch"]) == 3
    assert "nested too deep" in capsys.readouterr().err
