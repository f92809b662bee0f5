"""finetune, probe and scratch as a user types them: short names of flags, and what a sweep sets."""

import pytest

from unmask import api
from unmask.cli.main import run
from unmask.config.schema_classify import ClassifyOptimConfig


@pytest.mark.parametrize(
    "flags",
    ["--tune-blocks 0.5", "--tune-blocks=0.5", "--tune_blocks=0.5", "--head.tune-blocks=0.5"],
)
def test_short_name_of_a_flag(flags, monkeypatch):
    asked = []
    monkeypatch.setattr(api, "classify", lambda config, command: asked.append(config))
    assert run(["finetune", "images", *flags.split()]) == 0
    assert [config.head.tune_blocks for config in asked] == [0.5]


@pytest.mark.parametrize("name", ["tune-blocks", "tune_blocks", "head.tune-blocks"])
def test_short_name_in_a_sweep(name, monkeypatch):
    asked = []
    monkeypatch.setattr(api, "sweep_classification", lambda runs, command: asked.extend(runs))
    assert run(["finetune", "images", "--sweep", name, "0.5,1", "--seeds=0,1"]) == 0
    assert [(config.head.tune_blocks, config.run.seed) for _, config in asked] == [
        (0.5, 0),
        (0.5, 1),
        (1, 0),
        (1, 1),
    ]
    assert asked[0][0] == {"head.tune_blocks": "0.5", "run.seed": "0"}


@pytest.mark.parametrize(
    ("flags", "length"),
    [
        ("", (None, None, 1500, 100)),
        ("--optim.epochs 7", (7, None, None, 100)),
        ("--optim.epochs=7 --optim.warmup_epochs 2", (7, 2, None, None)),
        ("--optim.epochs 7 --optim.steps 30", (7, None, 30, 100)),
    ],
)
def test_epochs_replace_a_recipes_steps(flags, length, monkeypatch):
    """Steps win over epochs, and would let the flag do nothing."""
    asked = []
    monkeypatch.setattr(api, "classify", lambda config, command: asked.append(config.optim))
    assert run(["finetune", "images", "--recipe", "small-data", *flags.split()]) == 0
    (o,) = asked
    usual = ClassifyOptimConfig()
    epochs, warmup_epochs, steps, warmup_steps = length
    assert (o.steps, o.warmup_steps) == (steps, warmup_steps)
    assert o.epochs == (epochs or usual.epochs)
    assert o.warmup_epochs == (warmup_epochs or usual.warmup_epochs)


def test_epochs_in_a_sweep_replace_steps(monkeypatch):
    asked = []
    monkeypatch.setattr(api, "sweep_classification", lambda runs, command: asked.extend(runs))
    assert run(["finetune", "images", "--sweep", "optim.epochs", "5,6"]) == 0
    assert [(config.optim.epochs, config.optim.steps) for _, config in asked] == [(5, None), (6, None)]


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        ("recipe a,b", "give the command once for each --recipe, with an --out of its own"),
        ("out a,b", "has a folder of its own below --out"),
        ("data.source a,b", "give the command once for each data set"),
        ("optim.base-lr", "--sweep is not complete: write --sweep optim.base-lr 1e-3,2e-3"),
        ("optim.base-lr 1,1", "takes different values"),
    ],
)
def test_what_a_sweep_cannot_set(sweep, sentence, monkeypatch, capsys):
    monkeypatch.setattr(api, "sweep_classification", lambda runs, command: pytest.fail("it began"))
    assert run(["finetune", "images", "--sweep", *sweep.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
