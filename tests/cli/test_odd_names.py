"""Fault 32: a folder's name may hold anything."""

import logging
import os
import re

import pytest

import unmask
from tests_support import random_weights, spec_for
from unmask.cli import main as module
from unmask.cli.main import run
from unmask.engine.console import RunConsole
from unmask.errors import printable
from unmask.interop.weights import read_weights, write_model

ESCAPES = "esc\x1b[31mred\x9b"


def test_32_escapes_in_the_name_of_the_output(tmp_path, capfd):
    console = RunConsole(speaks=True)
    console.log_to(tmp_path / "train.log")
    console.say(f"run directory {ESCAPES}; b\udcff")
    module.complain(f"there is no {ESCAPES}")
    said = "".join(capfd.readouterr()) + (tmp_path / "train.log").read_text()
    assert "\x1b" not in said
    assert "\x9b" not in said
    assert said.count(r"esc\x1b[31mred\x9b") == 3
    assert said.count(r"b\udcff") == 2
    assert printable("é Ω 图\n\u00a0") == "é Ω 图\n\u00a0"


def test_32_a_model_in_a_folder_whose_name_is_not_utf_8(tiny, tmp_path):
    folder = tmp_path / os.fsdecode(b"b\xffd")
    folder.mkdir()
    weights = random_weights(spec_for(tiny))
    write_model(folder, weights.state, weights.description)
    assert read_weights(folder).state.keys() == weights.state.keys()
    assert unmask.load(folder) is not None


def test_matplotlib_says_nothing_of_its_folders(monkeypatch, capfd):
    monkeypatch.setattr(module, "run", lambda argv: 0)
    with pytest.raises(SystemExit):
        module.main([])
    logging.getLogger("matplotlib").warning("created a temporary cache directory")
    assert capfd.readouterr().err == ""


def test_12_a_full_disk_without_a_name(monkeypatch, capfd):
    def fails(argv):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_function", lambda name, place: fails)
    assert run(["predict", "x", "--out", "here"]) == 4
    says = (
        r"to here: No space left on device \(the disk of . has .*iB free, and more is needed: make room"
    )
    assert re.search(says, capfd.readouterr().err)
