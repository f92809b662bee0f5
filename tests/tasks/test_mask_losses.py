"""How hard a mask is: the loss of equal training on real photographs (paper, Mask sampling strategy)."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

import unmask
from unmask.config.keywords import with_settings
from unmask.recipes.pretrain import quickstart

pytestmark = pytest.mark.usefixtures("blank_charts")

PIECE, EACH, LAST, SEEDS = 142, 20, 3, (0, 1, 2)
"""Pixels; steps of an average loss, and how many averages count."""


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Path:
    """24 pieces of two photographs."""
    folder = tmp_path_factory.mktemp("pieces")
    for i, photograph in enumerate(load_sample_images().images):
        for y in range(3):
            for x in range(4):
                piece = photograph[y * PIECE : (y + 1) * PIECE, x * PIECE : (x + 1) * PIECE]
                Image.fromarray(piece).save(folder / f"{i}{y}{x}.png")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_block_is_harder_than_random_and_grid_is_easier(pieces, tmp_path):
    small = {"data_size": 48, "patch": 4, "width": 64, "depth": 2, "heads": 2, "decoder_width": 32}
    steps = {"steps": 200, "warmup_steps": 20, "evaluate_every": 200, "sample_every": 200}
    others = {"held_out": 2, "workers": 0, "log_every": EACH, "precision": "fp32", "probe_images": 0}
    config = with_settings(quickstart(), {**small, **steps, **others, "decoder_depth": 1})

    def loss(strategy: str, seed: int) -> float:
        out = tmp_path / f"{strategy}-{seed}"
        one = with_settings(config, {"strategy": strategy, "seed": seed, "out": out})
        unmask.pretrain(with_settings(one, {"data_source": pieces}))
        records = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        losses = [record["loss"] for record in records if record.get("loss") is not None]
        return float(np.mean(losses[-LAST:]))

    block, random, grid = ([loss(s, seed) for seed in SEEDS] for s in ("block", "random", "grid"))
    assert min(block) > max(random)
    assert min(random) > np.mean(grid)
