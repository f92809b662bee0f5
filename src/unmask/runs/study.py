"""Several runs: each resumable by itself, compared by one metric, all reported, the best first."""

import json
import math
import shutil
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from unmask.config.plan import Plan
from unmask.distributed.processes import Processes, connected
from unmask.engine.locks import claimed
from unmask.engine.machine import detect_machine
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.engine.task import Metric
from unmask.errors import DivergenceError
from unmask.runs.fitted import of_equal_length
from unmask.runs.pages import links_to
from unmask.runs.run import dry_run, run
from unmask.tasks.base import BaseTask
from unmask.viz.report import Table, report_html

SEED = "run.seed"

Settings = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of several; `settings` are what tells it from the others."""

    task: BaseTask
    settings: Settings

    @property
    def name(self) -> str:
        """Name of its directory."""
        return label(self.settings)


@dataclass(frozen=True)
class Outcome:
    """What a stage came to; NaN if it did not measure."""

    value: float
    diverged: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One combination of settings over its seeds."""

    settings: Settings
    values: tuple[float, ...]
    runs: tuple[str, ...]
    diverged: tuple[str, ...] = ()
    """Those of the runs whose value is NaN for that reason."""

    @property
    def mean(self) -> float:
        """NaN if a run did not measure."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; 0 of one, NaN if a run did not measure."""
        if math.isnan(self.mean):
            return math.nan
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


@dataclass(frozen=True)
class Study:
    """All runs, the best first."""

    path: Path
    rows: list[Row]

    @property
    def best(self) -> Row:
        return self.rows[0]


def study(
    stages: Sequence[Stage], *, by: Metric, out: Path, say: Callable[[str], None] = print
) -> Study:
    """Runs every stage below `out`, or goes on where an earlier call was stopped; writes the comparison.

    Stages that differ in their seeds alone are one row. Of each finished run only the final weights are
    kept, no checkpoints. A run that diverges counts as NaN, and the others follow. The main process
    writes the result and says it.

    Raises DivergenceError if every run diverged.
    """
    if (out / "config.json").exists():
        raise ValueError(f"{out} is itself a run: choose another --out for the sweep")
    # Connected once for all: processes that part do not find each other again.
    with connected(device_of([stage.task for stage in stages])) as processes:
        outcomes = run_stages(stages, by=by, out=out, say=say)
        found = Study(out, _rows(stages, outcomes, by))
        if processes.is_main:
            _write(found, by)
            say("\n".join([*messages(found, by), f"report: {out / 'report.html'}"]))
    if all(outcome.diverged for outcome in outcomes.values()):
        raise DivergenceError(
            "every run of the sweep diverged: lower --optim.base-lr, or try --run.precision fp32"
        )
    return found


def run_sweep(runs: Sequence[tuple[Settings, BaseTask]], *, base: BaseTask) -> Study:
    """A study of one task under several settings, compared by the task's first metric."""
    with connected(device_of([base])) as processes:
        return study(stages_of(runs, base, processes), by=base.metrics[0], out=_path(base))


def plan_sweep(runs: Sequence[tuple[Settings, BaseTask]], *, base: BaseTask) -> dict[str, Plan]:
    """What each run of a sweep would do, by the name of its directory; nothing is written."""
    with connected(device_of([base])) as processes:
        return {one.name: dry_run(one.task) for one in stages_of(runs, base, processes)}


def stages_of(
    runs: Sequence[tuple[Settings, BaseTask]], base: BaseTask, processes: Processes
) -> list[Stage]:
    """What is compared, each as long as the others unless its settings say otherwise."""
    paths = [_path(base) / label(settings) for settings, _ in runs]
    tasks = of_equal_length([task for _, task in runs], base, paths, processes)
    return [Stage(task=t, settings=s) for t, (s, _) in zip(tasks, runs, strict=True)]


def _path(base: BaseTask) -> Path:
    """The folder of a sweep's runs."""
    return base.path() if base.config.out else Path(f"{base.path()}-sweep")


