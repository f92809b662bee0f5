"""docs/ablations.md: its commands run, and its tables are the code's."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import photograph
from unmask.cli.main import run
from unmask.config.ablation import BUDGETS, Lengths
from unmask.config.axes import AXES
from unmask.config.keywords import with_settings
from unmask.recipes import pretrain

PAGE = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text()


def test_the_axes_are_all_axes():
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE)
    listed = {name: place for name, place in rows if name in AXES}
    assert list(listed) == list(AXES)
    assert all(listed[name].startswith(axis.place) for name, axis in AXES.items())


def test_the_budgets_are_all_budgets():
    steps = dict(re.findall(r"^\| `(\w+)` \| (\d+) steps of the recipe quickstart", PAGE, re.MULTILINE))
    lengths = {name: budget.lengths.pretrain for name, budget in BUDGETS.items() if budget.lengths}
    assert steps == {name: str(count) for name, count in lengths.items()}
    for name in ("smoke", "small", "full"):
        assert f"| `{name}` |" in PAGE


@pytest.mark.slow
def test_the_commands_run(tmp_path, monkeypatch):
    """With runs of two steps of a small model."""
    monkeypatch.chdir(tmp_path)
    for place in ("labelled/a", "labelled/b", "images"):
        (tmp_path / "path/to" / place).mkdir(parents=True)
        for i in range(12):
            photograph(i + len(place)).save(f"path/to/{place}/{i}.png")
    small = with_settings(
        pretrain.quickstart(), {"data_size": 16, "patch": 4, "width": 16, "heads": 2, "workers": 0}
    )
    monkeypatch.setitem(pretrain.PRETRAIN, "quickstart", lambda: small)
    smoke = replace(BUDGETS["smoke"], lengths=Lengths(pretrain=2, finetune=2, probe=2, tokenizer=2))
    monkeypatch.setitem(BUDGETS, "smoke", smoke)
    monkeypatch.setitem(BUDGETS, "small", smoke)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    assert len(lines) == 5
    for words in lines:
        assert run(words) == 0, shlex.join(words)
    out = tmp_path / "runs"
    assert {path.name for path in out.glob("ablate-*")} == {
        "ablate-mask_sampling-labelled",
        "ablate-target-images",
        "ablate-mask_ratio-labelled",
    }
    assert "at the 5 % level" in (out / "ablate-target-images" / "report.html").read_text()
    assert "not finished" not in (out / "ablate-mask_ratio-labelled" / "report.html").read_text()
