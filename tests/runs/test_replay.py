"""A step of a run again: the same to the last bit, and its cause named."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import unmask
from faults.test_checkpoints import as_format_1
from tasks.test_detect import tiny_detector
from tasks.test_detect import write_scenes as write_objects
from tasks.test_segment import tiny_segmenter
from tasks.test_segment import write_scenes as write_maps
from tests_support import assert_same_state, contents, stopped_after
from unmask.cli.main import run as command
from unmask.config.commands import PretrainConfig, PretrainData, ProbeConfig
from unmask.config.settings import Autoencoder, Optim, PlainRun, Run
from unmask.config.tokenizer import TokenizerConfig, TokenizerData, TokenizerModel
from unmask.data.sampler import SampleKey
from unmask.engine import checkpoint
from unmask.errors import CheckpointError
from unmask.runs import replay
from unmask.runs.inside import OneImage
from unmask.tasks.pretrain import Pretrain

pytestmark = pytest.mark.usefixtures("blank_charts")


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory) -> Path:
    """A run of seven steps."""
    config = PretrainConfig(
        out=str(tmp_path_factory.mktemp("finished") / "run"),
        data=PretrainData(source=(str(photos),), size=(16, 24), held_out=4, workers=0),
        model=Autoencoder(
            patch=(4,), width=16, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2
        ),
        optim=Optim(steps=7, warmup_steps=2, batch=6),
        run=Run(precision="fp32"),
    )
    return unmask.pretrain(config)


@pytest.fixture
def look(tmp_path) -> str:
    return str(tmp_path / "look")


@pytest.fixture(autouse=True)
def looking_changes_nothing(monkeypatch):
    """Of weights and buffers, a BatchNorm's running statistics among them."""
    original = replay.look_inside

    def look_inside(session, *rest):
        before = {name: value.clone() for name, value in session.model.state_dict().items()}
        inside = original(session, *rest)
        assert_same_state(session.model.state_dict(), before)
        assert all(parameter.grad is None for parameter in session.model.parameters())
        return inside

    monkeypatch.setattr(replay, "look_inside", look_inside)


def with_workers(config, workers: int, **changes):
    return replace(
        config,
        data=replace(config.data, workers=workers),
        run=replace(config.run, checkpoint_every=2, **changes),
    )


def assert_same(run: Path, look: str, steps: tuple[int, ...]) -> None:
    """Every average that the run recorded of these steps, and not a byte of the run changes."""
    before = contents(run)
    for step in steps:
        done = unmask.replay(run, step=step, out=look)
        assert done.walked.equal is True, (step, list(done.sentences()))
        assert {"loss", "grad_norm"} <= done.walked.averages.keys()
        assert all(math.isfinite(one.loss) for one in done.walked.inside.images)
    assert contents(run) == before


@pytest.mark.parametrize(("workers", "log_every"), [(0, 1), (2, 1), (0, 2)])
def test_a_pretraining_step_is_the_same_to_the_last_bit(tiny, look, workers, log_every):
    run = unmask.pretrain(with_workers(tiny, workers, log_every=log_every))
    assert_same(run, look, (1, 4, 7))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_classifiers_step_is_the_same_to_the_last_bit(scratch, look, workers):
    mixed = replace(scratch, augment=replace(scratch.augment, mixup=0.8, cutmix=1.0))
    assert_same(unmask.scratch(with_workers(mixed, workers)), look, (1, 6))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["probe", "detect", "segment", "tokenizer"])
def test_steps_of_other_tasks_are_the_same_to_the_last_bit(name, tiny, scratch, look, tmp_path):
    if name == "probe":
        init = str(unmask.pretrain(replace(tiny, out=str(tmp_path / "init"))))
        config = ProbeConfig(init=init, data=scratch.data, augment=scratch.augment, run=scratch.run)
        config = replace(config, head=replace(config.head, batch_norm=True))
        optim = replace(config.optim, steps=6, warmup_steps=1, batch=8)
        config = replace(config, out=str(tmp_path / "run"), optim=optim)
    elif name == "detect":
        objects = write_objects(tmp_path / "objects", {"train": 14, "val": 4})
        config = tiny_detector(objects, tmp_path / "run")
    elif name == "segment":
        config = tiny_segmenter(write_maps(tmp_path / "maps"), tmp_path / "run")
    else:
        config = TokenizerConfig(
            out=str(tmp_path / "run"),
            data=TokenizerData(source=tiny.data.source, size=(16, 24), held_out=4),
            model=TokenizerModel(vocabulary=16, downsampling=4, width=8, blocks=1),
            optim=Optim(steps=6, warmup_steps=1, batch=6, micro_batch=4),
            run=PlainRun(precision="fp32"),
        )
    run = getattr(unmask, name)(with_workers(config, 0, log_every=1))
    assert_same(run, look, (3, 5))


