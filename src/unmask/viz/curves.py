"""The course of a training run as one picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from PIL import Image

LOG_FROM = 20
"""Largest over smallest value from which a panel with a logarithmic scale reads better."""


class Metric(Protocol):
    """What a curve needs to know of a quantity; `engine.task.Metric` is one."""

    @property
    def key(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def has_curve(self) -> bool: ...
    @property
    def baseline(self) -> float | None: ...
    @property
    def baseline_label(self) -> str: ...


@dataclass(frozen=True)
class Panel:
    """One chart: a metric over steps."""

    key: str
    label: str
    may_be_logarithmic: bool = False
    reference: tuple[float, str] | None = None


LOSS = Panel("loss", "training loss", may_be_logarithmic=True)
OPTIMIZER = (
    Panel("lr", "learning rate"),
    Panel("grad_norm", "gradient norm", may_be_logarithmic=True),
)


def training_curves(records: Sequence[Mapping[str, Any]], metrics: Sequence[Metric] = ()) -> Image.Image:
    """Draws what was recorded over steps: loss, what was measured, learning rate, gradient norm.

    Args:
        records: lines of metrics.jsonl; a quantity that no record has gets no panel. Values that
            are not finite are not drawn, and their panel says how many there were.
        metrics: what else has a curve, between the loss and the learning rate.
    """
    panels = [LOSS, *(_panel(m) for m in metrics if m.has_curve), *OPTIMIZER]
    recorded = [p for p in panels if any(p.key in record and "step" in record for record in records)]
    rows = max(1, -(-len(recorded) // 2))
    columns = 2 if len(recorded) > 1 else 1
    padded = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)
    figure = Figure(figsize=(5.5 * columns, 3.2 * rows), dpi=110, layout=padded)
    canvas = FigureCanvasAgg(figure)
    axes = None
    for i, panel in enumerate(recorded):
        axes = figure.add_subplot(rows, columns, i + 1, sharex=axes)
        _draw(axes, panel, records)
    if not recorded:
        figure.text(0.5, 0.5, "nothing recorded yet", ha="center", va="center")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _panel(m: Metric) -> Panel:
    reference = None if m.baseline is None else (m.baseline, m.baseline_label)
    return Panel(m.key, m.label, reference=reference)


def _draw(axes: Axes, panel: Panel, records: Sequence[Mapping[str, Any]]) -> None:
    points = [(r["step"], r[panel.key]) for r in records if "step" in r and panel.key in r]
    drawable = [(step, value) for step, value in points if _is_finite(value)]
    steps, values = [step for step, _ in drawable], [value for _, value in drawable]
    axes.plot(steps, values, linewidth=1.2, marker="o" if len(values) <= 40 else None, markersize=3.5)
    if panel.may_be_logarithmic and values and 0 < LOG_FROM * min(values) < max(values):
        axes.set_yscale("log")
    if panel.reference:
        level, name = panel.reference
        axes.axhline(level, linestyle=":", color="black", linewidth=1.2, label=name)
        axes.legend(frameon=False)
    if len(drawable) < len(points):
        missing = f"not drawn because not finite: {len(points) - len(drawable)}"
        axes.set_title(missing, fontsize=9, color="firebrick")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.set_xlabel("step")
    axes.set_ylabel(panel.label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
