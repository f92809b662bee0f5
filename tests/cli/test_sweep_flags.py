"""finetune, probe and scratch as a user types them: short names of flags, and what a sweep sets."""

import pytest

from unmask.cli.main import run
from unmask.config.classify import TuneOptim
from unmask.tasks import TASKS


@pytest.fixture
def asked(monkeypatch) -> list:
    """The configurations of the runs that a command begins."""
    found: list = []
    monkeypatch.setattr("unmask.runs.run.run", lambda task: found.append(task.config))
    return found


@pytest.fixture
def swept(monkeypatch) -> list:
    """Settings and configuration of each run of the sweeps that a command begins."""
    found: list = []
    monkeypatch.setattr(
        "unmask.runs.study.run_sweep",
        lambda runs, base: found.extend((settings, task.config) for settings, task in runs),
    )
    return found


@pytest.mark.parametrize(
    "flags",
    ["--tune-blocks 0.5", "--tune-blocks=0.5", "--tune_blocks=0.5", "--head.tune-blocks=0.5"],
)
def test_short_name_of_a_flag(flags, asked):
    assert run(["finetune", "images", *flags.split()]) == 0
    assert [config.head.tune_blocks for config in asked] == [0.5]


@pytest.mark.parametrize("name", ["tune-blocks", "tune_blocks", "head.tune-blocks"])
def test_short_name_in_a_sweep(name, swept):
    assert run(["finetune", "images", "--sweep", name, "0.5,1", "--seeds=0,1"]) == 0
    assert [(config.head.tune_blocks, config.run.seed) for _, config in swept] == [
        (0.5, 0),
        (0.5, 1),
        (1, 0),
        (1, 1),
    ]
    assert swept[0][0] == {"head.tune_blocks": "0.5", "run.seed": "0"}


@pytest.mark.parametrize(
    ("flags", "length"),
    [
        ("", (None, None, 1500, 100)),
        ("--optim.epochs 7", (7, None, None, 100)),
        ("--optim.epochs=7 --optim.warmup_epochs 2", (7, 2, None, None)),
        ("--optim.epochs 7 --optim.steps 30", (7, None, 30, 100)),
    ],
)
def test_epochs_replace_a_recipes_steps(flags, length, asked):
    """Steps win over epochs, and would let the flag do nothing."""
    assert run(["finetune", "images", "--recipe", "small-data", *flags.split()]) == 0
    (o,), usual = [config.optim for config in asked], TuneOptim()
    epochs, warmup_epochs, steps, warmup_steps = length
    assert (o.steps, o.warmup_steps) == (steps, warmup_steps)
    assert o.epochs == (epochs or usual.epochs)
    assert o.warmup_epochs == (warmup_epochs or usual.warmup_epochs)


def test_epochs_in_a_sweep_replace_steps(swept):
    assert run(["finetune", "images", "--sweep", "optim.epochs", "5,6"]) == 0
    assert [(config.optim.epochs, config.optim.steps) for _, config in swept] == [(5, None), (6, None)]


def test_a_switch_in_a_sweep(swept):
    assert run(["pretrain", "images", "--sweep", "mask.tokens-in-encoder", "True,false"]) == 0
    assert [config.mask.tokens_in_encoder for _, config in swept] == [True, False]


@pytest.mark.parametrize(
    ("typed", "write"),
    [
        ("--data.flip False", "--data.no-flip"),
        ("--data.flip=true", "--data.flip"),
        ("--mask.tokens_in_encoder False", "--mask.no-tokens-in-encoder"),
    ],
)
def test_a_switch_takes_no_value(typed, write, asked, capsys):
    """It would be the images."""
    assert run(["pretrain", "images", *typed.split()]) == 2
    assert f": write {write}\n" in capsys.readouterr().err
    assert run(["pretrain", "images", write]) == 0


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        ("recipe a,b", "give the command once for each --recipe, with an --out of its own"),
        ("out a,b", "has a folder of its own below --out"),
        ("data.source a,b", "give the command once for each data set"),
        ("optim.base-lr", "--sweep is not complete: write --sweep optim.base-lr 1e-3,2e-3"),
        ("optim.base-lr 1,1", "takes different values"),
        (
            "data.flip yes,no",
            "is on or off, and got yes: write --sweep data.flip True,False",
        ),
    ],
)
def test_what_a_sweep_cannot_set(sweep, sentence, swept, capsys):
    assert run(["finetune", "images", "--sweep", *sweep.split()]) == 2
    assert not swept, "it began"
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", TASKS)
def test_every_training_command_takes_seeds(command, swept):
    assert run([command, "images", "--seeds", "0,1"]) == 0
    assert [config.run.seed for _, config in swept] == [0, 1]


@pytest.mark.parametrize(
    "words",
    [
        "images --recipe laptop --optim.steps 9",
        "--recipe laptop --optim.steps 9 images",
        "--recipe=laptop images --optim.steps=9",
        "--optim.steps 9 images --recipe laptop",
    ],
)
def test_words_may_stand_anywhere(words, asked):
    """Behind a flag's values, a word is the data."""
    assert run(["pretrain", *words.split()]) == 0
    (config,) = asked
    assert (config.data.source, config.recipe, config.optim.steps) == (("images",), "laptop", 9)
