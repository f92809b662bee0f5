"""The axes of the paper's ablations as data: every value can be trained, and differs from the others."""

import pytest

from tests_support import spec_for
from unmask.config.axes import AXES, DEFAULT, find_axis, parse_values
from unmask.config.commands import PretrainConfig
from unmask.config.fields import check
from unmask.config.keywords import with_named
from unmask.config.settings import Autoencoder, Optim
from unmask.recipes import pretrain

LARGE = PretrainConfig(model=Autoencoder(size="large"), optim=Optim(batch=256))


@pytest.mark.parametrize("name", AXES)
def test_every_value_is_a_model_of_the_paper(name):
    axis = AXES[name]
    values = parse_values(name, axis.all, LARGE)
    configs = [with_named(LARGE, value.settings) for value in values]
    assert len({str(config) for config in configs}) == len(configs)
    for config in configs:
        check(config)
        if config.target.kind != "tokens":
            assert spec_for(config).masked > 0
    assert {value.name for value in values} == set(axis.all), "in their shortest form"


@pytest.mark.parametrize("name", AXES)
def test_small_budgets_compare_what_small_recipes_can(name):
    base = pretrain.quickstart()
    values = parse_values(name, AXES[name].few, base)
    assert any(with_named(base, value.settings) == base for value in values), "one is the recipe's own"
    for value in values:
        if value.settings.get("target.kind") != "tokens":
            spec_for(with_named(base, value.settings))


@pytest.mark.parametrize("name", AXES)
def test_what_the_paper_says_belongs_to_a_value(name):
    axis = AXES[name]
    names = {value.name for one in axis.paper for value in [axis.parse(one, LARGE)]}
    assert names == set(axis.paper)
    assert DEFAULT in axis.paper.values()
    for paper in axis.paper.values():
        assert 54 < paper.linear < paper.finetune < 86


def test_numbers_have_one_name():
    assert [v.name for v in parse_values("mask_ratio", ("0.50", ".75"), LARGE)] == ["0.5", "0.75"]
    assert find_axis("mask-ratio")[0] == "mask_ratio"


def test_a_schedule_is_a_multiple_of_the_recipes_own():
    half, double = parse_values("schedule", ("0.5", "2"), LARGE)
    assert half.settings == {"optim.epochs": 400.0, "optim.warmup_epochs": 40.0}
    assert double.settings["optim.epochs"] == 1600.0
    short, whole = parse_values("schedule", ("0.01", "1"), pretrain.quickstart())
    assert short.settings == {"optim.steps": 22, "optim.warmup_steps": 11}
    assert whole.settings == {"optim.steps": 2200, "optim.warmup_steps": 60}


def test_the_ratio_of_sampling_is_the_recipes_unless_it_is_given():
    half = with_named(LARGE, {"mask.ratio": 0.5})
    random, block, grid = parse_values("mask_sampling", ("random", "block:0.75", "grid"), half)
    assert (random.settings["mask.ratio"], block.settings["mask.ratio"]) == (0.5, 0.75)
    assert grid.settings["mask.ratio"] == 0.75
