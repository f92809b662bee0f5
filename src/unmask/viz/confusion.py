"""Which classes a classifier takes for which.

Legend: K classes.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from torch import Tensor

from unmask.viz.words import one_line, percent

DPI = 110
NUMBERED, NAMED = 20, 110
"""Most classes with numbers in their cells, and with a name for each."""
NAME_LENGTH = 24
LANDMARKS = 20
"""Classes that are named if there are too many to name all."""
MOST_PIXELS = 2000
TICKS = (0, 0.01, 0.1, 0.25, 0.5, 1)


def confusion_figure(
    confusion: Int[Tensor, "K K"], names: Sequence[str], *, counted: str = "images"
) -> Image.Image:
    """Draws counts by true class (row) and predicted class (column), coloured by the row's share.

    With many classes the numbers are left out, then most of the names. `counted` says what the counts
    are of.
    """
    counts = confusion.cpu().numpy()
    K, total = len(names), int(counts.sum())
    side, font = _side(K), 9 if K <= NUMBERED else 6.5
    margin = NAME_LENGTH * 0.6 * font / 72 + 0.9
    padded = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)
    figure = Figure(figsize=(side + margin + 0.9, side + margin), dpi=DPI, layout=padded)
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    faint = PowerNorm(0.5 if K <= NAMED else 0.3, vmin=0, vmax=1)  # small cells need stronger colours
    picture = axes.imshow(shares, cmap="Blues", norm=faint, interpolation_stage="data")
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, aspect=35, ticks=TICKS, pad=0.02)
    bar.ax.set_yticklabels([percent(tick) for tick in bar.get_ticks()], fontsize=9)
    bar.set_label(f"share of the true class's {counted}")
    _label(axes, names, font)
    if K <= NUMBERED:
        _number(axes, counts, shares)
    accuracy = f"{np.trace(counts) / total:.1%}" if total else "none"
    axes.set_title(f"{total} {counted}, {accuracy.replace('%', ' %')} right", fontsize=11)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a box stands for what the font lacks
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _side(classes: int) -> float:
    """Inches: room for numbers, then for names, then a pixel for each cell."""
    if classes <= NUMBERED:
        return max(2.4, 0.55 * classes)
    return max(0.13 * classes, 6) if classes <= NAMED else min(max(1000, classes), MOST_PIXELS) / DPI


def _label(axes: Axes, names: Sequence[str], font: float) -> None:
    K = len(names)
    step = 1 if K <= NAMED else -(-K // LANDMARKS)
    places = range(0, K, step)
    labels = [one_line(names[i], NAME_LENGTH) for i in places]
    if step > 1:
        labels, font = [f"{i} {label}" for i, label in zip(places, labels, strict=True)], 9
    axes.set_yticks(places, labels, fontsize=font, parse_math=False)
    axes.set_xticks(places, labels, fontsize=font, parse_math=False, rotation=90)
    if K <= NUMBERED:
        axes.tick_params("x", rotation=45)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_ylabel("true class")
    axes.set_xlabel("predicted class")


def _number(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        share = float(shares[row, column])
        text = f"{_short(count)}\n{percent(share)}" if count else "0"
        colour = "white" if share > 0.4 else "black" if count else "0.6"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def _short(count: int) -> str:
    """Five characters at most, as pixels are many: 99999, 123k, 1.2M, 46M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= max(size, 10**5):
            return f"{count / size:.{1 if count < 10 * size else 0}f}{unit}"
    return str(count)
