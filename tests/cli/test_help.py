"""`--help` shows each default once."""

import dataclasses
import re

import pytest

from unmask.cli.help import texts_of
from unmask.cli.main import main
from unmask.config.commands import PretrainConfig
from unmask.config.settings import Optim

COMMANDS = ("pretrain", "finetune", "detect", "segment", "evaluate", "predict", "knn", "ablate", "plan")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_default_is_shown_once(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    shown = re.split(r" (?=--[a-z])", text)
    twice = [one for one in shown if "Default: " in one and "(default: " in one]
    assert not twice
    assert "(default: )" not in text
    assert "(default: " in text


def test_what_a_recipe_sets_is_shown_beside_the_default(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--recipe", "laptop", "--help"])
    text = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert "Transformer blocks of the encoder. Default: that of --model.size. (recipe: 6)" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "or height and width. (default: fitted to images and machine by --fit, else 96)"),
        ([], "of --model.size. (recipe: fitted to images and machine by --fit, else 8)"),
        ([], "that are masked. (default: fitted to images and machine by --fit, else 0.75)"),
        ([], "instead of epochs. (default: fitted to images and machine by --fit, else 5000)"),
        (["--recipe", "vit-base-800"], "or height and width. (default: 224)"),
        (["--recipe", "vit-base-800"], "that are masked. (default: 0.75)"),
    ],
)
def test_defaults_that_are_fitted_to_the_images_say_so(words, says, capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", *words, "--help"])
    assert says in re.sub(r"[\s│]+", " ", capsys.readouterr().out)


def test_every_setting_has_a_text_and_inherited_ones_too():
    for section in dataclasses.fields(PretrainConfig):
        if dataclasses.is_dataclass(section.type):
            names = {one.name for one in dataclasses.fields(section.type)}
            assert names <= set(texts_of(section.type))
    assert texts_of(Optim)["weight_decay"] == "Weight decay; biases and norms are never decayed."
