"""Scores of several methods as one chart."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

DPI = 110
BEST, OTHER = "#1f6f54", "#9fb8c9"


class Bar(NamedTuple):
    """One method: its scores, one for each seed, between 0 and 1."""

    name: str
    values: tuple[float, ...]


def comparison_chart(
    bars: Sequence[Bar], *, title: str, label: str, baseline: tuple[float, str] | None = None
) -> Image.Image:
    """Draws a bar to each mean, with a line over its standard deviation and a dot for each seed.

    Args:
        bars: in the order from above; the one with the highest mean stands out.
        title: above the chart.
        label: of the axis of scores, which begins at 0.
        baseline: the score of a baseline without learning, drawn as a line with its name.
    """
    padded = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)
    figure = Figure(figsize=(7.2, 1.5 + 0.62 * len(bars)), dpi=DPI, layout=padded)
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    means = [float(np.mean(bar.values)) for bar in bars]
    for place, (bar, mean) in enumerate(zip(bars, means, strict=True)):
        several = len(bar.values) > 1
        spread = float(np.std(bar.values, ddof=1)) if several else 0.0
        axes.barh(place, mean, height=0.62, color=BEST if mean == max(means) else OTHER)
        if several:
            axes.errorbar(mean, place, xerr=spread, color="black", capsize=5, linewidth=1.3)
            axes.plot(bar.values, [place] * len(bar.values), "o", color="black", markersize=3)
        text = f"{100 * mean:.1f} %" + (f" ± {100 * spread:.1f}" if several else "")
        end = max(mean + spread, *bar.values)
        axes.annotate(text, (end, place), (8, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18)  # room for the numbers behind the longest bar
    axes.set_xticks(ticks := np.arange(0, 1.01, 0.2), [f"{100 * tick:.0f} %" for tick in ticks])
    if baseline:
        level, name = baseline
        axes.axvline(level, linestyle=":", color="black", linewidth=1.2)
        axes.annotate(
            name,
            (level, 1),
            (3, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=9,
        )
    axes.set_xlabel(label)
    axes.set_title(title, loc="left", fontsize=12, pad=18)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
