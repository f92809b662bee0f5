import math

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from unmask.tasks.classify import Finetune
from unmask.tasks.pretrain import Pretrain
from unmask.viz import curves
from unmask.viz.curves import smoothed, training_curves


def records(n=30):
    return [
        {
            "step": step,
            "epoch": step / 10,
            "loss": 1 / (1 + step),
            "lr": 1e-3 * step / n,
            "grad_norm": 1.0 + step % 3,
            "images_per_second": 100.0,
        }
        for step in range(n)
    ]


@pytest.fixture
def panels(monkeypatch):
    """The axes that get drawn, by label."""
    seen, draw = {}, curves._draw

    def spy(axes, panel, recorded):
        draw(axes, panel, recorded)
        seen[panel.key] = axes

    monkeypatch.setattr(curves, "_draw", spy)
    return seen


def is_clipped(picture):
    pixels = np.asarray(picture)
    edges = pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]
    return any((edge != 255).any() for edge in edges)


def test_each_recorded_quantity_gets_a_labelled_panel(panels):
    picture = training_curves(records())
    assert list(panels) == ["loss", "lr", "grad_norm"]
    assert all(axes.get_xlabel() == "step" and axes.get_ylabel() for axes in panels.values())
    loss = panels["loss"].lines[0]
    assert list(loss.get_xdata()) == list(range(30))
    assert list(loss.get_ydata()) == [1 / (1 + step) for step in range(30)]
    assert picture.mode == "RGB"
    assert not is_clipped(picture)


def test_a_wide_range_is_logarithmic_and_a_narrow_one_is_not(panels):
    training_curves(records())
    assert panels["loss"].get_yscale() == "log"
    assert panels["grad_norm"].get_yscale() == "linear"
    training_curves([{"step": 0, "loss": 0.0}, {"step": 1, "loss": 50.0}])
    assert panels["loss"].get_yscale() == "linear"


def test_the_held_out_ratio_is_drawn_where_it_was_measured_beside_harmonic_fill(panels):
    some = records()
    some[9]["held_out/ratio"], some[19]["held_out/ratio"] = 1.4, 0.8
    picture = training_curves(some, Pretrain.metrics)
    ratio, harmonic = panels["held_out/ratio"].lines
    assert list(ratio.get_xdata()) == [9, 19]
    assert list(harmonic.get_ydata()) == [1.0, 1.0]
    assert harmonic.get_linestyle() == ":"
    assert panels["held_out/ratio"].get_legend().get_texts()[0].get_text() == "harmonic fill"
    assert not is_clipped(picture)


def test_values_that_are_not_finite_are_counted_and_not_drawn(panels):
    some = records(5)
    some[1]["loss"], some[2]["loss"], some[3]["loss"] = math.nan, math.inf, None
    training_curves(some)
    assert list(panels["loss"].lines[0].get_xdata()) == [0, 4]
    assert panels["loss"].get_title() == "not drawn because not finite: 3"
    assert panels["lr"].get_title() == ""


@pytest.mark.parametrize(
    "some",
    [
        [],
        [{}],
        [{"epoch": 1.0, "loss": 2.0}],
        [{"step": 3}],
        [{"step": 3, "loss": 0.5}],
        [{"step": 3, "loss": math.nan}],
        [{"step": 0, "loss": 1.0}, {"step": 1, "lr": 0.1}, {"step": 2, "held_out/ratio": 1.1}],
        [{"step": 10**7 + i, "loss": 1e30 * 10.0**-i, "lr": 1e-9} for i in range(30)],
    ],
)
def test_scarce_records_draw_without_a_crash(some):
    assert not is_clipped(training_curves(some, Pretrain.metrics))


def test_a_single_value_is_visible():
    nothing, point = (
        training_curves([{"step": 3, "loss": math.nan}]),
        training_curves([{"step": 3, "loss": 0.5}]),
    )
    blue = [31, 119, 180]
    assert [bool((np.asarray(p) == blue).all(axis=-1).any()) for p in (nothing, point)] == [False, True]


def test_noisy_curves_are_smoothed_over_the_faint_raw_one(panels):
    some = records(100)
    training_curves(some)
    raw, smooth = panels["grad_norm"].lines
    assert list(raw.get_ydata()) == [1.0 + step % 3 for step in range(100)]
    assert raw.get_alpha() < 0.5
    assert smooth.get_ydata()[2:-2].std() < 0.5 * raw.get_ydata().std()
    assert len(panels["lr"].lines) == 1, "a schedule has no noise"


def test_smoothing_keeps_lines_and_length():
    line = 0.5 + 2 * np.arange(100)
    assert smoothed(line) == pytest.approx(line)
    assert smoothed([3.0]).tolist() == [3.0]
    assert smoothed([3.0, 4.0]).tolist() == [3.0, 4.0]


def test_the_last_value_does_not_decide_how_a_curve_ends():
    noisy = np.where(np.arange(1000) % 2, 1.0, 3.0)
    assert smoothed(noisy) == pytest.approx(np.full(1000, 2.0), abs=0.25)


def test_accuracy_has_error_bars_and_a_range_around_it(panels):
    measured = {"val/images": 100, "val/commonest_class": 0.8}
    some = [{"step": i, "val/top1": 0.9, **measured} for i in range(3)]
    training_curves(some, Finetune.metrics)
    axes = panels["val/top1"]
    (bars,) = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    (segments,) = bars.lines[2]
    low, high = segments.get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.87, 0.93)), "the standard error of 0.9 of 100 images"
    bottom, top = axes.get_ylim()
    assert 0.7 < bottom < 0.8
    assert 0.93 < top < 1.0
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["the majority class"]
    assert axes.yaxis.get_major_formatter()(0.8).startswith("80")


def test_accuracy_that_hardly_changes_does_not_fill_its_axis(panels):
    training_curves([{"step": i, "val/top1": 0.9 + i * 1e-4} for i in range(3)], Finetune.metrics)
    bottom, top = panels["val/top1"].get_ylim()
    assert top - bottom >= 0.0999
