"""The generator of the small detection set: exact masks, and halves that share nothing."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import photograph
from unmask.evals.objects import decode

SCRIPT = Path(__file__).parents[2] / "benchmarks/make_objects.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_objects", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sources(script, tmp_path_factory):
    """Grey backgrounds and, for each class, discs of one colour."""
    folder = tmp_path_factory.mktemp("sources")
    backgrounds, cutouts = [], {}
    for i in range(8):
        photograph(i, 90, 120).convert("L").convert("RGB").save(folder / f"background-{i}.png")
        backgrounds.append(folder / f"background-{i}.png")
    y, x = np.mgrid[-1:1:50j, -1:1:60j]
    disc = np.uint8(255 * (y**2 + x**2 < 0.9))
    for k, name in enumerate(script.CLASSES):
        cutouts[name] = []
        for i in range(4):
            pixels = np.zeros((50, 60, 4), np.uint8)
            pixels[..., k % 3], pixels[..., 3] = 255, disc
            cutouts[name].append(folder / f"{name}-{i}.png")
            Image.fromarray(pixels).save(cutouts[name][-1])
    return script.Sources(backgrounds, cutouts)


def test_halves_share_nothing(script, sources):
    halves = script.split(sources, seed=0)
    train, val = halves["train"], halves["val"]
    assert (len(train.backgrounds), len(val.backgrounds)) == (6, 2)
    assert not set(train.backgrounds) & set(val.backgrounds)
    for name in script.CLASSES:
        assert len(train.cutouts[name]) == 3
        assert not set(train.cutouts[name]) & set(val.cutouts[name])
    assert script.split(sources, seed=1) != halves


def test_masks_are_where_the_objects_are(script, sources, tmp_path):
    script.write("train", sources, 12, 96, 0, tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    assert {a["category_id"] for a in content["annotations"]} == set(range(1, 6))
    for image in content["images"]:
        pixels = np.asarray(Image.open(tmp_path / "train" / image["file_name"])).astype(int)
        size = (image["height"], image["width"])
        assert pixels.shape[:2] == size
        colourful = pixels.max(axis=2) - pixels.min(axis=2) > 90
        covered = np.zeros(size, int)
        for a in (a for a in content["annotations"] if a["image_id"] == image["id"]):
            mask = decode([a["segmentation"]], size)[0].numpy()
            left, top, width, height = a["bbox"]
            assert mask[top : top + height, left : left + width].sum() == mask.sum() == a["area"] >= 60
            covered += mask
        assert covered.max(initial=0) <= 1
        assert np.mean(colourful != (covered > 0)) < 0.02


def test_a_seed_repeats_an_image(script, sources):
    pictures = script.Pictures(96)
    one, again, other = (
        np.asarray(script.compose(sources, pictures, np.random.default_rng(seed))[0])
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert one.shape != other.shape or (one != other).any()
