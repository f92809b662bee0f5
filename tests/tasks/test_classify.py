"""Classification runs: what is trained, what is frozen, exact resume, and what their evaluation says."""

import itertools
import json
import math
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unmask
from unmask import api
from unmask.config.schema import ModelConfig, RunConfig
from unmask.config.schema_classify import (
    AugmentConfig,
    ClassifyConfig,
    ClassifyOptimConfig,
    HeadConfig,
    LabelledDataConfig,
)
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.errors import DataError, DivergenceError, Interrupted
from unmask.interop.weights import read_weights
from unmask.tasks.sweep import Row

ENCODER = ModelConfig(patch=(4,), width=16, depth=2, heads=2)
CLASSES = {"near": 1.0, "dog & <b>": 3.0, "=far": 6.0}


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> Path:
    """Three classes of stripes, 16 pictures each."""
    folder = tmp_path_factory.mktemp("labelled") / "stripes"
    rng = np.random.default_rng(0)
    x = np.arange(28) / 10
    for name, frequency in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for i in range(16):
            row = 127 + 100 * np.sin(frequency * x + rng.uniform(0, 6))
            noisy = row + rng.normal(0, 15, (20, 28))
            Image.fromarray(np.uint8(noisy.clip(0, 255))).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def config(labelled, tmp_path) -> ClassifyConfig:
    """From scratch, with everything random switched on."""
    return ClassifyConfig(
        out=str(tmp_path / "run"),
        data=LabelledDataConfig(source=(str(labelled),), size=(16, 24), workers=0, crop_scale=(0.5, 1)),
        model=ENCODER,
        head=HeadConfig(drop_path=0.3),
        augment=AugmentConfig(erasing=0.3),
        optim=ClassifyOptimConfig(
            steps=7, warmup_steps=2, batch=8, micro_batch=6, base_lr=0.05, layer_decay=0.75, ema=0.9
        ),
        run=RunConfig(log_every=1, evaluate_every=3, checkpoint_every=2),
    )


@pytest.fixture
def encoder(config, tmp_path) -> Path:
    """A pre-trained encoder's run."""
    from unmask.config.schema import DataConfig, OptimConfig, PretrainConfig

    small = replace(ENCODER, decoder_width=8, decoder_depth=1, decoder_heads=2)
    return unmask.pretrain(
        PretrainConfig(
            out=str(tmp_path / "encoder"),
            data=DataConfig(source=config.data.source, size=(16, 24), workers=0),
            model=small,
            optim=OptimConfig(steps=2, warmup_steps=0, batch=8),
        )
    )


def losses(path: Path) -> list:
    return [(r["step"], r["loss"]) for r in read_metrics(RunDirectory(path)) if r.get("loss")]


def stopped_after(monkeypatch, step: int, act) -> None:
    """Sends SIGTERM to itself while that step is taken."""
    import unmask.engine.loop as loop

    original, count = loop.take_step, itertools.count(1)

    def interrupted(*arguments):
        if next(count) == step:
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(loop, "take_step", interrupted)
    with pytest.raises(Interrupted):
        act()
    monkeypatch.undo()


@pytest.mark.parametrize("step", [1, 4])
def test_01_resume_is_exact_with_everything_random(config, tmp_path, monkeypatch, step):
    whole = api.classify(replace(config, out=str(tmp_path / "whole")), "scratch")
    stopped_after(monkeypatch, step, lambda: api.classify(config, "scratch"))
    resumed = api.classify(config, "scratch")
    assert losses(resumed) == losses(whole)
    for name, value in load_file(whole / "model.safetensors").items():
        assert value.equal(load_file(resumed / "model.safetensors")[name]), name


def test_micro_batches_and_workers_change_nothing(config, tmp_path):
    """Mixing and drop path are drawn for the whole step."""
    a = api.classify(replace(config, out=str(tmp_path / "a")), "scratch")
    other = replace(config.optim, micro_batch=None)
    b = api.classify(
        replace(config, out=str(tmp_path / "b"), optim=other, data=replace(config.data, workers=1)),
        "scratch",
    )
    assert np.allclose([x for _, x in losses(a)], [x for _, x in losses(b)], rtol=1e-5)


