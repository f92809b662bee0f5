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


def test_every_setting_has_a_text_and_inherited_ones_too():
    for section in dataclasses.fields(PretrainConfig):
        if dataclasses.is_dataclass(section.type):
            names = {one.name for one in dataclasses.fields(section.type)}
            assert names <= set(texts_of(section.type))
    assert texts_of(Optim)["weight_decay"] == "Weight decay; biases and norms are never decayed."