def poisoned(config, name: str, value: float, step: int, monkeypatch) -> Path:
    """A run whose checkpoint of that step has a weight of that value, and that then goes on."""
    stopped_after(monkeypatch, step, lambda: unmask.pretrain(config))
    run = Path(config.out)
    ((_, path),) = [one for one in checkpoint.steps_in(run / "checkpoints") if one[0] == step]
    found = checkpoint.read(path)
    found.tensors["model"][name].view(-1)[0] = value
    checkpoint.remove(path)
    checkpoint.save(run / "checkpoints", found, keep=5)
    return unmask.pretrain(config)


def report(look: str) -> dict:
    return json.loads((Path(look) / "replay.json").read_text())


def test_25_a_poisoned_weight_is_named(tiny, look, monkeypatch, capsys):
    """So large that a sum overflows; the warning says what to type, and that says where."""
    run = poisoned(tiny, "encoder.blocks.1.mlp.fc2.weight", 3.4e38, 4, monkeypatch)
    warning = next(x for x in (run / "train.log").read_text().splitlines() if "--step 5" in x)
    capsys.readouterr()
    assert command([*warning.split("again with unmask ")[1].split(), "--out", look]) == 0
    said, found = capsys.readouterr().out, report(look)
    assert "step 5, captured as skipped step" in said
    assert "replayed from the checkpoint of step 4" in said
    assert "the first output that is not finite is that of encoder.blocks.1" in said
    assert found["skipped"]
    assert found["loss"] is None
    assert found["first_not_finite"]["weight"] is None
    assert found["first_not_finite"]["module"].startswith("encoder.blocks.1")
    assert unmask.replay(run, out=look).step == 5, "the first of the series 5, 6, 7"


def test_25_the_checkpoint_before_a_captured_step_stays(tiny, monkeypatch):
    """Of 2, 4, 6 and 7 the newest is kept, and the one before step 4, which is skipped."""
    original = Pretrain.step

    def step(self, model, batch, draw):
        output = original(self, model, batch, draw)
        return output._replace(loss=output.loss * math.nan) if draw.step == 3 else output

    monkeypatch.setattr(Pretrain, "step", step)
    run = unmask.pretrain(replace(tiny, run=replace(tiny.run, keep_checkpoints=1)))
    assert [at for at, _ in checkpoint.steps_in(run / "checkpoints")] == [2, 7]


def test_25_it_goes_for_the_next_checkpoint_if_the_disk_is_full(tiny, monkeypatch, tmp_path):
    found = checkpoint.Checkpoint(1, {"model": {}}, {})
    for number in (1, 2, 3):
        one = replace(found, step=number, tensors={"model": {"weight": torch.ones(2)}})
        if number == 3:
            monkeypatch.setattr(checkpoint, "need_space", lambda *_: None)
            monkeypatch.setattr(checkpoint, "free_space", lambda _: 1000)
        checkpoint.save(tmp_path, one, 1, stay=1)
        expected = [1, 2] if number == 2 else [number]
        assert [at for at, _ in checkpoint.steps_in(tmp_path)] == expected