@pytest.mark.parametrize(("blocks", "trained"), [(0, 0), (0.5, 6), (1, 12), (None, None)])
def test_frozen_means_frozen(config, encoder, tmp_path, blocks, trained):
    head = replace(config.head, tune_blocks=blocks, drop_path=0.0)
    tuned = replace(config, init=str(encoder), model=ModelConfig(), head=head)
    before = load_file(encoder / "model.safetensors")
    after = load_file(api.classify(tuned, "finetune") / "model.safetensors")
    shared = [name for name in after if name.startswith("encoder.")]
    changed = [name for name in shared if not after[name].equal(before[name])]
    if trained is None:
        assert set(changed) == set(shared)
    else:
        assert len(changed) == trained
        assert all("blocks.1" in name for name in changed)


def test_images_of_other_channels_than_the_encoders(config, encoder):
    """Grey weights go on with colours: mean and deviation are those of the images."""
    colours = replace(config, init=str(encoder), model=ModelConfig())
    colours = replace(colours, data=replace(config.data, channels=3))
    with pytest.raises(ValueError, match=r"--data\.mean has 2 values for 3 channels"):
        api.classify(replace(colours, data=replace(colours.data, mean=(0.5, 0.5))), "finetune")
    run = api.classify(colours, "finetune")
    description = json.loads((run / "model.json").read_text())
    assert (description["architecture"]["channels"], len(description["mean"])) == (3, 3)
    assert "input weights of 1 channel(s) repeated for 3" in (run / "train.log").read_text()


def test_probe(config, encoder):
    probe = replace(
        config,
        init=str(encoder),
        model=ModelConfig(),
        head=HeadConfig(pool="class", batch_norm=True, tune_blocks=0, drop_path=0),
        augment=AugmentConfig(rand_augment=False, mixup=0, cutmix=0, smoothing=0),
        optim=replace(config.optim, optimizer="lars", base_lr=3.0, ema=None, layer_decay=1),
    )
    run = api.classify(probe, "probe")
    state = load_file(run / "model.safetensors")
    assert state["feature_norm.num_batches_tracked"] == 14, "seven steps of two micro-batches"
    assert state["head.weight"].abs().max() > 0.03, "it has learned"


def test_what_a_run_leaves(config):
    run = api.classify(config, "scratch")
    description = json.loads((run / "model.json").read_text())
    assert description["kind"] == "classifier"
    assert description["head"]["classes"] == ["=far", "dog & <b>", "near"]
    assert sorted(p.name.split("-")[0] for p in (run / "samples").glob("*7.png")) == [
        "calibration",
        "confusion",
        "mistakes",
    ]
    page = (run / "report.html").read_text()
    assert page.index("Validation accuracy") < page.index("Classes") < page.index("data:image/png")
    assert "top-5" not in page, "of three classes"
    assert "after 7 steps" in page
    assert "after 0 steps" not in page, "a new head's mistakes tell nothing"
    assert "dog &amp; &lt;b&gt;" in page
    assert "<b>" not in page
    model = unmask.load(run)
    assert model(torch.zeros(1, 1, 16, 24)).shape == (1, 3)
    untouched = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert api.classify(config, "scratch") == run, "nothing to do"
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == untouched


def test_it_learns(config, tmp_path):
    """Stripes of three widths are easy."""
    easy = replace(
        config,
        augment=AugmentConfig(rand_augment=False, mixup=0, cutmix=0),
        head=HeadConfig(drop_path=0.0),
        optim=ClassifyOptimConfig(steps=60, warmup_steps=5, batch=16, base_lr=0.05),
        run=RunConfig(evaluate_every=60),
    )
    run = api.classify(easy, "scratch")
    assert read_metrics(RunDirectory(run))[-1]["val/top1"] > 0.8


def test_sweep_reports_all_and_chooses_the_best(config, tmp_path, capsys):
    base = replace(config, out=str(tmp_path / "sweep"), optim=replace(config.optim, steps=2))
    runs = [
        (
            {"optim.base_lr": rate, "run.seed": seed},
            replace(
                base,
                optim=replace(base.optim, base_lr=float(rate)),
                run=replace(base.run, seed=int(seed)),
            ),
        )
        for rate in ("1e-4", "1e-2")
        for seed in ("0", "1")
    ]
    done = api.sweep_classification(runs, "scratch")
    assert [len(row.values) for row in done.rows] == [2, 2]
    assert done.best.mean >= done.rows[1].mean
    assert {p.name for p in done.path.iterdir()} == {
        *(f"base_lr={rate}_seed={seed}" for rate in ("1e-4", "1e-2") for seed in "01"),
        "sweep.json",
        "report.html",
    }
    assert "over 2 runs" in capsys.readouterr().out
    api.sweep_classification(runs, "scratch")
    assert capsys.readouterr().out.count("nothing to do") == 4


