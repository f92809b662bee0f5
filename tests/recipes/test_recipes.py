"""Every recipe: the paper's numbers, a docstring that says what it costs, and a step on tiny data."""

import re
from dataclasses import replace

import pytest

import unmask
from tests_support import resolved
from unmask.recipes.pretrain import PRETRAIN
from unmask.tasks import TASKS, find_recipe

pytestmark = pytest.mark.usefixtures("blank_charts")

SIZES = {"base": (768, 12, 12, 16), "large": (1024, 24, 16, 16), "huge": (1280, 32, 16, 14)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("epochs", [800, 1600])
def test_table_8(size, epochs):
    recipe = find_recipe("pretrain", f"vit-{size}-{epochs}")
    plan = resolved(recipe, world_size=64)
    m, t, d = plan.model, plan.training, recipe.data
    e = m.encoder
    assert (e.width, e.depth, e.heads, e.patch_size[0]) == SIZES[size]
    assert (m.decoder.width, m.decoder.depth, m.decoder.heads) == (512, 8, 16)
    assert (m.mask.ratio, m.target.kind, m.target.loss_on) == (0.75, "normalized-pixels", "masked")
    assert (t.lr, t.weight_decay, t.betas) == (pytest.approx(2.4e-3), 0.05, (0.9, 0.95))
    assert (t.batch, t.process_batch, t.clip, t.ema) == (4096, 64, None, None)
    assert t.steps / t.steps_per_epoch == pytest.approx(epochs, abs=0.01)
    assert t.warmup_steps / t.steps_per_epoch == pytest.approx(40, abs=0.01)
    assert (plan.image.size, d.crop_scale, d.flip) == ((224, 224), (0.2, 1.0), True)


@pytest.mark.parametrize(
    ("command", "name"),
    [(command, name) for command, entry in TASKS.items() for name in entry.known_recipes()],
)
def test_docstring_states_claim_cost_and_command(command, name):
    text = TASKS[command].known_recipes()[name].__doc__
    assert re.search(r"^    Claim", text, re.MULTILINE)
    assert re.search(r"^    Cost", text, re.MULTILINE)
    assert re.search(rf"^    Command: .*unmask ({command}|quickstart)", text, re.MULTILINE)
    assert find_recipe(command, name).recipe == name


@pytest.mark.parametrize("name", PRETRAIN)
def test_runs_on_tiny_data(name, tiny):
    """Everything of the recipe but its dimensions and its length."""
    recipe = find_recipe("pretrain", name)
    small = replace(recipe.optim, batch=4, steps=2, warmup_steps=1)
    config = replace(recipe, out=tiny.out, model=tiny.model, optim=small, run=tiny.run)
    config = replace(config, data=replace(recipe.data, source=tiny.data.source, size=(16,), workers=0))
    assert unmask.load(unmask.pretrain(config)).spec.target.kind == recipe.target.kind


def test_tiny_images_are_compared_fairly():
    """From scratch differs from fine-tuning in what is initialised, and in its own learning rate."""
    tuned, scratch = (find_recipe(name, f"tiny-images-{name}") for name in ("finetune", "scratch"))
    pretrained = find_recipe("pretrain", "tiny-images")
    its_own = {"layer_decay": tuned.optim.layer_decay, "base_lr": tuned.optim.base_lr}
    assert replace(scratch.optim, **its_own) == tuned.optim
    assert (scratch.augment, scratch.head, scratch.run) == (tuned.augment, tuned.head, tuned.run)
    assert replace(scratch.data, size=None) == tuned.data
    assert scratch.data.size == pretrained.data.size
    for field in ("patch", "width", "depth", "heads", "mlp_ratio", "class_tokens"):
        assert getattr(scratch.model, field) == getattr(pretrained.model, field)
