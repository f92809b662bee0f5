"""Features in a file: those of the model, in order, the same each time."""

import csv
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

import unmask
from unmask.config.commands import EmbedConfig, PretrainConfig, PretrainData
from unmask.config.settings import Autoencoder, Optim


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    config = PretrainConfig(
        out=str(tmp_path_factory.mktemp("embed") / "run"),
        data=PretrainData(source=(str(photos),), size=(16, 24), held_out=4, workers=0),
        model=Autoencoder(
            patch=(4,), width=16, depth=2, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2
        ),
        optim=Optim(steps=1, warmup_steps=0, batch=4),
    )
    return unmask.pretrain(config)


@pytest.mark.parametrize(("pool", "shape"), [("class", (16,)), ("mean", (16,)), ("patches", (24, 16))])
@pytest.mark.parametrize("layer", [None, 1])
def test_rows_are_the_models_features(run, photos, tmp_path, pool, shape, layer):
    out = tmp_path / "features.safetensors"
    written = unmask.embed(photos, init=run, out=out, pool=pool, layer=layer)
    assert (written.images, written.bad) == (24, [])
    features = load_file(out)["features"]
    assert features.shape == (24, *shape)
    model = unmask.load(run)
    expected = model.features(unmask.read(photos, model).images, pool=pool, layer=layer)
    assert np.allclose(features, expected.numpy(), atol=1e-6)
    names = [row["path"] for row in csv.DictReader(out.with_suffix(".csv").read_text().splitlines())]
    assert names == sorted(names)
    assert len(names) == 24


def test_workers_and_repetition_change_nothing(run, photos, tmp_path):
    configs = [
        EmbedConfig(source=(str(photos),), init=str(run), out=str(tmp_path / f"{w}-{i}.safetensors"),
                    workers=w, batch=5)
        for w, i in ((0, 0), (0, 1), (2, 0))
    ]  # fmt: skip
    results = [load_file(unmask.embed(config).path)["features"] for config in configs]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@pytest.mark.parametrize("pool", ["mean", "patches"])
def test_parquet_holds_the_same(run, photos, tmp_path, pool):
    kept = [tmp_path / name for name in ("a.parquet", "a.safetensors")]
    for path in kept:
        unmask.embed(photos, init=run, out=path, pool=pool)
    table = pq.read_table(kept[0])
    expected = load_file(kept[1])["features"]
    got = np.array(table["features"].to_pylist(), dtype=np.float32)
    assert np.array_equal(got, expected)
    assert table["path"].to_pylist()[0].endswith(("png", "jpg"))


def test_other_sizes_and_broken_images(run, photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "broken.png").write_bytes(b"no image")
    out = tmp_path / "f.safetensors"
    config = EmbedConfig(
        source=(str(folder),), init=str(run), out=str(out), size=(32, 32), pool="patches"
    )
    written = unmask.embed(config)
    assert written.bad[0].path.endswith("broken.png")
    assert load_file(out)["features"].shape == (24, 64, 16)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"init": ""}, "--init RUN"),
        ({"out": "features.csv"}, "must end in .safetensors or .parquet"),
        ({"layer": 3}, "blocks 1 to 2"),
        ({"size": (30,)}, "does not divide"),
    ],
)
def test_mistakes(run, photos, tmp_path, change, says):
    values = {"source": (str(photos),), "init": str(run), "out": str(tmp_path / "f.parquet"), **change}
    with pytest.raises(ValueError, match=says):
        unmask.embed(EmbedConfig(**values))


def test_no_class_token():
    from unmask.core.vit import VisionTransformer

    encoder = VisionTransformer(
        image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, heads=1, class_tokens=0
    )
    images = torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match="no class token"):
        encoder.features(images, pool="class")
    assert encoder.features(images, pool="mean").shape == (2, 8)