def rates(config: ClassifyConfig, out: Path, *asked: str) -> list[tuple[dict[str, str], ClassifyConfig]]:
    """A sweep of learning rates, over steps enough to diverge."""
    base = replace(config, out=str(out))
    return [
        (
            {"optim.base_lr": rate, "run.seed": seed},
            replace(
                base,
                optim=replace(base.optim, base_lr=float(rate), steps=16),
                run=replace(base.run, seed=int(seed)),
            ),
        )
        for rate in asked
        for seed in "01"
    ]


def test_a_sweep_goes_on_where_a_run_diverges(config, tmp_path, capsys):
    runs = rates(config, tmp_path / "sweep", "1e38", "1e-3")[1:]
    for _ in range(2):
        done = api.sweep_classification(runs, "scratch")
        assert [row.diverged for row in done.rows] == [(), ("base_lr=1e38_seed=1",)]
        assert 0 <= done.best.mean <= 1
        assert math.isnan(done.rows[1].mean)
        said = capsys.readouterr().out
        assert "base_lr=1e38_seed=1 diverged and counts as not measured: the gradient" in said
        assert re.search("base_lr=1e38 .*not measured; diverged: base_lr=1e38_seed=1", said)
    best, last = json.loads((done.path / "sweep.json").read_text(), parse_constant=pytest.fail)
    assert best["diverged"] == []
    assert last["val/top1"] == {"mean": None, "deviation": None, "values": [None]}
    assert "diverged (base_lr=1e38_seed=1)" in (done.path / "report.html").read_text()


def test_a_sweep_of_diverging_runs_alone(config, tmp_path):
    with pytest.raises(DivergenceError, match="every run of the sweep diverged: lower --optim"):
        api.sweep_classification(rates(config, tmp_path / "sweep", "1e38"), "scratch")


def test_spread_of_runs_of_which_one_did_not_measure():
    row = Row(settings={}, values=(0.5, math.nan), runs=("a", "b"))
    assert math.isnan(row.mean)
    assert math.isnan(row.spread)


@pytest.mark.parametrize(
    ("change", "command", "says"),
    [
        ({"init": None}, "finetune", "needs an encoder"),
        ({"init": "somewhere"}, "scratch", "leave --init out"),
        ({"init": "nowhere", "model": ModelConfig()}, "finetune", "no file or run directory nowhere"),
        ({"init": "nowhere", "model": ModelConfig()}, "probe", "probe trains the head alone"),
        ({"init": "nowhere"}, "finetune", "--model.* is of runs from scratch"),
        ({"optim": ClassifyOptimConfig(steps=2, warmup_steps=0, batch=9)}, "scratch", "pair images"),
        (
            {
                "head": HeadConfig(batch_norm=True),
                "optim": ClassifyOptimConfig(steps=2, warmup_steps=0, batch=8, micro_batch=1),
                "augment": AugmentConfig(mixup=0, cutmix=0),
            },
            "scratch",
            "leaves one alone",
        ),
        ({"head": HeadConfig(tune_blocks=3)}, "scratch", "cannot be tuned"),
        ({"augment": AugmentConfig(erasing=2)}, "scratch", "--augment.erasing is 2"),
        ({"optim": ClassifyOptimConfig(batch=0)}, "scratch", "--optim.batch is 0 and must be 1 or more"),
        ({"optim": ClassifyOptimConfig(micro_batch=0)}, "scratch", "--optim.micro-batch is 0"),
        ({"optim": ClassifyOptimConfig(base_lr=-1)}, "scratch", "--optim.base-lr is -1"),
        ({"run": RunConfig(log_every=0)}, "scratch", "--run.log-every is 0"),
    ],
)
def test_mistakes(config, change, command, says):
    with pytest.raises(ValueError, match=says):
        api.classify(replace(config, **change), command)


def test_settings_without_effect_are_said(config, capsys):
    odd = replace(
        config,
        data=replace(config.data, held_out=5),
        model=replace(config.model, decoder_depth=2),
        optim=replace(config.optim, momentum=0.5, steps=1, warmup_steps=0),
    )
    api.classify(odd, "scratch")
    output = capsys.readouterr().out
    for flag in ("data.held-out", "model.decoder-depth", "optim.momentum"):
        assert f"--{flag} changes nothing here" in output
    assert "--optim.betas changes" not in output
    assert "a layer decay of 0.75 slows the first blocks of a new encoder down" in output


