"""One of the paper's questions asked of small images: runs, parts, the report, and what is refused."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

import unmask
from conftest import photograph
from tests_support import linked
from unmask.cli.ablate import without_commas
from unmask.cli.main import run
from unmask.config.ablation import BUDGETS, AblateConfig, Budget, Lengths
from unmask.config.keywords import with_settings
from unmask.config.settings import Autoencoder
from unmask.config.tokenizer import TokenizerModel
from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError, DataError
from unmask.evals.significance import Difference
from unmask.recipes import classify, pretrain, tokenizer
from unmask.runs.ablation import find_ablation
from unmask.runs.ablation_findings import QUANTITIES, Row, shown_sentence

pytestmark = pytest.mark.usefixtures("blank_charts")

MODEL = Autoencoder(
    size="tiny",
    patch=(4,),
    width=16,
    depth=1,
    heads=2,
    decoder_width=8,
    decoder_depth=1,
    decoder_heads=1,
)


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch):
    """Runs of two steps, of images of 16 pixels."""
    usual, names = pretrain.laptop(), {}
    recipes = {
        "pretrain": replace(usual, data=replace(usual.data, size=(16,)), model=MODEL),
        "finetune": classify.quickstart_finetune(),
        "probe": classify.short_probe(),
        "tokenizer": replace(
            tokenizer.laptop_tokenizer(), model=TokenizerModel(vocabulary=8, width=8, blocks=1)
        ),
    }
    known = (pretrain.PRETRAIN, classify.FINETUNE, classify.PROBE, tokenizer.TOKENIZER)
    for (command, one), mapping in zip(recipes.items(), known, strict=True):
        names[command] = f"tiny-{command}"
        small = with_settings(one, {"optim_batch": 8, "workers": 0, "precision": "fp32"})
        monkeypatch.setitem(mapping, names[command], lambda small=small: small)
    lengths = Lengths(pretrain=2, finetune=2, probe=2, tokenizer=2)
    monkeypatch.setitem(BUDGETS, "smoke", Budget(**names, lengths=lengths))


@pytest.fixture
def flat(tmp_path) -> Path:
    """A flat folder without labels."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for i in range(12):
        photograph(i).save(folder / f"{i}.png")
    return folder


def ablate(data, out, **settings):
    return unmask.ablate(data, out=out, **{"budget": "smoke", **settings})


def test_parts_of_an_ablation_come_together(stripes, tmp_path, capsys):
    """Each does its share; the report holds what is finished, and the second call resumes."""
    out, asked = tmp_path / "out", {"axis": "mask_sampling", "values": ["random", "block:0.5"]}
    first = ablate(stripes, out, part="1/2", **asked)
    assert first.findings.missing == ["mask_sampling=block-0.5_seed=0"]
    assert "not finished yet: mask_sampling=block-0.5_seed=0" in capsys.readouterr().out
    assert "not finished" in (out / "report.html").read_text()

    ablate(stripes, out, part="2/2", **asked)
    printed, page = capsys.readouterr().out, (out / "report.html").read_text()
    assert "1 of 1: mask_sampling block:0.5, seed 0" in printed
    assert "not finished" not in page
    record = json.loads((out / "ablation.json").read_text(), parse_constant=pytest.fail)
    assert [row["value"] for row in record["rows"]] == ["random", "block:0.5"]
    for row in record["rows"]:
        assert 0 <= row["finetune"]["mean"] <= 1
        assert row["error"]["standard_deviation"] is None
        assert row["seconds"] > 0
    assert (record["baseline"], record["differences"]) == ("random", [])
    assert record["shown"].startswith("No significance test yet: it takes 3 seeds of random")
    assert {p.name for p in out.iterdir()} == {
        ".unmask",
        "ablation.json",
        "report.html",
        "mask_sampling=random_seed=0",
        "mask_sampling=block-0.5_seed=0",
    }
    folders = [f"mask_sampling={value}_seed=0" for value in ("random", "block-0.5")]
    commands = ("pretrain", "finetune", "probe")
    assert linked(out / "report.html") == {
        f"{folder}/{command}" for folder in folders for command in commands
    }
    assert not list(out.rglob("checkpoints"))
    for text in ("Table 1f", "83.9", "72.3", "random (baseline)", "No significance test yet"):
        assert text in page
    assert page.count("data:image/png") == 2

    seconds = [json.loads(path.read_text()) for path in sorted(out.rglob("unit.json"))]
    again = ablate(stripes, out, **asked)
    assert capsys.readouterr().out.count("nothing to do") == 6
    assert [json.loads(path.read_text()) for path in sorted(out.rglob("unit.json"))] == seconds
    assert again.findings.rows[0].measured == first.findings.rows[0].measured
    with pytest.raises(CheckpointError, match="--out"):
        ablate(stripes, out, **{**asked, "recipe": "quickstart"})


