"""Several runs of one command: each resumable by itself, all reported, the best chosen on validation."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask.distributed.processes import connected
from unmask.engine.machine import detect_machine
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.errors import DivergenceError
from unmask.viz.report import Table, report_html

SEED = "run.seed"

Settings = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What runs are compared by."""

    key: str
    name: str
    higher_is_better: bool


ACCURACY = Measure(key="val/top1", name="validation accuracy", higher_is_better=True)
HELD_OUT = Measure(key="held_out/error", name="held-out error", higher_is_better=False)


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
        """NaN where a run did not measure."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; 0 of one, NaN where a run did not measure."""
        if math.isnan(self.mean):
            return math.nan
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0


@dataclass(frozen=True)
class Sweep:
    """All runs, the best first."""

    path: Path
    rows: list[Row]

    @property
    def best(self) -> Row:
        return self.rows[0]


def run_sweep(
    runs: Sequence[tuple[Settings, Any]],
    run: Callable[[Any, Path], Path],
    *,
    out: Path,
    by: Measure,
    say: Callable[[str], None],
) -> Sweep:
    """Runs every configuration below `out`, or goes on where an earlier call was stopped.

    A run that diverges counts as NaN, and the others follow; a later call goes on with it from its
    checkpoint, to the same end. The main process writes the result and says it.

    Args:
        runs: what each run sets, and its configuration.
        run: trains a configuration in a directory.
        by: what they are compared by.

    Raises DivergenceError where every run diverged.
    """
    if (out / "config.json").exists():
        raise ValueError(f"{out} is a run by itself: choose another --out for the sweep")
    values: dict[str, float] = {}
    diverged: set[str] = set()
    with connected(detect_machine(runs[0][1].run.device).device) as processes:
        for settings, config in runs:
            name = label(settings)
            try:
                path = run(config, out / name)
            except DivergenceError as error:
                values[name] = math.nan
                diverged.add(name)
                if processes.is_main:
                    say(f"{name} diverged and counts as not measured: {error}")
            else:
                # The others may be here before the main process has written it.
                values[name] = processes.from_main(last_value(RunDirectory(path), by.key))
        sweep = Sweep(out, _rows([settings for settings, _ in runs], values, diverged, by))
        if processes.is_main:
            _write(sweep, by)
            say("\n".join([*sentences(sweep, by), f"report: {out / 'report.html'}"]))
    if len(diverged) == len(values):
        raise DivergenceError(
            "every run of the sweep diverged: lower --optim.base-lr, or try --run.precision fp32"
        )
    return sweep


def _rows(
    runs: Sequence[Settings], values: dict[str, float], diverged: set[str], by: Measure
) -> list[Row]:
    """Runs that differ in their seeds alone, together; the best first, NaN last."""
    seeds: dict[str, list[str]] = defaultdict(list)
    settings_of: dict[str, Settings] = {}
    for settings in runs:
        others = {field: value for field, value in settings.items() if field != SEED}
        settings_of[label(others)] = others
        seeds[label(others)].append(label(settings))
    rows = [
        Row(
            settings=settings_of[name],
            values=tuple(values[run] for run in names),
            runs=tuple(names),
            diverged=tuple(run for run in names if run in diverged),
        )
        for name, names in seeds.items()
    ]
    sign = -1 if by.higher_is_better else 1
    return sorted(rows, key=lambda row: math.inf if math.isnan(row.mean) else sign * row.mean)


def label(settings: Settings) -> str:
    """Settings as the name of a directory."""
    parts = (
        f"{field.rsplit('.', 1)[-1]}={value.replace(' ', 'x')}" for field, value in settings.items()
    )
    return "_".join(parts) or "as-asked"


def last_value(run: RunDirectory, key: str) -> float:
    """The newest value of a metric; NaN where there is none."""
    values = [record[key] for record in read_metrics(run) if record.get(key) is not None]
    return float(values[-1]) if values else math.nan


def sentences(sweep: Sweep, by: Measure) -> list[str]:
    """A line per combination, the best first."""
    return [
        f"{label(row.settings):<40} {by.name} {_shown(row.mean)}"
        + (f" +- {_shown(row.spread)} over {len(row.values)} runs" if len(row.values) > 1 else "")
        + (f"; diverged: {', '.join(row.diverged)}" if row.diverged else "")
        for row in sweep.rows
    ]


def _shown(value: float) -> str:
    return "not measured" if math.isnan(value) else f"{value:.4f}"


def _finite(value: float) -> float | None:
    """As every JSON reader takes it."""
    return value if math.isfinite(value) else None


def _write(sweep: Sweep, by: Measure) -> None:
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
        for row in sweep.rows
    ]
    written = RunDirectory(sweep.path)
    written.write("sweep.json", json.dumps(records, indent=2) + "\n")
    table = Table(
        caption=f"Runs by {by.name}, the best first",
        header=["settings", by.name, "deviation", "each run"],
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
            for row in sweep.rows
        ],
    )
    note = f"the best was chosen by its {by.name}, which is flattered a little by the choice"
    facts = [("Note", note)] if len(sweep.rows) > 1 else []
    page = report_html(f"Sweep: {sweep.path.name}", facts=facts, pictures=[], summary=table)
    written.write("report.html", page)