def test_crops_resized_late_leave_nothing_to_augment(config):
    late = replace(config, data=replace(config.data, resize_on_device=True))
    with pytest.raises(ValueError, match=r"leave out --data\.resize-on-device"):
        api.classify(late, "scratch")
    plain = AugmentConfig(rand_augment=False, erasing=0.0)
    assert (api.classify(replace(late, augment=plain), "scratch") / "model.safetensors").exists()


def test_changed_labels_stop_a_resume(config, labelled, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(labelled, folder)
    config = replace(config, data=replace(config.data, source=(str(folder),)))
    stopped_after(monkeypatch, 2, lambda: api.classify(config, "scratch"))
    (folder / "near" / "3.png").rename(folder / "=far" / "33.png")
    with pytest.raises(DataError, match="changed since"):
        api.classify(config, "scratch")


@pytest.mark.parametrize("command", ["scratch", "finetune"])
def test_a_class_whose_name_is_not_utf_8(config, encoder, labelled, tmp_path, command):
    folder = tmp_path / os.fsdecode(b"gr\xfcn")
    shutil.copytree(labelled, folder)
    (folder / "near").rename(folder / os.fsdecode(b"n\xe4he"))
    given = {} if command == "scratch" else {"init": str(encoder), "model": ModelConfig()}
    data, optim = replace(config.data, source=(str(folder),)), replace(config.optim, steps=2)
    run = api.classify(replace(config, **given, data=data, optim=optim), command)
    description = read_weights(run).description
    assert description.head.classes == ("=far", "dog & <b>", "n\udce4he")
    assert description.data == "gr\udcfcn"
    asked = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert asked["data"]["source"] == [str(folder)]
    assert "n?he" in (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def partly_broken(labelled, tmp_path) -> tuple[Path, Path]:
    """Folders for training and for validation; of the latter 2 of 48 images cannot be read."""
    folders = tmp_path / "train", tmp_path / "val"
    for folder in folders:
        shutil.copytree(labelled, folder)
    for name in ("near/1.png", "=far/2.png"):
        (folders[1] / name).write_bytes(b"no image")
    return folders


def with_data(config: ClassifyConfig, folders: tuple[Path, Path], **data) -> ClassifyConfig:
    training, validation = map(str, folders)
    changed = replace(config.data, source=(training,), val=(validation,), **data)
    return replace(config, data=changed, optim=replace(config.optim, steps=2))


def test_broken_validation_images_are_listed_and_counted(config, partly_broken, monkeypatch, capsys):
    config = with_data(config, partly_broken)
    broken = partly_broken[0] / "near" / "3.png"
    broken.write_bytes(b"no image")
    stopped_after(monkeypatch, 1, lambda: api.classify(config, "scratch"))
    run = api.classify(config, "scratch")
    lines = [json.loads(line) for line in (run / "bad_images.jsonl").read_text().splitlines()]
    parts = {Path(line["path"]).relative_to(broken.parents[2]): line.get("part") for line in lines}
    validation = {Path("val/near/1.png"): "validation", Path("val/=far/2.png"): "validation"}
    assert {path: part for path, part in parts.items() if part} == validation
    assert len(lines) == len(parts), "each once, though the run was resumed"
    assert {record["val/unreadable"] for record in read_metrics(RunDirectory(run))[-1:]} == {2}
    assert "; 2 validation images cannot be read: see bad_images.jsonl" in capsys.readouterr().out
    assert "48 for training, 46 for validation" in (run / "report.html").read_text()


def test_too_many_broken_validation_images_stop_a_run(config, partly_broken):
    allowed = with_data(config, partly_broken, max_bad_share=2 / 48)
    too_many = with_data(config, partly_broken, max_bad_share=1 / 48)
    with pytest.raises(DataError, match="2 of 48 validation images cannot be read, more than"):
        api.classify(too_many, "scratch")
    assert (api.classify(allowed, "scratch") / "model.safetensors").exists()


def test_no_readable_validation_image(config, partly_broken):
    for file in partly_broken[1].rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 48 images that were tried can be read"):
        api.classify(with_data(config, partly_broken), "scratch")
