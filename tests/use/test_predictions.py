"""Predictions: the classifier's probabilities in order, and names that are harmless everywhere."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import unmask
from tests_support import mae_spec, random_classifier
from unmask.config.commands import PredictConfig
from unmask.config.output import claim_output
from unmask.errors import CheckpointError, DataError
from unmask.interop.weights import write_model
from unmask.use.predict import cell

SMALL = mae_spec(image_size=(16, 24), patch_size=(8, 8), channels=3, width=8, depth=1, heads=1)
CLASSES = ("plain", "=cmd|' /C calc'!A0", "two\nlines\x1b[2J")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("predict") / "run"
    folder.mkdir()
    weights = random_classifier(SMALL, {"classes": CLASSES, "pool": "class", "eval_crop": 0.875})
    weights.state["head.weight"] *= 20
    write_model(folder, weights.state, weights.description)
    return folder


def predict(source: Path, run: Path, tmp_path: Path, **changes):
    values = {"source": (str(source),), "init": str(run), "out": str(tmp_path / "out"), "workers": 0}
    return unmask.predict(PredictConfig(**{**values, **changes}))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_probabilities_are_the_classifiers(photos, run, tmp_path):
    done = predict(photos, run, tmp_path)
    model = unmask.load(run)
    with torch.inference_mode():
        expected = model(unmask.read(photos, model).images).softmax(dim=1)
    records = lines(done.path / "predictions.jsonl")
    found = torch.tensor([[record["probabilities"][name] for name in CLASSES] for record in records])
    assert torch.allclose(found, expected, atol=1e-5)
    assert [r["class"] for r in records] == [CLASSES[i] for i in expected.argmax(dim=1)]
    assert all(r["probability"] == max(r["probabilities"].values()) for r in records)
    assert [r["path"] for r in records] == sorted(str(p) for p in photos.rglob("*.*"))
    table = rows(done.path / "predictions.csv")
    assert [float(row["probability of plain"]) for row in table] == [
        r["probabilities"]["plain"] for r in records
    ]
    assert [row["path"] for row in table] == [r["path"] for r in records]
    assert done.images == sum(done.counts.values()) == 24
    assert done.sheet == done.path / "sheet.png"
    with Image.open(done.sheet) as sheet:
        assert sheet.width > 5 * 192
    names = {path.name for path in done.path.iterdir()}
    assert names == {".unmask", "predictions.csv", "predictions.jsonl", "sheet.png"}


@pytest.mark.parametrize("top", [1, 2, 9])
def test_the_likeliest_alone(photos, run, tmp_path, top):
    whole = lines(predict(photos, run, tmp_path).path / "predictions.jsonl")
    done = predict(photos, run, tmp_path, top=top, sheet=0)
    assert done.sheet is None
    assert not (done.path / "sheet.png").exists(), "an earlier one is of other settings"
    first = next(iter(lines(done.path / "predictions.jsonl")))
    ranked = sorted(whole[0]["probabilities"].items(), key=lambda pair: -pair[1])
    assert list(first["probabilities"].items()) == ranked[:top]
    row = rows(done.path / "predictions.csv")[0]
    assert len(row) == 1 + 2 * min(top, 3)
    if top > 1:
        assert row["class 2"] == cell(ranked[1][0])
        assert float(row["probability 2"]) == ranked[1][1]


def test_32_names_are_harmless(run, tmp_path, capsys, monkeypatch):
    from unmask.cli.main import run as command

    folder = tmp_path / "data"
    folder.mkdir()
    names = ["=1+1.png", "-x\n\x1b[31m.png", "<script>.png", os.fsdecode(b"\xff.png")]
    for name in names:
        Image.new("RGB", (20, 20)).save(folder / name)
    (folder / "bad\x1b[2J.png").write_bytes(b"nothing")
    monkeypatch.chdir(folder)
    words = ["predict", ".", "--init", str(run), "--out", str(tmp_path / "out"), "--workers", "0"]
    assert command(words) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "bad\\x1b[2J.png" in output
    text = (tmp_path / "out" / "predictions.csv").read_text()
    assert "\x1b" not in text
    assert text.count("\n") == 5
    assert not any(
        word.startswith(("=", "+", "-", "@")) for row in csv.reader(text.splitlines()) for word in row
    )
    found = {os.fsencode(record["path"]) for record in lines(tmp_path / "out" / "predictions.jsonl")}
    assert found == {os.fsencode(f"./{name}") for name in names}, "for programs they are what they are"


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("cat", "cat"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("\uff1d1", "'\uff1d1"),
        ("\t=1", "\\t=1"),
        ("a\nb\x1b[0m\udcff", "a\\nb\\x1b[0m\\udcff"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_32_cells(text, harmless):
    assert cell(text) == harmless


def test_broken_images_are_listed(photos, run, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "broken.png").write_bytes(b"nothing")
    done = predict(folder, run, tmp_path)
    assert [bad.path for bad in done.bad] == [str(folder / "broken.png")]
    assert lines(done.path / "bad_images.jsonl")[0]["path"].endswith("broken.png")
    assert done.images == len(lines(done.path / "predictions.jsonl")) == 24
    again = predict(photos, run, tmp_path)
    assert not (again.path / "bad_images.jsonl").exists()


def test_files_of_others_are_never_replaced(photos, run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sheet.png").write_text("mine")
    with pytest.raises(CheckpointError, match=r"did not write it \(it holds sheet"):
        predict(photos, run, tmp_path, sheet=0)
    with pytest.raises(CheckpointError, match="is not empty"):
        claim_output(tmp_path)
    assert (tmp_path / "out" / "sheet.png").read_text() == "mine"


def test_what_unmask_wrote_may_be_replaced(tmp_path):
    """Also what it wrote before it marked its folders, and what lies in a run."""
    for name in ("old/scores.json", "runs/one/plan.json", "runs/report.html", "runs/one/samples/a.png"):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    for name in ("new", "new", "old", "runs", "runs/one", "runs/one/samples"):
        claim_output(tmp_path / name)


def test_nothing_is_left_where_nothing_can_be_read(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of the 1 images"):
        predict(tmp_path / "data", run, tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".unmask"]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"init": ""}, ValueError, "predict needs a model: write --init RUN"),
        ({"top": 0}, ValueError, "--top is 0 and must be 1 or more"),
        ({"sheet": -1}, ValueError, "--sheet is -1 and must be 0 or more"),
        ({"init": "nowhere"}, CheckpointError, "no file or run directory"),
    ],
)
def test_mistakes(photos, run, tmp_path, changes, error, says):
    with pytest.raises(error, match=says):
        predict(photos, run, tmp_path, **changes)
    assert not (tmp_path / "out").exists()
