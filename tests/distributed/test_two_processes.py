"""The same command under torchrun equals one process (faults 3, 4 and 27)."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import photograph
from tests_support import mae_spec, random_classifier, random_weights, resolved
from unmask.config.classify import LabelledData, LabelledRun, TuneOptim
from unmask.config.commands import FinetuneConfig, KnnConfig, KnnData, ScratchConfig
from unmask.config.keywords import with_sections
from unmask.config.settings import Encoder, FeatureProbe
from unmask.interop.weights import write_model
from unmask.runs.examples import EXAMPLES, Quickstart

FLAGS = (
    "--data.size 16 24 --data.held-out 4 --data.workers 1 --model.patch 4 --model.width 16 "
    "--model.depth 2 --model.heads 2 --model.decoder-width 8 --model.decoder-depth 2 "
    "--model.decoder-heads 2 --optim.steps 6 --optim.batch 8 --optim.micro-batch 3 "
    "--optim.base-lr 0.05 --optim.warmup-steps 1 --run.log-every 1 --run.checkpoint-every 2 "
    "--run.precision fp32"
).split()
FINETUNE = (
    "--data.workers 1 --head.drop-path 0.3 --augment.erasing 0.3 --optim.steps 6 --optim.batch 8 "
    "--optim.base-lr 0.05 --optim.layer-decay 0.75 --optim.warmup-steps 1 --optim.ema 0.7 "
    "--augment.mixup 0.8 --augment.cutmix 1 --run.log-every 1 --run.evaluate-every 2 "
    "--run.precision fp32"
).split()
PROBE = (
    "--data.workers 1 --tune-blocks 0.5 --head.batch-norm --head.drop-path 0 --augment.mixup 0 "
    "--augment.cutmix 0 --augment.smoothing 0 --augment.no-rand-augment --optim.steps 6 "
    "--optim.batch 8 --optim.base-lr 0.05 --optim.weight-decay 0 --optim.warmup-steps 1 "
    "--run.log-every 1 --run.evaluate-every 2 --run.precision fp32"
).split()
"""As a probe, and a part of the encoder too, so that gradients pass the BatchNorm."""
BF16 = ["--run.precision", "bf16"]
LOSS_TOLERANCE = 1e-5
"""Relative, in fp32. Gradients are added up in another order; everything else is the same."""
BF16_TOLERANCE = 2e-3
"""Relative, of losses; of a gradient's norm five times that. Weights that differ in their last bits may
round to another bf16, 1/256 away."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def torchrun(processes: int, *words: str) -> subprocess.CompletedProcess:
    return torchrun_python(processes, "-m", "unmask", *words)


def torchrun_python(processes: int, *words: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        *words,
    ]  # fmt: skip
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)


def records(processes: int, command: str, data: Path, out: Path, *flags: str) -> list[dict]:
    result = torchrun(processes, command, str(data), "--out", str(out), *flags)
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_evaluated_alike(init: Path, data: Path, *flags: str) -> None:
    """The scores of a run on all images, in one process and in two; only the main one prints."""
    scores = []
    for processes in (1, 2):
        out = init.with_name(f"{init.name}-evaluated-{processes}")
        words = ["--init", str(init), "--split", "all", "--out", str(out), *flags]
        result = torchrun(processes, "evaluate", str(data), *words)
        assert result.returncode == 0, result.stderr[-3000:]
        assert result.stdout.count("report: ") == 1
        scores.append(json.loads((out / "scores.json").read_text()))
    one, two = scores
    assert two == {
        name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        for name, value in one.items()
    }


def pretrain(processes: int, photos: Path, out: Path, *more: str) -> list[float]:
    found = records(processes, "pretrain", photos, out, *FLAGS, *more)
    return [record["loss"] for record in found if record["step"]]


@pytest.fixture
def labelled(tmp_path) -> Path:
    """48 photographs in three classes; a quarter is for validation."""
    for i in range(48):
        folder = tmp_path / "labelled" / "abc"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        photograph(i, 16, 24).save(folder / f"{i}.png")
    return tmp_path / "labelled"


@pytest.fixture
def encoder(tiny, tmp_path) -> Path:
    """A run directory with random weights."""
    weights = random_weights(resolved(tiny, images=1000).model)
    folder = tmp_path / "encoder"
    folder.mkdir()
    write_model(folder, weights.state, weights.description)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "tolerance"), [([], LOSS_TOLERANCE), (BF16, BF16_TOLERANCE)], ids=["fp32", "bf16"]
)
def test_two_processes_equal_one(photos, tmp_path, more, tolerance):
    one = pretrain(1, photos, tmp_path / "one", *more)
    two = pretrain(2, photos, tmp_path / "two", *more)
    assert len(one) == 6
    assert two == pytest.approx(one, rel=tolerance)
    assert two[0] != two[-1]


