"""The data path's benchmark, on pictures that take no time."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from unmask.bench import data
from unmask.bench.photograph import photograph
from unmask.bench.run import run_bench
from unmask.bench.setting import BenchConfig


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(data, "MADE", (("JPEG", 60, 40, 2), ("PNG", 50, 40, 1)))
    monkeypatch.setattr(data, "COPIES", 4)
    monkeypatch.setattr(data, "LOADED_BATCHES", 2)


def test_cards(small, monkeypatch):
    monkeypatch.setattr(data, "_worker_counts", lambda cores: [0, 1])
    one_core, loader = run_bench("data", BenchConfig(rounds=2))
    jpeg, png = one_core.record["files"]
    assert (jpeg["file"], png["file"]) == ("JPEG 60 x 40", "PNG 50 x 40")
    assert png["bytes"] > 1000
    for r in (jpeg, png):
        for name in ("usual", "decode"):
            assert r[f"faster_than_{name}"] == pytest.approx(
                r["unmask_images_per_second"] / r[f"{name}_images_per_second"]
            )
    assert [r["workers"] for r in loader.record["workers"]] == [0, 1]
    assert all(r["images_per_second"] > 0 for r in loader.record["workers"])
    assert "simplejpeg" in one_core.record["decoder"]
    assert torch.get_num_threads() == 1, "as the tests set it"


def test_without_simplejpeg_it_is_named(monkeypatch):
    monkeypatch.setattr(data, "simplejpeg", None)
    assert "unmask[fast]" in data._notes()[-1]
    assert "simplejpeg" not in data._facts()["decoder"]


def test_what_is_compared(tmp_path):
    """Both crop at random to the same size; ours to bytes, the usual one to normalised floats."""
    file = data._write(Path(tmp_path), "JPEG", 300, 240, 1)
    ours, usual = data.our_pipeline(list(file.paths)), data.usual_pipeline()
    crops = [ours(file.path(0), i) for i in range(9)]
    assert {(c.dtype, c.shape) for c in crops} == {(torch.uint8, torch.Size((3, 224, 224)))}
    assert len({c.numpy().tobytes() for c in crops}) == 9
    assert crops[3].equal(ours(file.path(0), 3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        floats = torch.stack([usual(file.path(0), i) for i in range(9)])
    assert (floats.dtype, floats.shape) == (torch.float32, (9, 3, 224, 224))
    bytes_ = torch.stack(crops).float() / 255
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    usual_mean = floats.mean((0, 2, 3)) * std + mean
    assert (bytes_.mean((0, 2, 3)) - usual_mean).abs().max() < 0.1


def test_the_picture_is_like_a_photograph():
    pictures = [photograph(500, 375, seed) for seed in (0, 0, 1)]
    first, again, other = (np.asarray(picture) for picture in pictures)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    file = io.BytesIO()
    pictures[0].save(file, "JPEG", quality=90)
    assert 1.4 < 8 * len(file.getvalue()) / (500 * 375) < 2.4, "bits per pixel"


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [0, 1]), (2, [0, 1, 2]), (6, [0, 1, 2, 4, 6]), (8, [0, 1, 2, 4, 8])]
)
def test_worker_counts(cores, counts):
    assert data._worker_counts(cores) == counts


def test_your_own_images(photos, monkeypatch):
    monkeypatch.setattr(data, "MADE", (("JPEG", 60, 40, 1),))
    monkeypatch.setattr(data, "_load", lambda image, config: data.Card(title="", rows=[]))
    card, _ = data.bench_data(BenchConfig(images=(str(photos),), rounds=1))
    (record,) = card.record["files"]
    assert record["file"] == photos.name
    assert record["faster_than_usual"] > 0
