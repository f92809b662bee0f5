"""Classification runs: what is trained, what is frozen, exact resume, and what their evaluation says."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import unmask
from conftest import ENCODER
from tests_support import assert_same_state, stopped_after
from unmask.config.classify import Augment, Head, LabelledRun, ProbeHead, TuneOptim
from unmask.config.commands import (
    FinetuneConfig,
    PretrainConfig,
    PretrainData,
    ProbeConfig,
    ScratchConfig,
)
from unmask.config.keywords import with_sections
from unmask.config.settings import Autoencoder, Optim, Run
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError, DataError
from unmask.interop.weights import read_weights

pytestmark = pytest.mark.usefixtures("blank_charts")


def tuning(scratch: ScratchConfig, encoder: Path, **sections: Any) -> FinetuneConfig:
    """The same settings for the encoder of a run."""
    return replace(with_sections(FinetuneConfig(init=str(encoder)), scratch), **sections)


@pytest.fixture(scope="module")
def pretrained(stripes, tmp_path_factory) -> Path:
    """A run of pre-training."""
    small = Autoencoder(**vars(ENCODER), decoder_width=8, decoder_depth=1, decoder_heads=2)
    return unmask.pretrain(
        PretrainConfig(
            out=str(tmp_path_factory.mktemp("pretrained") / "encoder"),
            data=PretrainData(source=(str(stripes),), size=(16, 24), workers=0),
            model=small,
            optim=Optim(steps=2, warmup_steps=0, batch=8),
            run=Run(precision="fp32"),
        )
    )


@pytest.fixture
def encoder(pretrained, tmp_path) -> Path:
    """That run, to do with as a test likes."""
    return Path(shutil.copytree(pretrained, tmp_path / "encoder"))


def losses(path: Path) -> list:
    return [(r["step"], r["loss"]) for r in read_metrics(RunDirectory(path)) if r.get("loss")]


@pytest.mark.parametrize(("step", "precision"), [(1, "fp32"), (4, "fp32"), (4, "bf16")])
def test_01_resume_is_exact_with_everything_random(scratch, tmp_path, monkeypatch, step, precision):
    scratch = replace(scratch, run=replace(scratch.run, precision=precision))
    whole = unmask.scratch(replace(scratch, out=str(tmp_path / "whole")))
    stopped_after(monkeypatch, step, lambda: unmask.scratch(scratch))
    resumed = unmask.scratch(scratch)
    assert losses(resumed) == losses(whole)
    for name, value in load_file(whole / "model.safetensors").items():
        assert value.equal(load_file(resumed / "model.safetensors")[name]), name


def test_micro_batches_and_workers_change_nothing(scratch, tmp_path):
    """Mixing and drop path are drawn for the whole step."""
    a = unmask.scratch(replace(scratch, out=str(tmp_path / "a")))
    other = replace(scratch.optim, micro_batch=None)
    b = unmask.scratch(
        replace(scratch, out=str(tmp_path / "b"), optim=other, data=replace(scratch.data, workers=1))
    )
    assert np.allclose([x for _, x in losses(a)], [x for _, x in losses(b)], rtol=1e-5)


@pytest.mark.parametrize(("blocks", "trained"), [(0, 0), (0.5, 6), (1, 12), (None, None)])
def test_frozen_means_frozen(scratch, encoder, tmp_path, blocks, trained):
    head = replace(scratch.head, tune_blocks=blocks, drop_path=0.0)
    before = load_file(encoder / "model.safetensors")
    run = unmask.finetune(tuning(scratch, encoder, head=head))
    after = load_file(run / "model.safetensors")
    shared = [name for name in after if name.startswith("encoder.")]
    changed = [name for name in shared if not after[name].equal(before[name])]
    if trained is None:
        assert set(changed) == set(shared)
    else:
        assert len(changed) == trained
        assert all("blocks.1" in name for name in changed)


def test_images_of_other_channels_than_the_encoders(scratch, encoder):
    """Grey weights go on with colours: mean and deviation are those of the images."""
    colours = tuning(scratch, encoder, data=replace(scratch.data, channels=3))
    with pytest.raises(ValueError, match=r"--data\.mean has 2 values for 3 channels"):
        unmask.finetune(replace(colours, data=replace(colours.data, mean=(0.5, 0.5))))
    run = unmask.finetune(colours)
    description = json.loads((run / "model.json").read_text())
    assert description["model"]["encoder"]["channels"] == 3
    assert (description["image"]["channels"], len(description["image"]["mean"])) == (3, 3)
    log = (run / "train.log").read_text()
    assert "each of 3 channels starts from the mean of the input weights of 1" in log


def test_probe(scratch, encoder):
    probe = with_sections(ProbeConfig(init=str(encoder)), scratch)
    probe = replace(
        probe,
        head=ProbeHead(pool="class", batch_norm=True),
        augment=Augment(rand_augment=False, mixup=0, cutmix=0, smoothing=0),
        optim=replace(probe.optim, optimizer="lars", base_lr=3.0, ema=None),
        run=replace(probe.run, device="cpu"),  # the few steps end elsewhere with another rounding
    )
    run = unmask.probe(probe)
    state = load_file(run / "model.safetensors")
    assert state["feature_norm.num_batches_tracked"] == 14, "seven steps of two micro-batches"
    assert state["head.weight"].abs().max() > 0.03, "it has learned"


@pytest.mark.drawn
def test_what_a_run_leaves(scratch):
    run = unmask.scratch(scratch)
    description = json.loads((run / "model.json").read_text())
    assert description["model"]["type"] == "classifier"
    assert description["model"]["classes"] == ["=far", "dog & <b>", "near"]
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
    assert unmask.scratch(scratch) == run, "nothing to do"
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == untouched


def test_it_learns(scratch, tmp_path):
    """Stripes of three widths are easy."""
    easy = replace(
        scratch,
        augment=Augment(rand_augment=False, mixup=0, cutmix=0),
        head=Head(drop_path=0.0),
        optim=TuneOptim(steps=60, warmup_steps=5, batch=16, base_lr=0.05),
        run=LabelledRun(precision="fp32", evaluate_every=60),
    )
    run = unmask.scratch(easy)
    assert read_metrics(RunDirectory(run))[-1]["val/top1"] > 0.8


@pytest.mark.parametrize("command", ["finetune", "probe"])
def test_an_encoder_is_needed(stripes, tmp_path, command):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="needs an encoder"):
        getattr(unmask, command)(stripes, out=out)
    with pytest.raises(ValueError, match="no file or run directory nowhere"):
        getattr(unmask, command)(stripes, out=out, init="nowhere")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"optim": TuneOptim(steps=2, warmup_steps=0, batch=9)}, "pair images"),
        (
            {
                "head": Head(batch_norm=True),
                "optim": TuneOptim(steps=2, warmup_steps=0, batch=8, micro_batch=1),
                "augment": Augment(mixup=0, cutmix=0),
            },
            "leaves one alone",
        ),
        ({"head": Head(tune_blocks=3)}, "cannot be tuned"),
        ({"augment": Augment(erasing=2)}, "--augment.erasing is 2"),
        ({"optim": TuneOptim(batch=0)}, "--optim.batch is 0 and must be 1 or more"),
        ({"optim": TuneOptim(micro_batch=0)}, "--optim.micro-batch is 0"),
        ({"optim": TuneOptim(base_lr=-1)}, "--optim.base-lr is -1"),
        ({"run": LabelledRun(log_every=0)}, "--run.log-every is 0"),
    ],
)
def test_mistakes(scratch, change, says):
    with pytest.raises(ValueError, match=says):
        unmask.scratch(replace(scratch, **change), dry_run=True)


def test_images_that_the_patches_of_init_do_not_fit(scratch, stripes, tmp_path):
    start = replace(scratch, optim=replace(scratch.optim, steps=1, warmup_steps=0))
    run = unmask.scratch(start)
    with pytest.raises(ValueError, match=r"patches of 4 x 4: write --data\.size 20 24"):
        unmask.finetune(stripes, init=run, size=(18, 24), out=tmp_path / "tuned", dry_run=True)


def test_settings_without_effect_are_said(scratch, capsys):
    odd = replace(scratch, optim=replace(scratch.optim, momentum=0.5, steps=1, warmup_steps=0))
    unmask.scratch(odd)
    output = capsys.readouterr().out
    assert "--optim.momentum changes nothing here" in output
    assert "--optim.betas changes" not in output
    assert "a layer decay of 0.75 slows the first blocks of a new encoder down" in output


def test_crops_resized_late_leave_nothing_to_augment(scratch):
    late = replace(scratch, data=replace(scratch.data, resize_on_device=True))
    with pytest.raises(ValueError, match=r"leave out --data\.resize-on-device"):
        unmask.scratch(late)
    plain = Augment(rand_augment=False, erasing=0.0)
    assert (unmask.scratch(replace(late, augment=plain)) / "model.safetensors").exists()


def test_changed_labels_stop_a_resume(scratch, stripes, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(stripes, folder)
    scratch = replace(scratch, data=replace(scratch.data, source=(str(folder),)))
    stopped_after(monkeypatch, 2, lambda: unmask.scratch(scratch))
    (folder / "near" / "3.png").rename(folder / "=far" / "33.png")
    with pytest.raises(DataError, match="changed since"):
        unmask.scratch(scratch)


@pytest.mark.parametrize("command", ["scratch", "finetune"])
def test_a_class_whose_name_is_not_utf_8(scratch, encoder, stripes, tmp_path, command):
    folder = tmp_path / os.fsdecode(b"gr\xfcn")
    shutil.copytree(stripes, folder)
    (folder / "near").rename(folder / os.fsdecode(b"n\xe4he"))
    config = scratch if command == "scratch" else tuning(scratch, encoder)
    run = getattr(unmask, command)(config, source=folder, steps=2)
    description = read_weights(run).description
    assert description.model.classes == ("=far", "dog & <b>", "n\udce4he")
    assert description.data == "gr\udcfcn"
    asked = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert asked["data"]["source"] == [str(folder)]
    assert "n?he" in (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def partly_broken(stripes, tmp_path) -> tuple[Path, Path]:
    """Folders for training and for validation; of the latter 2 of 48 images cannot be read."""
    folders = tmp_path / "train", tmp_path / "val"
    for folder in folders:
        shutil.copytree(stripes, folder)
    for name in ("near/1.png", "=far/2.png"):
        (folders[1] / name).write_bytes(b"no image")
    return folders


def with_data(scratch: ScratchConfig, folders: tuple[Path, Path], **data) -> ScratchConfig:
    training, validation = map(str, folders)
    changed = replace(scratch.data, source=(training,), val=(validation,), **data)
    return replace(scratch, data=changed, optim=replace(scratch.optim, steps=2))


def test_broken_validation_images_are_listed_and_counted(scratch, partly_broken, monkeypatch, capsys):
    scratch = with_data(scratch, partly_broken)
    broken = partly_broken[0] / "near" / "3.png"
    broken.write_bytes(b"no image")
    stopped_after(monkeypatch, 1, lambda: unmask.scratch(scratch))
    run = unmask.scratch(scratch)
    lines = [json.loads(line) for line in (run / "bad_images.jsonl").read_text().splitlines()]
    parts = {Path(line["path"]).relative_to(broken.parents[2]): line.get("part") for line in lines}
    validation = {Path("val/near/1.png"): "validation", Path("val/=far/2.png"): "validation"}
    assert {path: part for path, part in parts.items() if part} == validation
    assert len(lines) == len(parts), "each once, though the run was resumed"
    assert {record["val/unreadable"] for record in read_metrics(RunDirectory(run))[-1:]} == {2}
    assert "; 2 validation images cannot be read: see bad_images.jsonl" in capsys.readouterr().out
    assert "48 for training, 46 for validation" in (run / "report.html").read_text()


def test_too_many_broken_validation_images_stop_a_run(scratch, partly_broken):
    allowed = with_data(scratch, partly_broken, max_bad_share=2 / 48)
    too_many = with_data(scratch, partly_broken, max_bad_share=1 / 48)
    with pytest.raises(DataError, match="2 of 48 validation images cannot be read, more than"):
        unmask.scratch(too_many)
    assert (unmask.scratch(allowed) / "model.safetensors").exists()


def test_no_readable_validation_image(scratch, partly_broken):
    for file in partly_broken[1].rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 48 images that were tried can be read"):
        unmask.scratch(with_data(scratch, partly_broken))


def test_a_resumed_run_does_not_need_its_init(scratch, encoder, tmp_path, monkeypatch):
    """Its checkpoint holds all weights, and its record says where they began."""
    config = tuning(scratch, encoder)
    whole = unmask.finetune(replace(config, out=str(tmp_path / "whole")))
    stopped_after(monkeypatch, 4, lambda: unmask.finetune(config))
    shutil.rmtree(encoder)
    resumed = unmask.finetune(replace(config, init=None))
    assert_same_state(*(load_file(run / "model.safetensors") for run in (whole, resumed)))
    assert losses(resumed) == losses(whole)
    for name in ("config.json", "model.json"):
        assert json.loads((resumed / name).read_text()) == {
            **json.loads((whole / name).read_text()),
            **({"out": config.out} if name == "config.json" else {}),
        }
    assert unmask.finetune(replace(config, init=None)) == resumed, "nothing to do"
    with pytest.raises(CheckpointError, match="--init was"):
        unmask.finetune(replace(config, init="another"))
