"""One setting at several values: what it came to as a chart, and outputs for the same images (paper,
Fig. 5 to 7)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from unmask.viz.reconstruction import Views
from unmask.viz.tiles import Sheet, Tile, draw

PANELS_IN_A_ROW = 4
OURS, THEIRS = "tab:blue", "tab:gray"
ROTATED_FROM = 9
"""Characters of a value's name from which names are written at an angle."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One quantity; `points` are its values over seeds, by the value of the setting."""

    label: str
    points: Sequence[Sequence[float]]
    is_share: bool = False
    """Shown in per cent."""
    from_paper: bool = False


def ablation_chart(names: Sequence[str], panels: Sequence[Panel], xlabel: str) -> Image.Image:
    """Mean and standard deviation over seeds at each value, every run as a small dot.

    Values stand in their order, at equal distances; those that are not finite are left out.
    """
    rows = max(1, -(-len(panels) // PANELS_IN_A_ROW))
    columns = min(PANELS_IN_A_ROW, max(1, len(panels)))
    padded = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)
    figure = Figure(figsize=(3.6 * columns, 3.2 * rows), dpi=110, layout=padded)
    canvas = FigureCanvasAgg(figure)
    for i, panel in enumerate(panels):
        _draw(figure.add_subplot(rows, columns, i + 1), names, panel, xlabel)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def output_sheet(names: Sequence[str], views: Sequence[Views], footnote: str = "") -> Image.Image:
    """Each image, and for each value what its model saw of it and what it made of that (Fig. 6).

    Args:
        names: of the values.
        views: of each value, the same images.
    """
    rows: list[list[Tile | None]] = [
        [original, *(tile for one in views for tile in (one.masked[b], one.reconstruction[b]))]
        for b, original in enumerate(views[0].original)
    ]
    headings = ["original", *(text for name in names for text in (name, "output"))]
    return draw(Sheet(rows=rows, headings=headings, footnote=footnote))


def _draw(axes: Axes, names: Sequence[str], panel: Panel, xlabel: str) -> None:
    scale = 100 if panel.is_share else 1
    found = [[scale * v for v in values if math.isfinite(v)] for values in panel.points]
    places = [i for i, values in enumerate(found) if values]
    means = [float(np.mean(found[i])) for i in places]
    spreads = [float(np.std(found[i], ddof=1)) if len(found[i]) > 1 else math.nan for i in places]
    colour = THEIRS if panel.from_paper else OURS
    axes.errorbar(places, means, yerr=spreads, fmt="o", color=colour, capsize=5, markersize=7)
    for i in places:
        if len(found[i]) > 1:
            axes.plot([i] * len(found[i]), found[i], ".", color="black", alpha=0.45, markersize=5)
    axes.set_xlim(-0.5, len(names) - 0.5)
    angled = max(map(len, names)) >= ROTATED_FROM or len(names) > 6
    axes.set_xticks(range(len(names)), names)
    if angled:
        for text in axes.get_xticklabels():
            text.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(f"{panel.label}, %" if panel.is_share else panel.label)
    axes.set_title("paper: ViT-L, ImageNet-1K" if panel.from_paper else "these runs", fontsize=9)
    axes.margins(y=0.2)
    axes.grid(alpha=0.3, axis="y")
    axes.spines[["top", "right"]].set_visible(False)