def test_a_failed_start_leaves_no_folder(flat, tmp_path, monkeypatch):
    def fails(task):
        raise DataError("the disk with the images is gone")

    monkeypatch.setattr("unmask.runs.study.run", fails)
    with pytest.raises(DataError, match="is gone"):
        ablate(flat, tmp_path / "out/deep", axis="mask_ratio", values=["0.5", "0.75"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_targets_compare_without_labels(flat, tmp_path):
    """All four targets, and three seeds of two of them; every error is in pixels."""
    found = ablate(flat, tmp_path / "out", axis="target", values=["pixels", "pca", "tokens"]).findings
    assert [q.name for q in found.quantities] == ["error", "rank"]
    assert all(math.isfinite(row.mean(q.name)) for row in found.rows for q in found.quantities)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "measured without labels: " in page
    assert "without labels: by the held-out error" in page
    assert (tmp_path / "out" / "target=tokens_seed=0" / "tokenizer" / "model.safetensors").exists()
    again = ablate(
        flat, tmp_path / "two", axis="target", values=["normalized-pixels", "pixels"], seeds=[0, 1, 2]
    )
    assert len(again.findings.differences) == 2
    assert re.match(r"(No significant difference|Significant at the 5 % level)", again.findings.shown)
    assert again.findings.rows[1].spread("error") > 0


@pytest.mark.slow
def test_runs_that_diverge_are_named_and_the_others_go_on(flat, tmp_path, monkeypatch):
    wild = with_settings(pretrain.PRETRAIN["tiny-pretrain"](), {"base_lr": 1e38})
    monkeypatch.setitem(pretrain.PRETRAIN, "wild", lambda: wild)
    monkeypatch.setitem(
        BUDGETS,
        "smoke",
        replace(BUDGETS["smoke"], lengths=Lengths(pretrain=16, finetune=2, probe=2, tokenizer=2)),
    )
    found = ablate(flat, tmp_path / "out", axis="loss_on", recipe="wild").findings
    assert [row.diverged for row in found.rows] == [["loss_on=masked_seed=0"], ["loss_on=all_seed=0"]]
    assert not found.missing
    assert "pretrain diverged" in (tmp_path / "out" / "report.html").read_text()


def test_a_dry_run_for_programs(flat, tmp_path, capsys):
    words = ["ablate", str(flat), "--axis", "mask_ratio", "--values", "0.5,0.75", "--budget", "smoke"]
    assert run([*words, "--out", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert list(record["values"]) == ["0.5", "0.75"]
    assert record["runs"] == ["mask_ratio=0.5_seed=0", "mask_ratio=0.75_seed=0"]
    assert record["seconds"] == sum(value["seconds"] for value in record["values"].values())
    assert not (tmp_path / "out").exists()
    assert run([*words, "--json"]) == 2
    assert "write unmask ablate DATA --dry-run --json" in capsys.readouterr().err


def test_a_dry_run_says_what_it_takes_and_writes_nothing(stripes, tmp_path, capsys):
    estimate = ablate(stripes, tmp_path / "out", axis="mask_token", seeds=[0, 1], dry_run=True)
    assert not (tmp_path / "out").exists()
    assert len(estimate.todo) == 4
    assert 0 < estimate.total_seconds < 600
    flops = {name: planned.training_flops for name, planned in estimate.values.items()}
    assert flops["with"] > 1.5 * flops["without"]
    printed = capsys.readouterr().out
    assert "4 of 4 pairs of value and seed to do, in about" in printed
    assert re.search(r"disk: about [\d.]+ MiB for what is kept and [\d.]+ \w+ more meanwhile", printed)


def test_a_token_target_has_a_tokenizer_of_its_own(stripes, tmp_path):
    config = AblateConfig(axis="target", values=("pixels", "tokens"), budget="smoke", seeds=(0, 1))
    config = with_settings(config, {"data_source": stripes, "out": tmp_path})
    pixels, tokens = find_ablation(config).units[2:]
    assert [step.name for step in pixels.steps] == ["pretrain", "probe", "finetune"]
    assert [step.name for step in tokens.steps] == ["tokenizer", "pretrain", "probe", "finetune"]
    trained = tokens.steps[0].task.config
    assert trained.data.size == (32, 32)
    assert {step.task.config.run.seed for step in tokens.steps} == {1}
    assert tokens.pretraining.target.tokenizer == str(tokens.folder / "tokenizer")
    planned = ablate(stripes, tmp_path / "out", axis="target", values=config.values, dry_run=True)
    assert planned.values["tokens"].training_flops > planned.values["pixels"].training_flops


def test_the_baseline_is_the_recipes_own_value(stripes):
    def baseline(*values):
        config = AblateConfig(axis="mask_ratio", values=values, budget="smoke")
        return find_ablation(with_settings(config, {"data_source": stripes})).baseline

    assert baseline("0.5", "0.75", "0.9") == "0.75"
    assert baseline("0.5", "0.9") == "0.5"


def test_settings_of_the_images_reach_every_run(stripes):
    config = AblateConfig(axis="target", values=("pixels", "tokens"), budget="smoke")
    asked = {"data_source": stripes, "data_channels": 3, "max_megapixels": 7.0, "val_share": 0.5}
    ablation = find_ablation(with_settings(config, {**asked, "device": "cpu"}))
    for step in ablation.units[1].steps:
        config = step.task.config
        assert (config.data.channels, config.data.max_megapixels) == (3, 7.0)
        assert config.run.device == "cpu"
        assert config.data.source == (str(stripes),)
    assert len(ablation.labels.validation) == 24


def test_a_batch_fits_the_images(flat):
    config = AblateConfig(axis="mask_ratio", budget="small")
    ablation = find_ablation(with_settings(config, {"data_source": flat}))
    assert ablation.units[0].pretraining.optim.batch == 8
    assert "takes 8" in " ".join(ablation.notes)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "ablate needs an axis: write --axis with one of mask_ratio, "),
        ("--axis colour", "there is no axis colour: write --axis with one of mask_ratio, "),
        ("--axis mask_ratio --values 0.5,two", "numbers between 0 and 1, and got 'two': write --values"),
        ("--axis decoder_depth --values 1,0", "takes whole numbers from 1, and got '0'"),
        ("--axis mask_sampling --values random,spiral", "takes random, block or grid"),
        ("--axis mask_sampling --values random,grid:0.5", "0.5 is no ratio for it: .*leave this value"),
        ("--axis mask_ratio --values 0.5,0.99", "mask_ratio 0.99: a mask ratio of 0.99 keeps 0 of 16"),
        ("--axis decoder_width --values 8,9", "decoder_width 9: .* must be a multiple of four"),
        ("--axis schedule --values 1,-1", "takes multiples of the recipe's own length"),
        ("--axis target --values pixels", "compares two different values or more"),
        ("--axis mask_sampling --values random,random:0.75", "compares two different values or more"),
        ("--axis loss-on --values masked,masked", "--values names something twice"),
        ("--axis loss_on --seeds 0,0", "--seeds names something twice"),
        ("--axis loss_on --part 3/2", "--part is 3/2 .*: write --part 1/4"),
        ("--axis loss_on --recipe none", "there is no recipe none"),
        ("--axis loss_on --labels.use on", "class"),
        ("--axis target --values pixels,tokens --tokenizer gone", "gone"),
    ],
)
def test_bad_input_gets_one_sentence(flat, tmp_path, capsys, words, says):
    code = run(["ablate", str(flat), "--budget", "smoke", "--out", str(tmp_path / "o"), *words.split()])
    assert code in (2, 3, 4)
    printed = capsys.readouterr().err
    assert re.search(says, printed)
    assert printed.startswith("unmask: ")
    assert printed.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_run_by_itself_is_no_place_for_an_ablation(flat, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="choose another --out"):
        ablate(flat, tmp_path / "out", axis="loss_on")


def test_lists_are_written_with_commas():
    words = ["data", "--values", "a,b", "c", "--part", "1/2", "--seeds=0,1"]
    assert without_commas(words) == [
        "data",
        "--values",
        "a",
        "b",
        "c",
        "--part",
        "1/2",
        "--seeds",
        "0",
        "1",
    ]


def rows(**values):
    return [
        Row(value=name, measured={"finetune": list(found)}, diverged=[], finished=3, seconds=1.0)
        for name, found in values.items()
    ]


def test_the_sentence_names_what_is_shown():
    tested = [q for q in QUANTITIES if q.name == "finetune"]
    found = [
        Difference("fine-tuning accuracy", "grid", 0.5, 0.7, 0.001),
        Difference("fine-tuning accuracy", "block", 0.69, 0.7, 0.4),
    ]
    sentence = shown_sentence("random", tested, found, rows(random=[0.7] * 3))
    assert sentence == (
        "Significant at the 5 % level against random: grid has a lower "
        "fine-tuning accuracy, 50.0% against 70.0% "
        "(Welch's t-test, 2 comparisons corrected by Holm)"
    )
    nothing = shown_sentence("random", tested, found[1:], rows(random=[0.7] * 3))
    assert nothing.startswith(
        "No significant difference from random at the 5 % level in fine-tuning accuracy"
    )
    assert "the most so far is 2" in shown_sentence(
        "random", tested, [], rows(random=[0.7, 0.7, math.nan])
    )


def test_time_of_a_stopped_call_counts(tmp_path):
    from unmask.runs.ablate import _record
    from unmask.runs.ablation import Unit

    unit = Unit(value=None, seed=0, folder=tmp_path, steps=())
    _record(unit, "pretrain", 2.0, diverged=False)
    _record(unit, "pretrain", 1.5, diverged=True)
    assert unit.record() == {"seconds": {"pretrain": 3.5}, "diverged": "pretrain"}
    assert RunDirectory(tmp_path).read("unit.json") == unit.record()
