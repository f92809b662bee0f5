"""A loaded model is for use: features without gradients and in batches, images from files or memory."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import nn

import unmask
from tests_support import mae_spec, random_classifier, random_weights
from unmask.core import features as in_use
from unmask.errors import DataError
from unmask.interop.models import build
from unmask.interop.weights import write_model

SPEC = mae_spec(
    image_size=(16, 24),
    patch_size=(8, 8),
    channels=3,
    width=8,
    depth=2,
    heads=2,
    decoder_width=8,
    decoder_depth=1,
    decoder_heads=2,
)
KINDS = ["autoencoder", "encoder", "classifier"]


def saved(folder: Path, kind: str = "autoencoder", pool: str = "mean") -> Path:
    folder.mkdir()
    weights = random_weights(SPEC)
    if kind == "classifier":
        weights = random_classifier(SPEC, {"classes": ("a", "b"), "pool": pool})
    write_model(folder, weights.state, weights.description)
    return folder


@pytest.fixture(params=KINDS)
def model(request, tmp_path):
    loaded = unmask.load(saved(tmp_path / "run", request.param))
    return loaded.encoder if request.param == "encoder" else loaded


@pytest.fixture
def run(tmp_path) -> Path:
    return saved(tmp_path / "run")


def test_features_have_no_gradients_and_may_be_trained_on(model):
    features = model.features(torch.randn(5, 3, 16, 24))
    assert features.numpy().shape == (5, 8)
    assert features.grad_fn is None
    head = nn.Linear(8, 2)
    head(features).sum().backward()  # tensors of inference mode could not be kept for it
    assert head.weight.grad is not None


def test_features_come_in_batches_and_are_the_same(model, monkeypatch):
    images, seen = torch.randn(in_use.BATCH + 6, 3, 16, 24), list[int]()
    encoder = getattr(model, "encoder", model)
    encoder.patch_embed.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    features = model.features(images)
    assert seen == [in_use.BATCH, 6]
    torch.testing.assert_close(model.features(images, batch=1000), features)
    assert seen[2:] == [in_use.BATCH + 6]
    assert model.features(images[:0]).shape == (0, 8)
    with pytest.raises(ValueError, match="batch is 0"):
        model.features(images, batch=0)


@pytest.mark.parametrize("pool", ["max", "", "avg"])
def test_an_unknown_pool_is_an_error(model, pool):
    with pytest.raises(ValueError, match=r"choose class \(or cls\), mean or patches"):
        model.features(torch.zeros(1, 3, 16, 24), pool=pool)
    with pytest.raises(ValueError, match=f"pool is '{pool}': choose class"):
        in_use.check_pool(pool, class_tokens=1)


def test_cls_is_class(run, photos, tmp_path):
    model, images = unmask.load(run), torch.randn(2, 3, 16, 24)
    assert model.features(images, pool="cls").equal(model.features(images, pool="class"))
    for pool in ("cls", "class"):
        unmask.embed(photos, init=run, out=tmp_path / f"{pool}.safetensors", pool=pool)
    files = [load_file(tmp_path / f"{pool}.safetensors")["features"] for pool in ("cls", "class")]
    assert np.array_equal(*files)
    with pytest.raises(ValueError, match="--pool is 'max': choose one of class, mean, patches, cls"):
        unmask.embed(photos, init=run, pool="max")


def test_read_says_which_file_is_which(run, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    files = [tmp_path / "broken.png", *sorted(photos.rglob("*.*"), reverse=True)]
    model = unmask.load(run)
    images, names, bad = unmask.read(files, model)
    assert names == [str(file) for file in files[1:]], "in the order given"
    assert [one.path for one in bad] == [str(files[0])]
    assert images.shape == (24, 3, 16, 24)
    for i in (0, 11):
        assert unmask.read(names[i], model).images[0].equal(images[i])


def test_images_in_memory_are_as_in_files(run, photos):
    files = sorted(photos.rglob("*.png"))
    model = unmask.load(run)
    wanted = unmask.read(files, model).images
    opened = [Image.open(file) for file in files]
    arrays = [np.asarray(image) for image in opened]
    for given in (opened, tuple(opened), arrays, np.stack(arrays), [opened[0], *arrays[1:]]):
        images, names, bad = unmask.read(given, model)
        assert (names[:2], bad) == (["images#0", "images#1"], [])
        assert images.equal(wanted)
    for one in (opened[3], arrays[3]):
        assert unmask.read(one, model).images.equal(wanted[3:4])
    assert opened[0].size == (44, 30), "what was given is left as it was"


def test_a_large_jpeg_in_memory_is_not_decoded_smaller(run, tmp_path):
    path = tmp_path / "large.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    model = unmask.load(run)
    with Image.open(path) as image:
        assert unmask.read(image, model).images.equal(unmask.read(path, model).images)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([np.zeros((4, 4, 3), np.uint8), "a.png"], "'a.png' is none: give paths alone, or open all"),
        (np.zeros((1, 4, 4, 9), np.uint8), "none .*can be read"),
        ([], "no images were named"),
    ],
)
def test_what_is_no_image_is_refused(run, given, says):
    with pytest.raises(DataError, match=says):
        unmask.read(given, unmask.load(run))


def test_commands_take_images_in_memory(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = sorted(photos.rglob("*.png"))[:3]
    opened = [Image.open(file) for file in files]
    written = unmask.embed(opened, init=run, out="memory.safetensors")
    unmask.embed(files, init=run, out="files.safetensors")
    found = [load_file(f"{name}.safetensors")["features"] for name in ("memory", "files")]
    assert np.array_equal(*found)
    names = [
        row["path"] for row in csv.DictReader(written.path.with_suffix(".csv").read_text().splitlines())
    ]
    assert names == ["images#0", "images#1", "images#2"]
    drawn = unmask.reconstruct(opened, init=run)
    assert [path.parent for path in drawn] == [Path("runs/reconstruct-images")] * 2
    classifier = saved(tmp_path / "classifier", "classifier")
    done = unmask.predict(np.stack([np.asarray(image) for image in opened]), init=classifier, workers=0)
    assert done.path == Path("runs/predict-images")
    assert len((done.path / "predictions.jsonl").read_text().splitlines()) == 3


def test_very_many_files_have_a_name_that_a_folder_can_have(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier = saved(tmp_path / "classifier", "classifier")
    files = sorted(photos.rglob("*.*"))
    done = unmask.predict(files, init=classifier, workers=0, sheet=0)
    assert done.path == Path("runs/predict-picture-01.jpg-and-23-more")
    lines = (done.path / "predictions.jsonl").read_text().splitlines()
    paths = [json.loads(line)["path"] for line in lines]
    assert paths == [str(file) for file in files]


def test_a_classifiers_features_are_what_its_head_is_given():
    model = build(random_classifier(SPEC, {"classes": ("a", "b"), "pool": "mean"}))
    images = torch.randn(3, 3, 16, 24)
    torch.testing.assert_close(model.features(images), model.pooled(images).detach())
    assert model.features(images, pool="patches", layer=2).shape == (3, 6, 8)
