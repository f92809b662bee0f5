"""An ablation under torchrun comes to what it comes to in one process."""

import json
from pathlib import Path

import pytest

from conftest import photograph
from distributed.test_two_processes import torchrun
from unmask.cli.main import run
from unmask.config.io import to_json
from unmask.config.keywords import with_settings
from unmask.config.migrate import config_record
from unmask.recipes.pretrain import quickstart


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("flat").mkdir()
    for i in range(24):
        photograph(i).save(f"flat/{i}.png")
    small = {"data_size": 16, "patch": 4, "width": 16, "depth": 1, "decoder_width": 8, "workers": 0}
    recipe = with_settings(quickstart(), {**small, "decoder_depth": 1, "precision": "fp32"})
    Path("recipe.json").write_text(to_json(config_record(recipe, "pretrain")))
    words = "ablate flat --axis loss_on --budget smoke --recipe recipe.json --out".split()
    assert run([*words, "one"]) == 0
    done = torchrun(2, *words, "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: two/report.html") == 1
    one, two = (json.loads(Path(out, "ablation.json").read_text()) for out in ("one", "two"))
    for mine, theirs in zip(one["rows"], two["rows"], strict=True):
        assert theirs["error"]["mean"] == pytest.approx(mine["error"]["mean"], rel=1e-3)
        assert theirs["rank"]["mean"] == pytest.approx(mine["rank"]["mean"], rel=1e-2)
