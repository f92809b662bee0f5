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
from matplotlib.ticker import MaxNLocator, PercentFormatter
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
    def baseline_key(self) -> str: ...
    @property
    def baseline_label(self) -> str: ...
    @property
    def images_key(self) -> str: ...


@dataclass(frozen=True)
class Panel:
    """One chart: a metric over steps."""

    key: str
    label: str
    may_be_logarithmic: bool = False
    reference: tuple[float | str, str] | None = None
    """A level, or the key of what measured it, and its name."""
    images_key: str = ""
    """Number of images that a share is of."""
    is_noisy: bool = False


LOSS = Panel("loss", "training loss", may_be_logarithmic=True, is_noisy=True)
OPTIMIZER = (
    Panel("lr", "learning rate"),
    Panel("grad_norm", "gradient norm", may_be_logarithmic=True, is_noisy=True),
)
SMOOTHED_FROM, WINDOW = 50, 25
"""Values from which a noisy curve is smoothed too, and by a window of what part of them."""
LEAST_SHARES = 0.1
"""The least range of an axis of accuracy, so that noise does not fill it."""


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
    level = m.baseline_key or m.baseline
    reference = None if level is None else (level, m.baseline_label)
    return Panel(m.key, m.label, reference=reference, images_key=m.images_key)


def _draw(axes: Axes, panel: Panel, records: Sequence[Mapping[str, Any]]) -> None:
    points = [r for r in records if "step" in r and panel.key in r]
    drawable = [r for r in points if _is_finite(r[panel.key])]
    steps, values = [r["step"] for r in drawable], [r[panel.key] for r in drawable]
    smooth = panel.is_noisy and len(values) >= SMOOTHED_FROM
    (line,) = axes.plot(
        *(steps, values),
        linewidth=1.2,
        marker="o" if len(values) <= 40 else None,
        markersize=3.5,
        alpha=0.25 if smooth else 1,
    )
    if smooth:
        axes.plot(steps, smoothed(values), linewidth=1.6, color=line.get_color())
    if panel.may_be_logarithmic and values and 0 < LOG_FROM * min(values) < max(values):
        axes.set_yscale("log")
    level = _reference(axes, panel, records)
    if panel.images_key and values:
        errors = [_standard_error(r[panel.key], r.get(panel.images_key)) for r in drawable]
        axes.errorbar(steps, values, yerr=errors, fmt="none", ecolor=line.get_color(), alpha=0.5)
        _show_shares(axes, values, errors, level)
    if len(drawable) < len(points):
        missing = f"not drawn because not finite: {len(points) - len(drawable)}"
        axes.set_title(missing, fontsize=9, color="firebrick")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.set_xlabel("step")
    axes.set_ylabel(panel.label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def smoothed(values: Sequence[float]) -> np.ndarray:
    """float64 [n]: the mean over a window around each value; at both ends a line through the window."""
    whole = np.asarray(values, dtype=np.float64)
    reach = min(max(1, len(whole) // WINDOW // 2), (len(whole) - 1) // 2)
    places = np.arange(2 * reach + 1)
    if not reach:
        return whole
    means = np.convolve(whole, np.full(len(places), 1 / len(places)), "valid")
    first, last = (
        np.polyval(np.polyfit(places, part, 1), places)
        for part in (whole[: len(places)], whole[-len(places) :])
    )
    return np.concatenate([first[:reach], means, last[-reach:]])


def _reference(axes: Axes, panel: Panel, records: Sequence[Mapping[str, Any]]) -> float | None:
    """Draws the baseline as a line, and returns it; the newest if it was measured."""
    if panel.reference is None:
        return None
    level, name = panel.reference
    if isinstance(level, str):
        level = next((r[level] for r in reversed(records) if _is_finite(r.get(level))), math.nan)
    if not math.isfinite(level):
        return None
    axes.axhline(level, linestyle=":", color="black", linewidth=1.2, label=name)
    axes.legend(frameon=False)
    return level


def _standard_error(share: float, images: float | None) -> float:
    """Standard error of a share of so many images; 0 if their number is not known."""
    return math.sqrt(max(0.0, share * (1 - share)) / images) if images else 0.0


def _show_shares(
    axes: Axes, values: Sequence[float], errors: Sequence[float], level: float | None
) -> None:
    """An axis in per cent around what was measured and the baseline."""
    least = min([*np.subtract(values, errors), *([] if level is None else [level])])
    most = max([*np.add(values, errors), *([] if level is None else [level])])
    spare = max(0.05 * (most - least), (LEAST_SHARES - (most - least)) / 2)
    axes.set_ylim(max(-0.01, least - spare), min(1.01, most + spare))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