def run_stages(
    stages: Sequence[Stage], *, by: Metric, out: Path, say: Callable[[str], None]
) -> dict[str, Outcome]:
    """Runs every stage below `out`; what each came to, by its name, on all processes."""
    outcomes: dict[str, Outcome] = {}
    with (
        connected(device_of([stage.task for stage in stages])) as processes,
        claimed(out) if processes.is_main else nullcontext(),
    ):
        for stage in stages:
            task = type(stage.task)(replace(stage.task.config, out=str(out / stage.name)))
            try:
                directory = RunDirectory(run(task))
            except DivergenceError as error:
                outcomes[stage.name] = Outcome(math.nan, diverged=True)
                if processes.is_main:
                    say(f"{stage.name} diverged and counts as not measured: {error}")
                continue
            # The others may be here before the main process has written it.
            outcomes[stage.name] = Outcome(processes.from_main(last_value(directory, by.key)))
            if processes.is_main:
                shutil.rmtree(directory.checkpoints, ignore_errors=True)
    return outcomes


def device_of(tasks: Sequence[BaseTask]) -> str:
    """The device that all of them run on."""
    return detect_machine(tasks[0].config.run.device).device


def _rows(stages: Sequence[Stage], outcomes: dict[str, Outcome], by: Metric) -> list[Row]:
    """Runs that differ in their seeds alone, together; the best first, NaN last."""
    seeds: dict[str, list[str]] = defaultdict(list)
    settings_of: dict[str, Settings] = {}
    for stage in stages:
        others = {field: value for field, value in stage.settings.items() if field != SEED}
        settings_of[label(others)] = others
        seeds[label(others)].append(stage.name)
    rows = [
        Row(
            settings=settings_of[name],
            values=tuple(outcomes[run].value for run in names),
            runs=tuple(names),
            diverged=tuple(run for run in names if outcomes[run].diverged),
        )
        for name, names in seeds.items()
    ]
    sign = -1 if by.better == "higher" else 1
    return sorted(rows, key=lambda row: math.inf if math.isnan(row.mean) else sign * row.mean)


def label(settings: Settings) -> str:
    """Settings as the name of a directory."""
    parts = (
        f"{field.rsplit('.', 1)[-1]}={value.replace(' ', 'x')}" for field, value in settings.items()
    )
    return "_".join(parts) or "as-asked"


def last_value(run: RunDirectory, key: str) -> float:
    """The newest value of a metric; NaN if there is none."""
    values = [record[key] for record in read_metrics(run) if record.get(key) is not None]
    return float(values[-1]) if values else math.nan


def messages(found: Study, by: Metric) -> list[str]:
    """A line per combination, the best first."""
    return [
        f"{label(row.settings):<40} {by.label} {_shown(row.mean)}"
        + (f" +- {_shown(row.spread)} over {len(row.values)} runs" if len(row.values) > 1 else "")
        + (f"; diverged: {', '.join(row.diverged)}" if row.diverged else "")
        for row in found.rows
    ]


def _shown(value: float) -> str:
    return "not measured" if math.isnan(value) else f"{value:.4f}"


def _finite(value: float) -> float | None:
    """As every JSON reader takes it."""
    return value if math.isfinite(value) else None


def _write(found: Study, by: Metric) -> None:
    """sweep.json for programs, report.html for people."""
    records = [
        {
            "settings": row.settings,
            by.key: {
                "mean": _finite(row.mean),
                "deviation": _finite(row.spread),
                "values": [_finite(value) for value in row.values],
            },
            "runs": row.runs,
            "diverged": row.diverged,
        }
        for row in found.rows
    ]
    written = RunDirectory(found.path)
    written.write("sweep.json", json.dumps(records, indent=2) + "\n")
    table = Table(
        caption=f"Runs by {by.label}, the best first",
        header=["settings", by.label, "standard deviation", "each run"],
        rows=[
            [
                label(row.settings),
                _shown(row.mean),
                _shown(row.spread) if len(row.values) > 1 else "one run",
                ", ".join(
                    f"{'diverged' if name in row.diverged else _shown(value)} ({name})"
                    for value, name in zip(row.values, row.runs, strict=True)
                ),
            ]
            for row in found.rows
        ],
    )
    note = f"the best was chosen by its {by.label}, which is slightly optimistic for that reason"
    facts = [("Note", note)] if len(found.rows) > 1 else []
    page = report_html(
        f"Sweep: {found.path.name}",
        facts=facts,
        pictures=[],
        summary=table,
        links=links_to(found.path, (found.path / name for row in found.rows for name in row.runs)),
    )
    written.write("report.html", page)
