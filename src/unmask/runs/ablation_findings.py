"""What the finished runs of an ablation measured, and whether that shows anything."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from unmask.evals.significance import LEAST_SEEDS, Difference, Measured, differences
from unmask.runs.ablation import Ablation, Unit
from unmask.runs.study import last_value
from unmask.units import counted

NOT_MEASURED = "-"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What a finished run has measured."""

    name: str
    command: str
    key: str
    label: str
    format: str
    with_labels: bool
    is_tested: bool = False
    """The sentence is about it, if this is what there is to measure."""

    @property
    def is_share(self) -> bool:
        """Whether it is shown in per cent."""
        return self.format.endswith("%}")

    def shown(self, value: float) -> str:
        """As text."""
        return self.format.format(value) if math.isfinite(value) else NOT_MEASURED


QUANTITIES = (
    Quantity(
        name="finetune",
        command="finetune",
        key="val/top1",
        label="fine-tuning accuracy",
        format="{:.1%}",
        with_labels=True,
        is_tested=True,
    ),
    Quantity(
        name="probe",
        command="probe",
        key="val/top1",
        label="linear probe accuracy",
        format="{:.1%}",
        with_labels=True,
        is_tested=True,
    ),
    Quantity(
        name="knn",
        command="pretrain",
        key="knn/top1",
        label="k-NN accuracy",
        format="{:.1%}",
        with_labels=True,
    ),
    Quantity(
        name="error",
        command="pretrain",
        key="held_out/error",
        label="held-out error on masked pixels",
        format="{:.4f}",
        with_labels=False,
        is_tested=True,
    ),
    Quantity(
        name="rank",
        command="pretrain",
        key="features/rank",
        label="effective rank",
        format="{:.1f}",
        with_labels=False,
        is_tested=True,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value over its seeds; NaN stands for what is not measured."""

    value: str
    measured: dict[str, list[float]]
    """By the name of the quantity, one for each seed."""
    diverged: list[str]
    """Folders of units that did."""
    finished: int
    seconds: float
    """Mean of the finished units."""

    def mean(self, name: str) -> float:
        """Over the seeds that measured it."""
        found = [v for v in self.measured[name] if math.isfinite(v)]
        return statistics.fmean(found) if found else math.nan

    def spread(self, name: str) -> float:
        """Standard deviation over these seeds; NaN of fewer than two."""
        found = [v for v in self.measured[name] if math.isfinite(v)]
        return statistics.stdev(found) if len(found) > 1 else math.nan


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that finished runs came to."""

    quantities: list[Quantity]
    rows: list[Row]
    differences: list[Difference]
    missing: list[str]
    """Folders of units that are neither finished nor diverged."""
    messages: list[str]
    """Each value's result, and whether any difference is significant."""
    shown: str
    """The last sentence by itself."""


def find_out(ablation: Ablation) -> Findings:
    """Reads what is finished of all units, whichever part they belong to."""
    has_labels = ablation.labels is not None
    quantities = [q for q in QUANTITIES if has_labels or not q.with_labels]
    rows = [_row(value.name, ablation.of(value.name), quantities) for value in ablation.values]
    tested = [q for q in quantities if q.is_tested and q.with_labels is has_labels]
    step = 1 / len(ablation.labels.validation) if ablation.labels else 0.0
    found = differences(
        {q.label: Measured({r.value: r.measured[q.name] for r in rows}, step) for q in tested},
        ablation.baseline,
    )
    shown = shown_sentence(ablation.baseline, tested, found, rows)
    missing = [
        unit.folder.name
        for unit in ablation.units
        if not unit.is_finished and not unit.record()["diverged"]
    ]
    lines = [_line(row, quantities) for row in rows]
    unfinished = [f"not finished yet: {', '.join(missing)}"] if missing else []
    return Findings(
        quantities=quantities,
        rows=rows,
        differences=found,
        missing=missing,
        messages=[*lines, *unfinished, shown],
        shown=shown,
    )


def shown_sentence(
    baseline: str, tested: Sequence[Quantity], found: Sequence[Difference], rows: Sequence[Row]
) -> str:
    """Whether any difference is significant: with fewer than three seeds never."""
    what = " and ".join(q.label for q in tested)
    if not found:
        most = max((sum(map(math.isfinite, r.measured[tested[0].name])) for r in rows), default=0)
        return (
            f"No significance test yet: it takes {LEAST_SEEDS} seeds of {baseline} and another value, "
            f"and the most so far is {most} (--seeds 0,1,2)"
        )
    how = f"Welch's t-test, {counted(len(found), 'comparison')} corrected by Holm"
    certain = [one for one in found if one.is_shown]
    if not certain:
        return f"No significant difference from {baseline} at the 5 % level in {what} ({how})"
    forms = {q.label: q for q in tested}
    each = "; ".join(
        f"{one.value} has a {'higher' if one.mean > one.baseline_mean else 'lower'} {one.quantity}, "
        f"{forms[one.quantity].shown(one.mean)} against {forms[one.quantity].shown(one.baseline_mean)}"
        for one in certain
    )
    return f"Significant at the 5 % level against {baseline}: {each} ({how})"


def _row(value: str, units: Sequence[Unit], quantities: Sequence[Quantity]) -> Row:
    records = [unit.record() for unit in units]
    finished = [
        sum(record["seconds"].values())
        for unit, record in zip(units, records, strict=True)
        if unit.is_finished
    ]
    return Row(
        value=value,
        measured={q.name: [_measured(unit, q) for unit in units] for q in quantities},
        diverged=[u.folder.name for u, r in zip(units, records, strict=True) if r["diverged"]],
        finished=len(finished),
        seconds=statistics.fmean(finished) if finished else math.nan,
    )


def _measured(unit: Unit, quantity: Quantity) -> float:
    run = unit.run(quantity.command)
    return last_value(run, quantity.key) if run.model.exists() else math.nan


def _line(row: Row, quantities: Sequence[Quantity]) -> str:
    values = ", ".join(f"{q.label} {with_spread(row, q)}" for q in quantities)
    diverged = f"; diverged: {', '.join(row.diverged)}" if row.diverged else ""
    return f"{row.value:<18} {values}{diverged}"


def with_spread(row: Row, quantity: Quantity) -> str:
    """Mean and standard deviation as text."""
    mean, spread = row.mean(quantity.name), row.spread(quantity.name)
    text = quantity.shown(mean)
    return f"{text} ± {quantity.shown(spread)}" if math.isfinite(spread) else text
