"""Recipes for classification: the paper's numbers, and a plan."""

from dataclasses import replace

import pytest

from tests_support import CPU, facts, image_spec
from unmask.config.classify import Augment
from unmask.config.commands import ClassifyConfig, FinetuneConfig, ScratchConfig
from unmask.config.resolve import resolve, resolve_encoder
from unmask.config.settings import Encoder
from unmask.models.classifier_spec import ClassifierSpec
from unmask.recipes.classify import FINETUNE, PROBE, SCRATCH
from unmask.tasks import find_recipe

pytestmark = pytest.mark.usefixtures("blank_charts")

RECIPES = {"finetune": FINETUNE, "probe": PROBE, "scratch": SCRATCH}

BESIDE_CROPS = Augment(rand_augment=True, mixup=0.8, cutmix=1.0, smoothing=0.1, erasing=0.0)


def finetuning(config: FinetuneConfig) -> tuple:
    """Rate, layer decay, epochs and drop path: what differs between the models."""
    o = config.optim
    assert (o.optimizer, o.weight_decay, o.betas, o.min_lr) == ("adamw", 0.05, (0.9, 0.999), 1e-6)
    assert (o.batch, o.warmup_epochs, o.steps, o.warmup_steps) == (1024, 5, None, None)
    assert (config.data.crop_scale, config.data.eval_crop, o.ema) == ((0.08, 1.0), None, None)
    return o.base_lr, o.layer_decay, o.epochs, config.head.drop_path


@pytest.mark.parametrize(
    ("size", "epochs", "drop_path"), [("base", 100, 0.1), ("large", 50, 0.1), ("huge", 50, 0.2)]
)
def test_table_9(size, epochs, drop_path):
    config = find_recipe("finetune", f"finetune-{size}")
    assert finetuning(config) == (1e-3, 0.75, epochs, drop_path)
    assert (config.head.pool, config.head.tune_blocks, config.augment) == ("class", None, BESIDE_CROPS)


@pytest.mark.parametrize(
    ("size", "numbers"),
    [
        ("base", (5e-4, 0.65, 100, 0.1)),
        ("large", (1e-3, 0.75, 50, 0.2)),
        ("huge", (1e-3, 0.75, 50, 0.3)),
    ],
)
def test_released_settings(size, numbers):
    config = find_recipe("finetune", f"finetune-{size}-released")
    assert finetuning(config) == numbers
    assert config.head.pool == "mean"
    assert config.augment == replace(BESIDE_CROPS, erasing=0.25)


def test_figure_9_is_table_9_for_some_blocks():
    config, whole = find_recipe("finetune", "partial-large"), find_recipe("finetune", "finetune-large")
    assert config.head.tune_blocks == 1
    assert replace(config, recipe=whole.recipe, head=replace(config.head, tune_blocks=None)) == whole


def test_table_10():
    config = find_recipe("probe", "probe")
    o = config.optim
    assert (o.optimizer, o.base_lr, o.weight_decay, o.momentum) == ("lars", 0.1, 0, 0.9)
    assert (o.batch, o.epochs, o.warmup_epochs, o.min_lr) == (16384, 90, 10, 0)
    assert (config.head.batch_norm, config.head.tune_blocks, config.head.drop_path) == (True, 0, 0)
    nothing = Augment(rand_augment=False, mixup=0, cutmix=0, smoothing=0, erasing=0)
    assert (config.augment, config.data.crop_scale, config.data.flip) == (nothing, (0.08, 1.0), True)


@pytest.mark.parametrize(
    ("size", "epochs", "drop_path"), [("base", 300, 0.1), ("large", 200, 0.2), ("huge", 200, 0.2)]
)
def test_table_11(size, epochs, drop_path):
    config = find_recipe("scratch", f"scratch-{size}")
    o = config.optim
    assert (o.base_lr, o.weight_decay, o.betas, o.layer_decay) == (1e-4, 0.3, (0.9, 0.95), 1)
    assert (o.batch, o.epochs, o.warmup_epochs, o.ema) == (4096, epochs, 20, 0.9999)
    assert (config.head.drop_path, config.augment) == (drop_path, BESIDE_CROPS)
    assert config.model == Encoder(size=size)


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command in RECIPES for name in RECIPES[command]]
)
def test_fits_together(command, name):
    """On images of ImageNet's number, in eight processes."""
    config: ClassifyConfig = find_recipe(command, name)
    image = image_spec((224, 224))
    new = config.model if isinstance(config, ScratchConfig) else Encoder()
    encoder = resolve_encoder(new, size=image.size, channels=3)
    head = config.head
    model = ClassifierSpec(
        encoder=encoder, classes=("a", "b"), pool=head.pool, batch_norm=head.batch_norm
    )
    plan = resolve(config, model=model, image=image, facts=facts(1_281_167), machine=CPU, world_size=8)
    t, o = plan.training, config.optim
    assert (plan.model, t.optimizer) == (model, o.optimizer)
    assert (t.momentum, t.min_lr) == (o.momentum, min(o.min_lr, t.lr))
    assert t.lr == pytest.approx(o.base_lr * o.batch / 256)
    if o.steps is None:
        assert t.steps / t.steps_per_epoch == pytest.approx(o.epochs, abs=0.01)
