"""What the quickstart's runs came to: rows, a verdict, and the page that shows them."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmask.config.io import from_dict
from unmask.config.plan import Plan
from unmask.engine.run_directory import RunDirectory
from unmask.runs.examples import Quickstart
from unmask.runs.pages import last_summary, links_to
from unmask.runs.study import SEED, label
from unmask.tasks.labelled import find_split
from unmask.tasks.pretrain import Pretrain
from unmask.use.knn import ENCODER, PIXELS, RANDOM
from unmask.viz.comparison import Bar, comparison_chart
from unmask.viz.report import Commands, Table, report_html
from unmask.viz.saving import png_bytes

NAMES = {
    "pixels": "probe on pixels",
    "scratch": "from scratch",
    "probe": "probe, frozen encoder",
    "finetune": "fine-tuned",
}
PICTURES = {
    "confusion": "The best fine-tuned model: confusion matrix",
    "mistakes": "The best fine-tuned model: its most confident errors",
}

NO_GAIN = (
    "so few minutes of pre-training gain nothing here: train longer with --time, or see what "
    "twenty-five minutes gain on Fashion-MNIST in benchmarks/classification.md"
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one way of classifying scored on the validation images."""

    name: str
    how: str
    values: tuple[float, ...]
    """The accuracy with each seed; one of what draws nothing at random."""
    run: Path
    """The best of them, or what was probed."""
    following: str
    """The command that uses it."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def shown(self) -> str:
        """Mean and standard deviation, in per cent."""
        spread = f" ± {100 * statistics.stdev(self.values):.1f}" if len(self.values) > 1 else ""
        return f"{100 * self.mean:.1f} %{spread}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the runs came to; `rows` as the page shows them."""

    path: Path
    rows: list[Row]
    chance: tuple[float, str]
    """What always saying one class scores, and its name."""
    verdict: str
    note: str

    @property
    def best(self) -> Row:
        """The way with the highest mean."""
        return max(self.rows, key=lambda row: row.mean)

    def messages(self) -> list[str]:
        """For the terminal: the numbers, where the page is, and what to type next."""
        width = max(len(row.name) for row in self.rows)
        return [
            *(f"{row.name:<{width}}  {row.shown}" for row in self.rows),
            self.verdict,
            self.note,
            f"report: {self.path / 'report.html'}",
            f"next: {self.best.following}",
            "or, on images of your own, without labels: unmask pretrain path/to/images",
        ]


def compare(
    asked: Quickstart, linear: dict[str, float], scores: dict[str, dict[str, float]]
) -> Comparison:
    """The scores of finished runs, pixels first.

    `linear` has the accuracy of the probe of each kind of features; `scores` that of each run of a
    command, by its folder.
    """
    split = find_split(asked.finetune.data)
    classes, images = split.training.classes, len(split.validation)
    commonest = int(np.bincount(split.training.labels).argmax())
    chance = (
        float((split.validation.labels == commonest).mean()),
        f"majority class {classes[commonest]!r}",
    )
    rows = [
        _probe(asked, "pixels", linear[PIXELS]),
        _trained(asked, "scratch", scores["scratch"]),
        _probe(asked, "probe", linear[ENCODER]),
        _trained(asked, "finetune", scores["finetune"]),
    ]
    labels = (
        f"{asked.example.per_class} labels of each class, the same for every method"
        if asked.example.per_class
        else f"{len(split.training)} labels"
    )
    spread = (
        f"± is the standard deviation over {len(asked.seeds)} seeds after one pre-training"
        if len(asked.seeds) > 1
        else "one run each"
    )
    return Comparison(
        path=asked.out,
        rows=rows,
        chance=chance,
        verdict=verdict_on(rows, images),
        note=(
            f"{labels}; scored on {images} images that no run was trained on, with a standard error of "
            f"{100 * _error(rows[3].mean, images):.1f} points; {spread}"
        ),
    )


def verdict_on(rows: list[Row], images: int) -> str:
    """Whether pre-training gains anything, beyond twice the standard error of that many images.

    `rows` are pixels, from scratch, the probe and fine-tuned.
    """
    pixels, scratch, probe, tuned = rows
    gains = [
        f"{100 * gain:.0f} points ({one.name} {one.shown}, {other.name} {other.shown})"
        for one, other in ((tuned, scratch), (probe, pixels))
        if (gain := one.mean - other.mean) > 2 * _error(one.mean, images)
    ]
    if not gains:
        return NO_GAIN
    found = f"pre-training gains {' and '.join(gains)}"
    best = max(pixels, scratch, key=lambda row: row.mean)
    if max(probe.mean, tuned.mean) < best.mean:
        found += f"; but {best.name} has {best.shown}: train longer with --time"
    return found


