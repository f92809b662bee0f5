"""Every recipe: the paper's numbers, a docstring that says what it costs, and a step on tiny data."""

import re
from dataclasses import replace

import pytest

from tests_support import resolved
from unmask import api
from unmask.recipes import CLASSIFY, PRETRAIN, classify_recipe, pretrain_recipe

SIZES = {"base": (768, 12, 12, 16), "large": (1024, 24, 16, 16), "huge": (1280, 32, 16, 14)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("epochs", [800, 1600])
def test_table_8(size, epochs):
    plan = resolved(pretrain_recipe(f"vit-{size}-{epochs}"), world_size=64)
    a, t, d = plan.architecture, plan.training, plan.data
    assert (a.width, a.depth, a.heads, a.patch_size[0]) == SIZES[size]
    assert (a.decoder_width, a.decoder_depth, a.decoder_heads) == (512, 8, 16)
    assert (a.mask_ratio, a.target, a.loss_on) == (0.75, "normalized-pixels", "masked")
    assert (t.lr, t.weight_decay, t.betas) == (pytest.approx(2.4e-3), 0.05, (0.9, 0.95))
    assert (t.batch, t.process_batch, t.clip, t.ema) == (4096, 64, None, None)
    assert t.steps / t.steps_per_epoch == pytest.approx(epochs, abs=0.01)
    assert t.warmup_steps / t.steps_per_epoch == pytest.approx(40, abs=0.01)
    assert (d.image_size, d.crop_scale, d.flip) == ((224, 224), (0.2, 1.0), True)


@pytest.mark.parametrize(
    ("recipes", "name", "commands"),
    [
        *((PRETRAIN, name, "pretrain|quickstart") for name in PRETRAIN),
        *((CLASSIFY, name, "finetune|probe|scratch|quickstart") for name in CLASSIFY),
    ],
)
def test_docstring_states_claim_cost_and_command(recipes, name, commands):
    text = recipes[name].__doc__
    assert re.search(r"^    Claim", text, re.MULTILINE)
    assert re.search(r"^    Cost", text, re.MULTILINE)
    assert re.search(rf"^    Command: .*unmask ({commands})", text, re.MULTILINE)
    assert recipes[name]().recipe == name


@pytest.mark.parametrize("name", PRETRAIN)
def test_runs_on_tiny_data(name, tiny):
    """Everything of the recipe but its dimensions and its length."""
    recipe = pretrain_recipe(name)
    small = replace(recipe.optim, batch=4, steps=2, warmup_steps=1)
    config = replace(recipe, out=tiny.out, model=tiny.model, optim=small, run=tiny.run)
    config = replace(config, data=replace(recipe.data, source=tiny.data.source, size=(16,), workers=0))
    assert api.load(api.pretrain(config)).architecture.target == recipe.target.kind


def test_tiny_images_are_compared_fairly():
    """From scratch differs from fine-tuning in what is initialised, and in its own learning rate."""
    tuned, scratch = (classify_recipe(f"tiny-images-{name}") for name in ("finetune", "scratch"))
    pretrained = pretrain_recipe("tiny-images")
    its_own = {"layer_decay": tuned.optim.layer_decay, "base_lr": tuned.optim.base_lr}
    assert replace(scratch.optim, **its_own) == tuned.optim
    assert (scratch.augment, scratch.head, scratch.run) == (tuned.augment, tuned.head, tuned.run)
    assert replace(scratch.data, size=None) == tuned.data
    assert scratch.data.size == pretrained.data.size
    for field in ("patch", "width", "depth", "heads", "mlp_ratio", "class_tokens"):
        assert getattr(scratch.model, field) == getattr(pretrained.model, field)
