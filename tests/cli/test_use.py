"""evaluate, predict and knn as a user types them: what is printed, and exit codes."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests_support import mae_spec, random_classifier
from unmask.cli.main import run
from unmask.interop.weights import write_model

pytestmark = pytest.mark.usefixtures("blank_charts")

SMALL = mae_spec(image_size=(16, 24), patch_size=(8, 8), channels=3, width=8, depth=1, heads=1)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """Of the two folders that the photographs lie in."""
    folder = tmp_path_factory.mktemp("use") / "run"
    folder.mkdir()
    weights = random_classifier(SMALL, {"classes": ("deeper", "near"), "pool": "mean"})
    write_model(folder, weights.state, weights.description)
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_evaluate(photos, classifier, place, capsys):
    assert run(["evaluate", str(photos), "--init", str(classifier), "--data.workers", "0"]) == 0
    output = capsys.readouterr().out
    scores = json.loads((place / "runs" / "evaluate-photos" / "scores.json").read_text())
    assert re.search(rf"Top-1 accuracy +{scores['top1']:.2%}", output)
    assert re.search(r"class +images +recall +precision +F1\n", output)
    assert re.search(r"\nnear +2 +", output)
    assert "note: evaluated on the validation images; --split all takes all 24" in output
    assert output.endswith("report: runs/evaluate-photos/report.html\n")


def test_knn(photos, classifier, capsys):
    words = [
        "knn",
        str(photos),
        "--init",
        str(classifier),
        "--data.workers",
        "0",
        "--neighbours",
        "1",
        "5",
    ]
    assert run([*words, "--baselines"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"features +1 +5 +linear\n", output)
    assert re.search(r"\nrandom encoder +[\d.]+%", output)
    assert re.search(r"Best +[15] neighbours: [\d.]+%", output)


def test_predict(photos, classifier, place, capsys):
    words = ["predict", str(photos), "--init", str(classifier), "--workers", "0"]
    assert run([*words, "--top", "1", "--sheet", "3"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"predicted class +images\n", output)
    assert "wrote predictions of 24 images to runs/predict-photos, 0 left out" in output
    assert "contact sheet: runs/predict-photos/sheet.png" in output
    assert (
        (place / "runs/predict-photos/predictions.csv")
        .read_text()
        .startswith("path,class,probability\n")
    )
    with Image.open(place / "runs/predict-photos/sheet.png") as sheet:
        assert sheet.width < 3 * 192, "two columns"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("evaluate {photos}", 2, "evaluate needs a model: write --init RUN"),
        ("predict {photos}", 2, "predict needs a model: write --init RUN"),
        ("knn {photos}", 2, "knn needs a model: write --init RUN"),
        ("evaluate {photos} --init {photos}", 4, "holds no model.safetensors"),
        ("evaluate {photos}/near --init {run}", 3, "has no folder for each class"),
        ("evaluate nowhere --init {run}", 3, "there is no folder or file nowhere"),
        (
            "evaluate {photos} --init {run} --out {run}",
            4,
            "holds a run or a model: choose another --out",
        ),
        ("evaluate {photos} --init {run} --data.size 17", 2, "does not divide"),
        ("predict --init {run}", 3, "no images were named"),
        ("knn {photos} --init {run} --pool class", 2, "choose --pool mean"),
        ("plan laptop", 2, "write unmask plan --recipe laptop"),
        ("predict {photos} --init {run} --tile 16", 2, "--tile 16 is of detectors, and {run} is a cl"),
        ("evaluate {photos} --init {run} --data.single-class x", 2, "is of detectors"),
        ("evaluate {photos} --init {run} --robustness a", 3, "is not ImageNet-A"),
    ],
)
def test_mistakes_get_a_sentence(words, code, sentence, photos, classifier, capsys):
    assert run(words.format(photos=photos, run=classifier).split()) == code
    error = capsys.readouterr().err
    assert error.startswith("unmask: ")
    assert sentence.format(run=classifier) in error
    assert error.count("\n") == 1