def _error(share: float, images: int) -> float:
    """The standard error of a share of so many images."""
    return math.sqrt(share * (1 - share) / images)


def _probe(asked: Quickstart, kind: str, accuracy: float) -> Row:
    return Row(
        name=NAMES[kind],
        how=f"logistic regression on {'the pixels' if kind == 'pixels' else 'its features'}",
        values=(accuracy,),
        run=asked.out / "pretrain",
        following=(
            f"unmask knn path/to/labelled --init {asked.out / 'pretrain'} --pool {asked.knn.pool}"
        ),
    )


def _trained(asked: Quickstart, command: str, scores: dict[str, float]) -> Row:
    best = asked.out / command / max(scores, key=lambda name: scores[name])
    t = _plan(RunDirectory(best)).training
    return Row(
        name=NAMES[command],
        how=f"{t.steps} steps of {t.batch} images, recipe {getattr(asked, command).recipe}",
        values=tuple(scores.values()),
        run=best,
        following=f"unmask predict IMAGES --init {best}",
    )


def write_page(asked: Quickstart, found: Comparison, linear: dict[str, float]) -> None:
    """The chart, what the model draws, what to do with your own images, then the numbers."""
    run = RunDirectory(asked.out / "pretrain")
    page = report_html(
        "unmask: quickstart",
        opening=[
            (f"{_sentence(found.verdict)} {_sentence(found.note)}", _chart(asked, found)),
            *_drawn(
                run,
                {"reconstruction": f"Unseen {asked.example.things}: original, masked, reconstructed"},
            ),
        ],
        commands=_own_images(found),
        summary=Table(
            "The comparison in numbers",
            ("", "accuracy", "each seed", "how"),
            [
                (row.name, row.shown, ", ".join(f"{100 * value:.1f} %" for value in row.values), row.how)
                for row in found.rows
            ],
        ),
        facts=_facts(asked, found, linear, run),
        pictures=[
            *_drawn(RunDirectory(found.rows[-1].run), PICTURES),
            ("Pre-training: its curves", (run.plots / "curves.png").read_bytes()),
        ],
        links=links_to(asked.out, _runs(asked)),
    )
    RunDirectory(asked.out).write("report.html", page)


def _runs(asked: Quickstart) -> list[Path]:
    names = [label({SEED: str(seed)}) for seed in asked.seeds]
    trained = [asked.out / command / name for command in ("scratch", "finetune") for name in names]
    return [asked.out / "pretrain", Path(asked.knn.out or ""), *trained]


def _chart(asked: Quickstart, found: Comparison) -> bytes:
    chart = comparison_chart(
        [Bar(row.name, row.values) for row in found.rows],
        title=f"{asked.example.things.capitalize()}: accuracy on unseen images",
        label="accuracy",
        baseline=found.chance,
    )
    return png_bytes(chart)


def _facts(
    asked: Quickstart, found: Comparison, linear: dict[str, float], run: RunDirectory
) -> list[tuple[str, str]]:
    plan, (chance, constant) = _plan(run), found.chance
    f, t = plan.facts, plan.training
    return [
        (
            "Pre-trained on",
            f"{f.training_images} images without labels, {f.held_out_images} held out; {t.steps} "
            f"steps of {t.batch}",
        ),
        ("Reconstruction", last_summary(Pretrain(asked.pretraining), run, plan)),
        ("Probe, random encoder", f"{100 * linear[RANDOM]:.1f} %: the same encoder before any training"),
        ("Majority-class baseline", f"{100 * chance:.1f} %: {constant}"),
        ("Licence of the images", plan.licence_note or "not known"),
    ]


def _drawn(run: RunDirectory, captions: dict[str, str]) -> list[tuple[str, bytes]]:
    """The newest sample pictures of these names, with their captions."""
    newest = {
        caption: max(run.samples.glob(f"{name}-[0-9]*.png"), default=None)
        for name, caption in captions.items()
    }
    return [(caption, path.read_bytes()) for caption, path in newest.items() if path]


def _own_images(found: Comparison) -> Commands:
    """What to do with a folder of your own."""
    return Commands(
        "On your own images",
        [
            ("Check the images; estimate time and memory", "unmask check path/to/images"),
            ("Pre-train: any folder, no labels", "unmask pretrain path/to/images"),
            (
                "Fine-tune on labelled images, a folder for each class",
                "unmask finetune path/to/labelled --init runs/pretrain-images",
            ),
            ("Classify new images", "unmask predict path/to/others --init runs/finetune-labelled"),
            ("Or use the best model of this page", found.best.following),
        ],
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _plan(run: RunDirectory) -> Plan:
    return from_dict(Plan, run.read("plan.json"))
