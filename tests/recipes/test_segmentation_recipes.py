"""Recipes for segmentation: Table 5's numbers, docstrings, and a step of each on tiny data."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unmask
from conftest import ENCODER, photograph
from unmask.recipes.segment import SEGMENT
from unmask.runs.run import dry_run
from unmask.tasks.segment import Segment

pytestmark = pytest.mark.usefixtures("blank_charts")


@pytest.fixture
def halves(tmp_path) -> Path:
    """Eight photographs whose left and right halves are two classes."""
    for place in ("images", "masks"):
        (tmp_path / "halves" / place).mkdir(parents=True)
    for i in range(8):
        photograph(i).save(tmp_path / "halves" / "images" / f"{i}.png")
        labels = np.zeros((30, 44), np.uint8)
        labels[:, 22:] = 1
        Image.fromarray(labels).save(tmp_path / "halves" / "masks" / f"{i}.png")
    return tmp_path / "halves"


@pytest.mark.parametrize("name", SEGMENT)
def test_docstring_states_claim_cost_and_command(name):
    text = SEGMENT[name].__doc__ or ""
    for word in ("Claim", "Cost", rf"Command: .*unmask segment .*--recipe {name} "):
        assert re.search(rf"^    {word}", text, re.MULTILINE), word
    assert SEGMENT[name]().recipe == name


@pytest.mark.parametrize(
    ("name", "rate", "layer_decay", "drop_path", "blocks"),
    [
        ("segment-base", 1e-4, 0.65, 0.1, (4, 6, 8, 12)),
        ("segment-large", 2e-5, 0.95, 0.2, (8, 12, 16, 24)),
    ],
)
def test_table_5(halves, name, rate, layer_decay, drop_path, blocks):
    recipe = SEGMENT[name]()
    data = replace(recipe.data, source=(str(halves),), workers=0)
    short = replace(recipe, scratch=True, data=data, optim=replace(recipe.optim, batch=2, base_lr=0.1))
    plan = dry_run(Segment(short))
    spec, o = plan.model, recipe.optim
    assert (spec.blocks, spec.width, spec.pool_scales) == (blocks, None, (1, 2, 3, 6))
    assert (spec.sides, plan.image.size) == ((2048, 512), (512, 512))
    assert (spec.relative_position, spec.layer_scale, spec.auxiliary_width) == (True, 1.0, 256)
    assert o.base_lr * o.batch / 256 == pytest.approx(rate)
    assert (o.batch, o.steps, o.warmup_steps, o.weight_decay) == (16, 160_000, 1500, 0.05)
    assert (o.layer_decay, recipe.head.drop_path, recipe.head.auxiliary_weight) == (
        layer_decay,
        drop_path,
        0.4,
    )
    assert (plan.training.schedule, plan.training.min_lr) == ("linear", 0.0)
    assert (recipe.data.scale, recipe.data.flip, recipe.data.distort) == ((0.5, 2.0), True, True)


@pytest.mark.parametrize("name", SEGMENT)
def test_runs_on_tiny_data(halves, tmp_path, name):
    """Everything of the recipe but its dimensions and its length."""
    recipe = SEGMENT[name]()
    config = replace(
        recipe,
        out=str(tmp_path / "run"),
        scratch=True,
        model=ENCODER,
        data=replace(recipe.data, source=(str(halves),), size=(16,), resize=None, workers=0),
        head=replace(recipe.head, width=8),
        optim=replace(recipe.optim, batch=2, steps=1, warmup_steps=0),
        run=replace(recipe.run, precision="fp32"),
    )
    model = unmask.load(unmask.train("segment", config))
    assert (model.relative_position is None) is recipe.head.frozen
