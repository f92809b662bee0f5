"""The embedded example, from images to a classifier: four runs, and a page that compares them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unmask.config.commands import ClassifyConfig, PretrainConfig, QuickstartConfig
from unmask.config.io import from_dict
from unmask.config.output import claim_output
from unmask.config.plan import Plan
from unmask.config.settings import FeatureProbe
from unmask.distributed.processes import connected
from unmask.engine.machine import detect_machine
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError
from unmask.runs.pages import last_summary
from unmask.runs.run import run as run_task
from unmask.tasks import find_recipe, find_task
from unmask.tasks.labelled import find_split
from unmask.tasks.pretrain import Pretrain
from unmask.viz.report import Table, report_html

LABELLED, UNLABELLED = "elpv:plain", "elpv:train"
PROBE_IMAGES, LOOKS = 1024, 4
DOES = {
    "probe": "linear probe: a linear classifier on the frozen encoder",
    "finetune": "fine-tuning: encoder and classifier",
    "scratch": "from scratch: the same without pre-training, to compare with",
}
PICTURES = {
    "pretrain": {
        "reconstruction": "Masked, reconstructed, true: cells that no run was trained on",
        "reconstruction-ratios": "The same model at higher mask ratios",
    },
    "finetune": {
        "confusion": "The fine-tuned model: confusion matrix",
        "mistakes": "The fine-tuned model: its most confident errors",
    },
}


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The runs, in their order."""

    out: Path
    pretraining: PretrainConfig
    classifications: dict[str, ClassifyConfig]
    """By command; each on the same labelled images."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one way of classifying scored on the validation images."""

    name: str
    how: str
    top1: float
    balanced: float

    def cells(self) -> tuple[str, ...]:
        """As text."""
        return self.name, self.how, f"{self.top1:.1%}", f"{self.balanced:.1%}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the runs came to."""

    path: Path
    classes: tuple[str, ...]
    rows: list[Row]
    note: str

    def sentences(self) -> list[str]:
        """For the terminal: the numbers, where the page is, and what to type next."""
        width = max(len(row.name) for row in self.rows)
        return [
            f"{'':<{width}}  accuracy  balanced",
            *(f"{row.name:<{width}}  {row.top1:>8.1%}  {row.balanced:>8.1%}" for row in self.rows),
            self.note,
            f"report: {self.path / 'report.html'}",
            f"next: unmask predict IMAGES --init {self.path / 'finetune'}",
            "or, on images of your own, without labels: unmask pretrain path/to/images",
        ]


def quickstart_stages(config: QuickstartConfig) -> Stages:
    """Pre-training on the images whose labels are used afterwards; none sees those for validation."""
    out = Path(config.out)

    def run(recipe: PretrainConfig | ClassifyConfig) -> dict:
        return {"run": replace(recipe.run, seed=config.seed, device=config.device)}

    pretrain = find_recipe("pretrain", "quickstart")
    assert pretrain.optim.steps is not None
    looks = FeatureProbe(data=(LABELLED,), images=PROBE_IMAGES, every=pretrain.optim.steps // LOOKS)
    pretraining = replace(
        pretrain,
        out=str(out / "pretrain"),
        data=replace(pretrain.data, source=(UNLABELLED,)),
        probe=looks,
        **run(pretrain),
    )
    classifications = {}
    for command in DOES:
        recipe = find_recipe(command, f"quickstart-{command}")
        classifications[command] = replace(
            recipe,
            out=str(out / command),
            **({} if command == "scratch" else {"init": pretraining.out}),
            data=replace(recipe.data, source=(LABELLED,)),
            **run(recipe),
        )
    return Stages(out=out, pretraining=pretraining, classifications=classifications)


def run_stages(stages: Stages, say: Callable[[str], None]) -> Comparison:
    """Runs them all, or goes on where a call was stopped; writes the page that compares them.

    The main process says what is done, and what came of it.
    """
    if (stages.out / "config.json").exists():
        raise CheckpointError(f"{stages.out} is a run by itself: choose another --out")
    count = 1 + len(stages.classifications)
    with connected(detect_machine(stages.pretraining.run.device).device) as processes:
        if processes.is_main:
            claim_output(stages.out)
        tell = say if processes.is_main else _nothing
        tell(f"1 of {count}: pre-training, without labels")
        run_task(Pretrain(stages.pretraining))
        for i, (command, config) in enumerate(stages.classifications.items(), 2):
            tell(f"{i} of {count}: {DOES[command]}")
            run_task(find_task(command)(config))
        comparison = processes.from_main(compare(stages) if processes.is_main else None)
        if processes.is_main:
            _write_page(stages, comparison)
        for sentence in comparison.sentences():
            tell(sentence)
    return comparison


def compare(stages: Stages) -> Comparison:
    """The scores of finished runs, the lowest that is worth anything first."""
    some = next(iter(stages.classifications.values()))
    split = find_split(some.data)
    classes, images = split.training.classes, len(split.validation)
    commonest = int(np.bincount(split.training.labels).argmax())
    chance = Row(
        name="no model",
        how=f"always {classes[commonest]!r}",
        top1=float((split.validation.labels == commonest).mean()),
        balanced=1 / len(classes),
    )
    runs = [_row(command, stages) for command in ("scratch", "probe", "finetune")]
    best = max(row.top1 for row in runs)
    error = math.sqrt(best * (1 - best) / images)
    note = (
        f"one run each, scored on {images} images that none of them was trained on: the standard error "
        f"of an accuracy is {error:.1%}"
    )
    return Comparison(path=stages.out, classes=classes, rows=[chance, *runs], note=note)


def _row(command: str, stages: Stages) -> Row:
    config, run = stages.classifications[command], RunDirectory(stages.out / command)
    last = next(r for r in reversed(read_metrics(run)) if "val/top1" in r)
    plan = run.read("plan.json")["training"]
    return Row(
        name={"scratch": "from scratch", "probe": "linear probe", "finetune": "fine-tuned"}[command],
        how=f"unmask {command}, {plan['steps']} steps of {plan['batch']} images, {config.recipe}",
        top1=last["val/top1"],
        balanced=last["val/balanced_accuracy"],
    )


def _write_page(stages: Stages, comparison: Comparison) -> None:
    run = RunDirectory(stages.out / "pretrain")
    facts = run.read("plan.json")["facts"]
    images = facts["training_images"] + facts["held_out_images"]
    pictures = [
        (caption, newest.read_bytes())
        for part, names in PICTURES.items()
        for name, caption in names.items()
        if (newest := _newest(RunDirectory(stages.out / part).samples, name))
    ]
    curves = (run.plots / "curves.png").read_bytes()
    page = report_html(
        "unmask: quickstart",
        summary=Table(
            f"Which class is it? {' or '.join(comparison.classes)}",
            ("", "how", "accuracy", "balanced accuracy"),
            [row.cells() for row in comparison.rows],
        ),
        facts=[
            ("How sure that is", comparison.note),
            ("Pre-trained on", f"{images} images, without the labels that the other runs learn from"),
            ("Reconstruction", last_summary(Pretrain(stages.pretraining), run, _plan(run))),
            ("Licence", run.read("model.json")["licence_note"] or "not known"),
        ],
        pictures=[*pictures, ("Pre-training: its curves", curves)],
    )
    RunDirectory(stages.out).write("report.html", page)


def _plan(run: RunDirectory) -> Plan:
    return from_dict(Plan, run.read("plan.json"))


def _nothing(sentence: str) -> None:
    """What the other processes say."""


def _newest(samples: Path, name: str) -> Path | None:
    return max(samples.glob(f"{name}-[0-9]*.png"), default=None)