@pytest.mark.slow
def test_03_one_two_one(photos, tmp_path):
    """A run that goes on with another number of processes keeps its batches and masks."""
    import shutil

    whole = pretrain(1, photos, tmp_path / "whole")
    mixed = tmp_path / "mixed"
    for processes, keep in [(1, 2), (2, 4), (1, 6)]:
        losses = pretrain(processes, photos, mixed)
        assert losses == pytest.approx(whole, rel=LOSS_TOLERANCE)
        if keep < 6:
            (mixed / "model.safetensors").unlink()
            for path in (mixed / "checkpoints").iterdir():
                if int(path.name[5:]) > keep:
                    shutil.rmtree(path)


@pytest.mark.slow
def test_04_batch_that_processes_do_not_divide(photos, tmp_path):
    flags = [*FLAGS, "--optim.batch", "9"]
    result = torchrun(2, "pretrain", str(photos), "--out", str(tmp_path / "run"), *flags)
    assert result.returncode != 0
    assert "2 processes do not divide a batch of 9: choose --optim.batch 8 or 10" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "micro_batches", "tolerance"),
    [
        (FINETUNE, (6, 2), LOSS_TOLERANCE),
        (PROBE, (8, 4), LOSS_TOLERANCE),
        ([*FINETUNE, *BF16], (6, 2), BF16_TOLERANCE),
    ],
    ids=["finetune", "probe", "finetune-bf16"],
)
def test_two_processes_equal_one_with_labels(
    labelled, encoder, tmp_path, flags, micro_batches, tolerance
):
    """Mixing, drop path, running average, however a batch is divided; BatchNorm over the whole of it."""
    one, two = (
        records(
            processes, "finetune", labelled, tmp_path / str(processes), "--init", str(encoder), *flags,
            "--optim.micro-batch", str(micro_batch),
        )
        for processes, micro_batch in zip((1, 2), micro_batches, strict=True)
    )  # fmt: skip
    assert [record["step"] for record in one] == [*range(7)]
    exact = tolerance == LOSS_TOLERANCE  # in bf16, a close call may go to another class
    for name in ("loss", "grad_norm", *(["accuracy"] if exact else [])):
        values = [[record[name] for record in run if record["step"]] for run in (one, two)]
        more = 5 if name == "grad_norm" and not exact else 1
        assert values[1] == pytest.approx(values[0], rel=more * tolerance), name
    for name in ("val/nll", *(["val/top1", "val/calibration_error"] if exact else [])):
        values = [[record[name] for record in run if name in record] for run in (one, two)]
        assert values[1] == pytest.approx(values[0], rel=tolerance, abs=1e-6), name
        assert len(values[0]) == 4
    assert one[0]["val/nll"] != one[-1]["val/nll"]


@pytest.mark.slow
def test_several_runs_of_one_command(labelled, encoder, tmp_path):
    """The processes stay connected from run to run; the main one alone says what came of them."""
    out = tmp_path / "sweep"
    words = ["finetune", str(labelled), "--init", str(encoder), "--out", str(out), "--seeds", "0,1"]
    result = torchrun(2, *words, *PROBE, "--optim.steps", "2")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count(f"report: {out / 'report.html'}") == 1
    (row,) = json.loads((out / "sweep.json").read_text())
    assert row["runs"] == ["seed=0", "seed=1"]
    assert all((out / name / "model.safetensors").exists() for name in row["runs"])


QUICKSTART = """
import pickle, sys
from pathlib import Path
from unmask.runs.quickstart import run_quickstart

run_quickstart(pickle.loads(Path(sys.argv[1]).read_bytes()), print)
"""


@pytest.mark.slow
def test_quickstart(labelled, tiny, tmp_path):
    """Its runs, as several processes, of a small data set."""
    out = tmp_path / "quickstart"
    pretraining = replace(
        tiny, out=str(out / "pretrain"), optim=replace(tiny.optim, steps=2), probe=FeatureProbe(images=0)
    )
    data = LabelledData(source=(str(labelled),), size=(16, 24), workers=0)
    optim, run = TuneOptim(steps=2, warmup_steps=0, batch=8), LabelledRun(precision="fp32")
    scratch = ScratchConfig(data=data, model=with_sections(Encoder(), tiny.model), optim=optim, run=run)
    asked = Quickstart(
        out=out,
        example=replace(EXAMPLES["digits"], per_class=None, steps=None),
        pretraining=pretraining,
        knn=KnnConfig(
            init=pretraining.out,
            out=str(out / "probe"),
            baselines=True,
            data=KnnData(source=(str(labelled),), workers=0),
        ),
        scratch=scratch,
        finetune=replace(with_sections(FinetuneConfig(), scratch), init=pretraining.out),
        seeds=(0,),
    )
    (tmp_path / "asked").write_bytes(pickle.dumps(asked))
    (tmp_path / "script.py").write_text(QUICKSTART)
    result = torchrun_python(2, str(tmp_path / "script.py"), str(tmp_path / "asked"))
    assert result.returncode == 0, result.stderr[-3000:]
    for sentence in ("1 of 4: ", "4 of 4: ", f"report: {out / 'report.html'}"):
        assert result.stdout.count(sentence) == 1, sentence
    assert (out / "report.html").exists()


