"""The quickstart: four runs that compare, on a tiny data set of its own."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import photograph
from unmask.cli.main import run
from unmask.config.classify import Augment, LabelledData, LabelledRun, ProbeHead, TuneOptim
from unmask.config.commands import FinetuneConfig, ProbeConfig, QuickstartConfig, ScratchConfig
from unmask.config.keywords import with_sections
from unmask.config.settings import Encoder, FeatureProbe
from unmask.data.labels import find_labelled
from unmask.data.sources.find import find_images
from unmask.errors import CheckpointError
from unmask.runs.quickstart import Stages, quickstart_stages, run_stages
from unmask.tasks import find_recipe


@pytest.fixture
def stages(tiny, tmp_path) -> Stages:
    folder, out = tmp_path / "cells", tmp_path / "out"
    for i in range(24):
        place = folder / ("a" if i % 4 else "b")
        place.mkdir(parents=True, exist_ok=True)
        photograph(i).save(place / f"{i}.png")
    pretraining = replace(
        tiny,
        out=str(out / "pretrain"),
        data=replace(tiny.data, source=(str(folder),)),
        optim=replace(tiny.optim, steps=2, warmup_steps=0),
        probe=FeatureProbe(images=0),
    )
    scratch = ScratchConfig(
        out=str(out / "scratch"),
        data=LabelledData(source=(str(folder),), size=(16, 24), workers=0),
        model=Encoder(patch=(4,), width=16, depth=2, heads=2),
        augment=Augment(rand_augment=False, mixup=0.0, cutmix=0.0),
        optim=TuneOptim(steps=2, warmup_steps=0, batch=6),
        run=LabelledRun(precision="fp32", evaluate_every=2),
    )
    tuned = with_sections(FinetuneConfig(), scratch)
    tuned = replace(tuned, init=pretraining.out, out=str(out / "finetune"))
    probe = replace(with_sections(ProbeConfig(), tuned), out=str(out / "probe"))
    probe = replace(probe, head=ProbeHead(batch_norm=True))
    runs = {"probe": probe, "finetune": tuned, "scratch": scratch}
    return Stages(out=out, pretraining=pretraining, classifications=runs)


@pytest.mark.slow
def test_four_runs_and_a_page(stages):
    said: list[str] = []
    done = run_stages(stages, said.append)
    assert [line.split(":")[0] for line in said[:4]] == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]
    assert said[4:] == done.sentences()
    assert [row.name for row in done.rows] == ["no model", "from scratch", "linear probe", "fine-tuned"]
    assert done.rows[0].top1 == pytest.approx(5 / 7)  # a quarter of 18 'a', rounded up, and of 6 'b'
    assert done.rows[0].balanced == 0.5
    assert all(0 <= row.top1 <= 1 and 0 <= row.balanced <= 1 for row in done.rows)
    page = (stages.out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert page.index("linear probe") < page.index("data:image/png")
    for row in done.rows:
        assert f"<td>{row.name}</td>" in page
        assert f"<td>{row.top1:.1%}</td><td>{row.balanced:.1%}</td>" in page
    *_, where, following, own = done.sentences()
    assert where == f"report: {stages.out / 'report.html'}"
    assert re.fullmatch(r"next: unmask predict IMAGES --init .*out/finetune", following)
    assert "unmask pretrain" in own
    models = {path: path.stat().st_mtime_ns for path in stages.out.glob("*/model.safetensors")}
    assert len(models) == 4
    assert run_stages(stages, said.append) == done, "again there is nothing to do"
    assert models == {path: path.stat().st_mtime_ns for path in models}


def test_a_run_is_not_written_into(stages):
    stages.out.mkdir()
    (stages.out / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is a run by itself: choose another --out"):
        run_stages(stages, print)


def test_what_is_compared_differs_in_nothing_else():
    """Fine-tuning and from scratch: one model, one budget, one augmentation."""
    tuned, scratch = (
        find_recipe("finetune", "quickstart-finetune"),
        find_recipe("scratch", "quickstart-scratch"),
    )
    pretrained = quickstart_stages(QuickstartConfig()).pretraining
    assert replace(scratch.optim, layer_decay=tuned.optim.layer_decay) == tuned.optim
    assert (scratch.augment, scratch.head, scratch.run) == (tuned.augment, tuned.head, tuned.run)
    assert replace(scratch.data, size=None) == tuned.data
    assert scratch.data.size == pretrained.data.size
    for field in ("patch", "width", "depth", "heads", "mlp_ratio", "class_tokens"):
        assert getattr(scratch.model, field) == getattr(pretrained.model, field)


def test_no_run_sees_what_it_is_validated_on():
    pytest.importorskip("elpv_dataset")
    stages = quickstart_stages(QuickstartConfig(out="x", seed=3, device="cpu"))
    seen = {*find_images(stages.pretraining.data.source).paths}
    for name, config in stages.classifications.items():
        split = find_labelled(config.data.source, val_share=config.data.val_share)
        assert seen == {*split.training.images.paths}
        assert not seen & {*split.validation.images.paths}
        assert getattr(config, "init", None) == (None if name == "scratch" else "x/pretrain")
        assert (config.run.seed, config.run.device) == (3, "cpu")
        assert config.out == str(Path("x") / name)
    again = find_labelled(stages.pretraining.data.source)
    assert {*again.training.images.paths} == seen


def test_the_command_hands_over(monkeypatch):
    asked = []
    monkeypatch.setattr("unmask.api.quickstart", asked.append)
    assert run(["quickstart", "--out", "here", "--seed", "2"]) == 0
    assert asked == [QuickstartConfig(out="here", seed=2)]