@pytest.mark.parametrize(
    ("value", "says"), [(3e38, "not finite"), (np.nan, "no pixel"), (np.inf, "cannot be read")]
)
def test_25_an_image_of_bad_pixels_is_named(tiny, look, tmp_path, value, says):
    """Of twelve float images one is not finite; its step is found by the images of each."""
    folder = tmp_path / "float"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.normal(size=(20, 30)).astype(np.float32)
        tifffile.imwrite(folder / f"{i}.tif", pixels, photometric="minisblack")
    run = unmask.pretrain(
        replace(
            tiny,
            data=replace(tiny.data, source=(str(folder),), held_out=0),
            optim=replace(tiny.optim, steps=4, batch=12),
            run=replace(tiny.run, log_every=1),
        )
    )
    bad = np.full((20, 30), value, np.float32)
    tifffile.imwrite(folder / "7.tif", bad, photometric="minisblack")
    done = unmask.replay(run, step=3, out=look)
    said = list(done.sentences())
    assert any(says in one and "7.tif" in one for one in said)
    assert any("written again" in one for one in said)
    assert done.taken.is_skipped == (value == 3e38)
    entries = {Path(one["name"]).name: one for one in report(look)["images"]}
    if value == 3e38:
        worst = done.walked.inside.images.index(done.walked.inside.worst()[0])
        assert done.names[worst].endswith("7.tif")
        assert [name for name, one in entries.items() if not one["is_finite"]] == ["7.tif"]
    else:
        assert ("7.tif" in entries) == bool(np.isnan(value))
        assert value == np.inf or entries["7.tif"]["nan"] == 1


def test_25_infinite_pixels_are_named_without_a_loss():
    """Of a task that takes no single images."""
    known = {"key": SampleKey(0, 0), "image": 0, "bad": (), "crop": None, "nan": 0.0}
    one = OneImage(**known, loss=None, gradient_norm=None, infinite=0.5)
    assert not one.is_finite
    assert replace(one, infinite=0.0).is_finite


def test_25_a_spike_within_a_record_is_found(tiny, look, monkeypatch):
    """Records average two steps; the first of those of the spike is the high one."""
    original = Pretrain.step

    def step(self, model, batch, draw):
        output = original(self, model, batch, draw)
        return output._replace(loss=output.loss * (50 if draw.step == 20 else 1))

    monkeypatch.setattr(Pretrain, "step", step)
    run = unmask.pretrain(replace(tiny, optim=replace(tiny.optim, steps=24)))
    assert f"unmask replay {run} --step 22" in (run / "train.log").read_text()
    done = unmask.replay(run, out=look)
    assert (done.step, done.reason) == (22, "loss spike")
    assert done.walked.equal is True
    assert any(one.endswith(f"unmask replay {run} --step 21") for one in done.sentences())


@pytest.mark.parametrize("what", ["weights", "sums of the log"])
def test_a_broken_checkpoint_is_skipped_and_left(tiny, look, what):
    run = unmask.pretrain(replace(tiny, run=replace(tiny.run, keep_checkpoints=9)))
    broken = run / "checkpoints" / "step-00000004"
    if what == "weights":
        (broken / "model.safetensors").write_bytes(b"short")
    else:
        as_format_1(broken, loop={})
    before = contents(run)
    done = unmask.replay(run, step=6, out=look)
    assert (done.start, done.walked.equal) == (2, True)
    assert any("step 4 is skipped" in one for one in done.sentences())
    assert contents(run) == before


def test_a_run_without_checkpoints_is_replayed_from_its_start(tiny, look):
    run = unmask.pretrain(tiny)
    checkpoint.remove(run / "checkpoints")
    done = unmask.replay(run, step=4, out=look)
    assert (done.start, done.walked.equal) == (0, True)


def config(text: str):
    """Writes another config.json."""
    return lambda run: (run / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("change", "step", "says"),
    [
        (lambda run: None, 8, r"--step 8 is beyond the run .*, which has 7 steps: write --step N"),
        (lambda run: None, None, "skipped no step and had no loss spike: write --step N"),
        (lambda run: (run / "config.json").unlink(), 2, "there is no config.json"),
        (config("{}"), 2, "names no command"),
        (config('{"command": "pretrain"'), 2, "not valid"),
        (config('{"command": "pretrain"}'), 2, "names no images"),
        (config('{"command": "pretrain", "data": 1}'), 2, "restore"),
        (lambda run: (run / "plan.json").unlink(), 2, "has no plan.json"),
        (lambda run: (run / "plan.json").write_text('{"training": {}}'), 2, "plan.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_gets_a_sentence(finished, tmp_path, look, change, step, says):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    change(run)
    with pytest.raises((CheckpointError, ValueError), match=says) as caught:
        unmask.replay(run, step=step, out=look)
    assert str(caught.value).count("\n") == 0
    assert not Path(look).exists()


def test_the_command_wants_one_run(capsys):
    assert command(["replay"]) == 2
    assert "replay takes one run" in capsys.readouterr().err
