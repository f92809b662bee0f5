"""The reliability diagram of a classifier."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from unmask.evals.classification import Calibration


def reliability_figure(calibration: Calibration) -> Image.Image:
    """Accuracy by confidence, the diagonal of perfect calibration, and the number of images."""
    padded = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)
    figure = Figure(figsize=(5, 5.6), dpi=110, layout=padded)
    canvas = FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    count = calibration.count.numpy()
    width = 1 / len(count)
    middles = (np.arange(len(count)) + 0.5) * width
    accuracy = calibration.accuracy.nan_to_num(0.0).numpy()
    upper.bar(middles, accuracy, width * 0.92, color="tab:blue", alpha=0.6, label="accuracy")
    filled = count > 0
    confidence = calibration.confidence.numpy()
    dots = {"color": "tab:blue", "markersize": 4, "clip_on": False}
    for line in upper.plot(confidence[filled], accuracy[filled], "o", **dots):
        line.set_in_layout(False)  # an empty line would take all the room
    upper.plot([0, 1], [0, 1], linestyle=":", color="black", label="perfect calibration")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.legend(loc="upper left")
    error = f"{100 * calibration.error:.1f} %" if filled.any() else "none"
    upper.set_title(f"expected calibration error {error}, {count.sum()} images", fontsize=11)
    lower.bar(middles, count, width * 0.92, color="0.6")
    most = 1.05 * max(1, int(count.max()))
    lower.set(xlabel="probability of the predicted class", ylabel="images", ylim=(0, most))
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
