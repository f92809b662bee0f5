"""The pages that a run leaves behind: curves and report.html."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from unmask.config.plan import Plan, TrainingPlan
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory, environment_of
from unmask.engine.spikes import spikes
from unmask.engine.task import Metric
from unmask.tasks import TASKS
from unmask.tasks.base import BaseTask
from unmask.units import counted, duration
from unmask.viz.curves import training_curves
from unmask.viz.report import Link, report_html
from unmask.viz.saving import png_bytes

OPTIMIZERS = {"adamw": "AdamW", "lars": "LARS", "sgd": "SGD"}
NOTHING = "Nothing was measured"


def write_pages(task: BaseTask, run: RunDirectory, plan: Plan, title: str) -> None:
    """Draws the curves and writes the report from what the run directory holds."""
    curves = png_bytes(training_curves(read_metrics(run), task.metrics))
    run.write("plots/curves.png", curves)
    pictures = [
        (f"{caption}, after {_step(path)} steps", path.read_bytes())
        for name, caption in task.captions.items()
        for path in _newest(run.samples, name, first=name in task.from_the_start)
    ]
    newest = newest_values(run)
    page = report_html(
        f"{title}: {run.path.name}",
        facts=[
            ("Result", last_summary(task, run, plan)),
            *(("Warning", sentence) for sentence in task.shortfalls(newest)),
            *((f"What is {m.label}?", m.explanation) for m in task.metrics if _is_explained(m, newest)),
            *_origin(task, run, plan),
            *task.facts(plan, newest),
            *_training_facts(run, plan.training),
        ],
        pictures=[*pictures, ("Training curves", curves)],
    )
    run.write("report.html", page)


def last_summary(task: BaseTask, run: RunDirectory, plan: Plan) -> str:
    """The newest measurement, in a sentence."""
    newest = newest_values(run)
    if not task.metrics or newest.get(task.metrics[0].key) is None:
        return NOTHING
    text = task.summary(newest, plan)
    return f"{text[0].upper()}{text[1:]}"


def measured_in(run: RunDirectory) -> str:
    """The newest measurement of a run of any task, in a sentence; empty if there is none."""
    metrics = {m.key: m for entry in TASKS.values() for m in entry.load().metrics}
    newest = newest_values(run)
    shown = [metrics[key].shown(value) for key, value in newest.items() if key in metrics]
    return ", ".join(shown)[:1].upper() + ", ".join(shown)[1:]


def links_to(folder: Path, runs: Iterable[Path]) -> list[Link]:
    """Reports of runs below `folder`, for a page in it; runs that have none are left out."""
    pages = [run / "report.html" for run in runs]
    return [
        Link(text=str(page.parent.relative_to(folder)), place=page.relative_to(folder))
        for page in pages
        if page.exists()
    ]


def newest_values(run: RunDirectory) -> dict[str, float]:
    """Each quantity as it was last measured."""
    newest: dict[str, float] = {}
    for record in read_metrics(run):
        newest |= {name: value for name, value in record.items() if value is not None}
    return newest


def _training_facts(run: RunDirectory, t: TrainingPlan) -> list[tuple[str, str]]:
    records = read_metrics(run)
    trained = [r for r in records if r.get("loss") is not None]
    skipped = [r["skipped_steps"] for r in records if "skipped_steps" in r]
    name = OPTIMIZERS[t.optimizer]
    high = ", ".join(str(spike.step) for spike in spikes(trained))
    return [
        ("Training", f"{t.steps} steps of {t.batch} images, {t.steps / t.steps_per_epoch:.4g} epochs"),
        (
            "Optimizer",
            f"{name}, peak learning rate {t.lr:.3g}, weight decay {t.weight_decay:g}, {t.precision}",
        ),
        ("Last loss", f"{trained[-1]['loss']:.4f}" if trained else "none yet"),
        ("Skipped steps", str(skipped[-1] if skipped else 0)),
        *([("Loss spikes", f"at steps {high}")] if high else []),
    ]


def _is_explained(metric: Metric, newest: dict[str, float]) -> bool:
    return bool(metric.explanation) and metric.key in newest


def _origin(task: BaseTask, run: RunDirectory, plan: Plan) -> list[tuple[str, str]]:
    """When, where and from what: enough to do it again."""
    env, machine = environment_of(run)[0] or {}, plan.machine
    return [
        ("Command", _command(env.get("command", []))),
        ("Data", ", ".join(task.config.data.source)),
        ("Initialised from", task.init or "random weights"),
        ("Seed", str(plan.training.seed)),
        *_when(env),
        (
            "Machine",
            f"{machine.name}, {counted(plan.processes, 'process')} of "
            f"{counted(machine.cores, 'core')}, torch {env.get('torch', 'not known')}",
        ),
    ]


def _when(env: Mapping[str, Any]) -> list[tuple[str, str]]:
    """From the first start to now; runs of older versions did not write it down."""
    if "started" not in env:
        return []
    began = datetime.fromisoformat(env["started"])
    took = duration(max(0.0, (datetime.now().astimezone() - began).total_seconds()))
    parts = f" in {env['parts']} parts, with the time between them" if env.get("parts", 1) > 1 else ""
    return [("Started", f"{began:%Y-%m-%d %H:%M}"), ("Duration", f"{took}{parts}")]


def _command(words: Sequence[str]) -> str:
    """As it was typed; how Python or torchrun were called is not known."""
    if not words:
        return "not known"
    first = Path(words[0]).name
    ours = "unmask" if first in ("unmask", "__main__.py") else first
    return shlex.join([ours, *words[1:]])


def _newest(samples: Path, name: str, *, first: bool) -> list[Path]:
    """And the first behind it."""
    paths = sorted(samples.glob(f"{name}-[0-9]*.png"))
    return [*paths[-1:], *(paths[:1] if first and len(paths) > 1 else [])]


def _step(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])