TIMED = """
import sys

from unmask.cli.main import run
from unmask.config.budget import Costs
from unmask.runs import timed

really = timed.time_parts

def each_its_own(session, left):
    found = really(session, 1e4)
    assert session.processes.gather(found) == [found, found], "the main process's clock counts for all"
    step = 600.0 + 300 * session.processes.rank
    zeros = (0.0,) * len(found.evaluations)
    return Costs(step=step, later_step=step, once=0.0, evaluations=zeros, save=0.0)

timed.time_parts = each_its_own
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_main_process_decides_what_fits_into_a_time(photos, tmp_path):
    (tmp_path / "script.py").write_text(TIMED)
    script, out = str(tmp_path / "script.py"), tmp_path / "run"
    flags = list(FLAGS)
    del flags[flags.index("--optim.steps") : flags.index("--optim.steps") + 2]
    words = ["pretrain", str(photos), *flags, "--time", "1h", "--out", str(out)]
    result = torchrun_python(2, script, *words)
    assert result.returncode == 0, result.stderr[-3000:]
    plan = json.loads((out / "plan.json").read_text())
    assert 1 <= plan["training"]["steps"] <= 5
    assert result.stdout.count("--time 1h: ") == 1


EVALUATION = """
import json, sys
from pathlib import Path

import unmask
from unmask.config.plan import LoadingPlan
from unmask.data.images import Images
from unmask.data.labels import find_labelled
from unmask.distributed.processes import connected
from unmask.tasks.validation import Validation

data, run, out = sys.argv[1:]
decoded, take = [], Images.take

def counted(self, index, *rest):
    decoded.append(self.paths[index])
    return take(self, index, *rest)

Images.take = counted
model = unmask.load(run)
labelled = find_labelled((data,)).training
loading = LoadingPlan(
    seed=0, repeats=1, workers=0, keep_decoded=False, max_bad_share=1, max_megapixels=1, timeout=60
)
with connected("cpu") as processes:
    validation = Validation(labelled, model.description.image, loading)
    scores = [dict(validation.run(model, processes)) for _ in range(2)]
    record = {"scores": scores, "decoded": decoded}
    (Path(out) / f"{processes.rank}.json").write_text(json.dumps(record))
"""


@pytest.mark.slow
def test_an_evaluation_is_shared(labelled, tmp_path):
    """Every image is decoded by one process, once; all get the scores of one process alone."""
    spec = mae_spec(image_size=(8, 8), patch_size=(4, 4), channels=3, width=8, depth=1, heads=1)
    weights = random_classifier(spec, {"classes": ("a", "b", "c"), "pool": "mean"})
    weights.state["head.weight"] *= 20  # so that all classes are predicted
    run = tmp_path / "run"
    run.mkdir()
    write_model(run, weights.state, weights.description)
    (labelled / "a" / "broken.png").write_bytes(b"nothing")
    (tmp_path / "script.py").write_text(EVALUATION)
    found = {}
    for count in (1, 2):
        (out := tmp_path / f"out-{count}").mkdir()
        words = (str(tmp_path / "script.py"), str(labelled), str(run), str(out))
        result = torchrun_python(count, *words)
        assert result.returncode == 0, result.stderr[-3000:]
        found[count] = [json.loads((out / f"{rank}.json").read_text()) for rank in range(count)]
    (alone,), (first, second) = found[1], found[2]
    assert sorted([*first["decoded"], *second["decoded"]]) == sorted(alone["decoded"])
    assert len(set(alone["decoded"])) == len(alone["decoded"]), "the second look takes what was kept"
    assert abs(len(first["decoded"]) - len(second["decoded"])) <= 1
    assert first["scores"] == second["scores"]
    assert first["scores"][0] == first["scores"][1]
    assert first["scores"][0] == pytest.approx(alone["scores"][0], rel=1e-6)
    assert alone["scores"][0]["val/unreadable"] == 1
    assert 0 < alone["scores"][0]["val/top1"] < 1
    assert_evaluated_alike(run, labelled, "--data.max-bad-share", "0.1")
    strict = ["--split", "all", "--out", str(tmp_path / "x"), "--data.max-bad-share", "0.001"]
    result = torchrun(2, "evaluate", str(labelled), "--init", str(run), *strict)
    assert result.stderr.count("unmask: ") == 1, "one sentence, and no process waits for another"
