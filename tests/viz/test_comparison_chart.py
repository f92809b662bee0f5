"""Several methods as bars."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from unmask.viz import comparison
from unmask.viz.comparison import Bar, comparison_chart


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    made = []

    def figure(*args, **options):
        made.append(Figure(*args, **options))
        return made[-1]

    monkeypatch.setattr(comparison, "Figure", figure)
    return made


def test_bars(figures):
    bars = [Bar("probe on pixels", (0.74,)), Bar("fine-tuned", (0.88, 0.9, 0.92))]
    picture = comparison_chart(bars, title="Digits", label="accuracy", baseline=(0.1, "always '3'"))
    assert picture.mode == "RGB"
    (axes,) = figures[0].axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.74, 0.9])
    assert [label.get_text() for label in axes.get_yticklabels()] == [bar.name for bar in bars]
    assert [text.get_text() for text in axes.texts] == ["74.0 %", "90.0 % ± 2.0", "always '3'"]
    assert axes.yaxis_inverted(), "the first stands above"
    assert len(axes.containers) == 3, "two bars, and the error bar of the one with seeds"
    assert axes.get_xlim()[0] == 0
    assert np.asarray(picture).min() < 50


def test_one_colour_stands_out(figures):
    comparison_chart([Bar("a", (0.9,)), Bar("b", (0.5,))], title="", label="")
    colours = [bar.get_facecolor() for bar in figures[0].axes[0].patches]
    assert colours[0] != colours[1]
