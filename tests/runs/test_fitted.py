"""A run that fits itself to its images: what it chooses, what wins over that, and what it remembers."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

import unmask
from tests_support import stopped_after, write_texture
from unmask.cli import train
from unmask.cli.main import run
from unmask.config.keywords import with_settings
from unmask.config.settings import Autoencoder
from unmask.distributed.processes import Processes
from unmask.errors import CheckpointError
from unmask.recipes.pretrain import PRETRAIN, laptop
from unmask.runs import fitted as module
from unmask.runs.fitted import fitted
from unmask.runs.timed import Length
from unmask.tasks.pretrain import Pretrain

pytestmark = pytest.mark.usefixtures("blank_charts")

SMALL = Autoencoder(
    patch=(8,), width=16, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=1
)
SHORT = ["--optim.steps", "3", "--optim.batch", "4", "--optim.warmup-steps", "1"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        PRETRAIN,
        "laptop",
        lambda: replace(laptop(), model=SMALL, data=replace(laptop().data, workers=0)),
    )
    write_texture(tmp_path / "texture", 2)
    return tmp_path


def chosen(capsys, *words: str) -> tuple[int, int, float, int, list[str]]:
    """Side, patch, ratio, steps and notes of a run that is not made."""
    assert run(["pretrain", "texture", *words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    model = plan["model"]
    return (
        plan["image"]["size"][0],
        model["encoder"]["patch_size"][0],
        model["mask"]["ratio"],
        plan["training"]["steps"],
        [note for note in plan["notes"] if "chosen: " in note],
    )


def test_it_chooses_what_check_advises(capsys, monkeypatch):
    monkeypatch.setattr("unmask.use.advise.advised_steps", lambda reading: 1234)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # on a GPU the recipe's steps stay
    *values, (note,) = chosen(capsys, "--optim.batch", "12")
    assert values == [64, 4, 0.5, 1234]
    assert note.startswith("in 16 images of 64 x 64 pixels the correlation of pixels falls to one half")
    assert note.endswith(
        "chosen: 64 pixels, patches of 4, 50 % masked, 1234 steps (explicit --data.size, --model.patch, "
        "--mask.ratio, --optim.steps win)"
    )
    assert unmask.check("texture", data_workers=0).commands[0] == (
        "unmask pretrain texture --recipe laptop --data.workers 0 --optim.batch 12 --data.size 64 "
        "--model.patch 4 --mask.ratio 0.5 --optim.steps 1234"
    )


@pytest.mark.parametrize(
    ("words", "expected", "left"),
    [
        ("--data.size 32", (32, 2, 0.5, 3), "patches of 2, 50 % masked"),
        ("--data.size 96", (96, 6, 0.5, 3), "patches of 6, 50 % masked"),
        ("--model.patch 8", (64, 8, 0.75, 3), "64 pixels"),
        ("--model.patch 14", (56, 14, 0.75, 3), "56 pixels"),
        ("--mask.ratio 0.75", (64, 8, 0.75, 3), "64 pixels"),
        ("--data.size 96 --model.patch 8", (96, 8, 0.75, 3), None),
        ("--fit", (96, 8, 0.75, 3), None),
    ],
)
def test_flags_win_even_if_they_say_what_the_recipe_says(words, expected, left, capsys):
    *values, notes = chosen(capsys, *words.split(), *SHORT)
    assert tuple(values) == expected
    assert [note.split("chosen: ")[1].split(" (")[0] for note in notes] == ([left] if left else [])


@pytest.mark.parametrize("words", ["--time 5m", "--optim.epochs 2"])
def test_a_length_of_any_kind_wins(words, capsys, monkeypatch):
    monkeypatch.setattr("unmask.use.advise.advised_steps", lambda reading: 1 / 0)
    monkeypatch.setattr("unmask.runs.run.length_in_time", lambda *_: Length(7, 1))
    *_, (note,) = chosen(capsys, *words.split(), "--optim.batch", "4", "--optim.warmup-epochs", "0")
    assert "steps" not in note


def test_what_was_chosen_is_written_down_and_kept(monkeypatch, capsys, place):
    words = ["pretrain", "texture", *SHORT, "--run.checkpoint-every", "1", "--out", "run"]
    stopped_after(monkeypatch, 2, lambda: train.main(words[0], words[1:]))
    config = json.loads((place / "run/config.json").read_text())
    assert config["fit"] == []
    assert (config["data"]["size"], config["model"]["patch"], config["mask"]["ratio"]) == (
        [64],
        [4],
        0.5,
    )
    assert "in 16 images of" in (place / "run/train.log").read_text()
    monkeypatch.setattr(module, "fit_to_images", lambda *_: 1 / 0)
    assert run(words) == 0
    assert "finished" in capsys.readouterr().out
    assert run(words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert json.loads((place / "run/config.json").read_text()) == config
    assert run([*words, "--data.size", "32"]) == 4
    assert "--data.size was [64] and is [32]" in capsys.readouterr().err


def test_a_foreign_folder_is_refused_without_a_look(place, monkeypatch):
    monkeypatch.setattr(module, "fit_to_images", lambda *_: 1 / 0)
    (place / "mine").mkdir()
    (place / "mine/letter.txt").touch()
    with pytest.raises(CheckpointError, match="no run of unmask"):
        unmask.pretrain("texture", out="mine")


def test_runs_that_are_compared_are_of_one_length(monkeypatch, place):
    lengths = iter((3, 9, 9, 9))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("unmask.use.advise.advised_steps", lambda reading: next(lengths))
    few = {"batch": 4, "warmup_steps": 1, "out": "both"}
    unmask.pretrain("texture", seeds=[0, 1], **few)
    configs = [json.loads((place / f"both/seed={seed}/config.json").read_text()) for seed in (0, 1)]
    assert [c["optim"]["steps"] for c in configs] == [3, 3]
    assert [c["model"]["patch"] for c in configs] == [[4], [4]]
    with monkeypatch.context() as patch:
        patch.setattr(module, "fit_to_images", lambda *_: 1 / 0)
        unmask.pretrain("texture", seeds=[0, 1], **few)  # all are finished
    plans = unmask.pretrain("texture", seeds=[0, 1], dry_run=True, **few)
    assert [plan.training.steps for plan in plans.values()] == [3, 3]


def test_a_setting_that_is_swept_is_not_fitted(monkeypatch):
    monkeypatch.setattr("unmask.use.advise.advised_steps", lambda reading: 5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plans = unmask.pretrain(
        "texture", sweep={"data.size": [32, 64]}, dry_run=True, batch=4, warmup_steps=1
    )
    found = [(p.image.size[0], p.model.encoder.patch_size[0], p.training.steps) for p in plans.values()]
    assert found == [(32, 2, 5), (64, 4, 5)]


def test_what_a_recipe_of_ones_own_sets_stays(place, monkeypatch, capsys):
    (place / "own.py").write_text(
        "from dataclasses import replace\n"
        "from unmask.recipes.pretrain import PRETRAIN\n\n\n"
        "def mine():\n"
        '    c = PRETRAIN["laptop"]()\n'
        "    return replace(c, data=replace(c.data, size=(32,)))\n"
    )
    assert chosen(capsys, "--recipe", "own:mine", *SHORT)[:2] == (32, 2)


def test_images_of_one_colour_leave_the_recipe_as_it_is(place, capsys):
    (place / "blank").mkdir()
    for i in range(12):
        Image.new("RGB", (120, 100), (20 * i, 90, 10)).save(place / f"blank/{i}.png")
    for path in (place / "texture").iterdir():
        path.unlink()
    for path in (place / "blank").iterdir():
        path.rename(place / "texture" / path.name)
    *values, (note,) = chosen(capsys, *SHORT)
    assert values == [96, 8, 0.75, 3]
    assert note.startswith("the images do not say which patches suit them; chosen: 96 pixels")


def test_nothing_that_can_be_read_is_the_runs_own_error(place, capsys):
    for path in (place / "texture").iterdir():
        path.write_bytes(b"nothing")
    assert run(["pretrain", "texture"]) == 3
    assert "Traceback" not in capsys.readouterr().err
    assert not (place / "runs").exists()


def test_what_the_main_process_chose_counts(monkeypatch):
    """The others look at nothing: their machine may be busier."""
    monkeypatch.setattr(module, "fit_to_images", lambda *_: 1 / 0)
    config = with_settings(PRETRAIN["laptop"](), {"data_source": "texture"})
    theirs = replace(config, fit=(), optim=replace(config.optim, steps=77))

    class Second(Processes):
        def from_main(self, value):
            assert value is None
            return theirs, ("looked",)

    task, said = fitted(Pretrain(config), None, Second(rank=1, size=2, device=torch.device("cpu")))
    assert (task.config, said) == (theirs, ("looked",))
