"""k-NN of frozen features: what scikit-learn finds on the features of `embed`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from sklearn.neighbors import KNeighborsClassifier

import unmask
from tests_support import mae_spec, random_classifier, random_weights
from unmask.config.commands import KnnConfig, KnnData
from unmask.data.labels import find_labelled
from unmask.data.split import take_fraction
from unmask.evals.linear import PENALTIES
from unmask.interop.weights import write_model

SMALL = mae_spec(
    image_size=(16, 16), patch_size=(4, 4), channels=1, width=16, depth=2, heads=2,
    decoder_width=8, decoder_depth=1, decoder_heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def stripes(tmp_path_factory) -> Path:
    """Two classes of noisy stripes, 24 pictures each."""
    folder, rng = tmp_path_factory.mktemp("knn") / "stripes", np.random.default_rng(0)
    x = np.arange(20)
    for name, period in (("narrow", 4), ("wide", 9)):
        (folder / name).mkdir(parents=True)
        for i in range(24):
            row = 127 + 60 * np.sin(2 * np.pi * x / period + rng.uniform(0, 6))
            noisy = row + rng.normal(0, 40, (20, 20))
            Image.fromarray(np.uint8(noisy.clip(0, 255))).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("knn") / "run"
    folder.mkdir()
    weights = random_weights(SMALL)
    write_model(folder, weights.state, weights.description)
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    from unmask.use import knn

    monkeypatch.setattr(knn, "pictures", lambda labelled, image, scored: iter(()))


def config(data: Path, run: Path, tmp_path: Path, **changes) -> KnnConfig:
    names = ("fraction", "per_class", "eval_crop")
    of_data = {name: changes.pop(name) for name in names if name in changes}
    d = KnnData(source=(str(data),), workers=0, **of_data)
    return KnnConfig(**{"init": str(run), "out": str(tmp_path / "knn"), "data": d, **changes})


def embedded(folder: Path, run: Path, tmp_path: Path, pool: str) -> dict[str, np.ndarray]:
    """Features by path; `embed` takes the whole of an image."""
    file = tmp_path / "features.safetensors"
    unmask.embed(folder, init=run, out=file, pool=pool)
    names = [line.split(",", 1)[1] for line in file.with_suffix(".csv").read_text().splitlines()[1:]]
    return dict(zip(names, load_file(file)["features"], strict=True))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("pool", ["mean", "class", "patches"])
def test_equals_scikit_learn(stripes, autoencoder, tmp_path, pool):
    features = embedded(stripes, autoencoder, tmp_path, pool)
    split = find_labelled((str(stripes),))
    training = take_fraction(split.training, fraction=0.5, per_class=None, seed=0)

    def matrix(labelled):
        rows = np.stack([features[path].ravel() for path in labelled.images.paths])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    expected = {}
    for k in (1, 5):
        judge = KNeighborsClassifier(k, weights=lambda squares: np.exp((1 - squares**2 / 2) / 0.07))
        judge.fit(matrix(training), training.labels)
        expected[k] = judge.score(matrix(split.validation), split.validation.labels)
    changes = {"pool": pool, "fraction": 0.5, "eval_crop": 1.0, "neighbours": (1, 5)}
    record = unmask.knn(config(stripes, autoencoder, tmp_path, **changes)).record
    found = record["features"]["encoder"]["knn"]
    assert {int(k): scores["top1"] for k, scores in found.items()} == pytest.approx(expected)
    assert record["training_images"] == len(training) == 18
    assert record["validation_images"] == 12
    assert min(expected.values()) > 0.5, "otherwise nothing is shown"
    assert record["best"]["neighbours"] == max(expected, key=lambda k: (expected[k], -k))


def test_what_is_left_behind(stripes, autoencoder, tmp_path):
    result = unmask.knn(config(stripes, autoencoder, tmp_path, baselines=True))
    names = {path.name for path in result.path.iterdir()}
    assert names == {
        ".unmask",
        "calibration.png",
        "confusion.png",
        "errors.csv",
        "mistakes.png",
        "predictions.csv",
        "report.html",
        "scores.json",
    }
    scores = json.loads((result.path / "scores.json").read_text())
    assert list(scores["features"]) == ["encoder", "pixels", "random encoder"]
    assert list(scores["features"]["pixels"]["knn"]) == ["10", "20", "36"], "more than all do not vote"
    top1 = {kind: one["linear"]["top1"] for kind, one in scores["features"].items()}
    assert len(set(top1.values())) > 1
    assert all(one["linear"]["l2"] in PENALTIES for one in scores["features"].values())
    assert scores["commonest_class"] == 0.5
    assert [row["images"] for row in scores["per_class"]] == [6, 6]
    page = (result.path / "report.html").read_text()
    assert page.index("random encoder") < page.index("data:image/png"), "the comparison comes first"


@pytest.mark.usefixtures("undrawn")
def test_the_random_encoder_is_random_by_its_seed(stripes, autoencoder, tmp_path, monkeypatch):
    monkeypatch.setattr("unmask.evals.linear.PENALTIES", PENALTIES[:1])

    def linear(seed: int) -> dict:
        measured = unmask.knn(config(stripes, autoencoder, tmp_path, baselines=True, seed=seed)).record
        return measured["features"]["random encoder"]["linear"]

    assert linear(1) == linear(1)
    assert linear(1)["nll"] != linear(2)["nll"]


@pytest.mark.usefixtures("undrawn")
def test_features_of_a_classifier(stripes, tmp_path):
    """Those that its head is given: the same classes with a head of another kind."""
    run = tmp_path / "run"
    run.mkdir()
    weights = random_classifier(SMALL, {"classes": ("a", "b"), "pool": "mean", "eval_crop": 0.5})
    write_model(run, weights.state, weights.description)
    record = unmask.knn(config(stripes, run, tmp_path)).record
    model, split = unmask.load(run), find_labelled((str(stripes),))
    with torch.inference_mode():
        known, asked = (
            model.features(torch.cat([unmask.read(path, model).images for path in part.images.paths]))
            for part in split[:2]
        )
    from unmask.evals.knn import knn_accuracy

    labels, answers = (torch.from_numpy(part.labels) for part in split[:2])
    expected = knn_accuracy(known, labels, asked, answers, classes=2, neighbours=(10,))
    assert record["features"]["encoder"]["knn"]["10"]["top1"] == pytest.approx(expected[10])
    with pytest.raises(ValueError, match="choose --pool mean"):
        unmask.knn(config(stripes, run, tmp_path, pool="class"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"init": ""}, "knn needs a model: write --init RUN"),
        ({"neighbours": ()}, "--neighbours takes one number or more"),
        ({"neighbours": (0, 1)}, "--neighbours takes one number or more"),
        ({"temperature": 0.0}, "--temperature is 0.0 and must be between 0.02 and 100"),
        ({"seed": -1}, "--seed is -1"),
        ({"fraction": 0.5, "per_class": 2}, "exclude each other"),
        ({"per_class": 0}, "--data.per-class is 0"),
    ],
)
def test_mistakes(stripes, autoencoder, tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        unmask.knn(config(stripes, autoencoder, tmp_path, **changes))
    assert not (tmp_path / "knn").exists()
