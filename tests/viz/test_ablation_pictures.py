"""The chart of an ablation, and outputs for the same images."""

import math

import numpy as np

from unmask.viz.ablation import Panel, ablation_chart, output_sheet
from unmask.viz.reconstruction import Views

NAMES = ("random", "block", "grid")


def chart(*points):
    return np.asarray(ablation_chart(NAMES, [Panel(label="accuracy", points=points)], "mask sampling"))


def coloured(picture) -> int:
    """Pixels that are not grey: the markers and error bars of these runs."""
    return int((np.ptp(picture.astype(int), axis=2) > 40).sum())


def test_error_bars_appear_with_a_spread():
    alone, several = chart([0.7], [0.6], [0.5]), chart([0.7, 0.8], [0.6, 0.65], [0.5, 0.6])
    assert alone.shape == several.shape
    assert coloured(several) > coloured(alone) > 0


def test_what_is_not_measured_is_left_out():
    nothing = chart([math.nan], [], [math.nan, math.nan])
    assert coloured(nothing) == 0
    assert coloured(chart([0.7], [], [math.nan])) > 0


def test_the_papers_panel_is_grey():
    panel = Panel(label="accuracy", points=[[0.84], [0.82], []], is_share=True, from_paper=True)
    assert coloured(np.asarray(ablation_chart(NAMES, [panel], "mask sampling"))) == 0


def test_panels_share_rows():
    panels = [Panel(label=str(i), points=[[i], [i], [i]]) for i in range(7)]
    one = ablation_chart(NAMES, panels[:4], "x")
    assert ablation_chart(NAMES, panels, "x").size == (one.width, 2 * one.height)


def test_outputs_stand_beside_what_was_seen():
    def views(level):
        tiles = [np.full((2, 16, 16, 3), level + i, np.uint8) for i in range(4)]
        return Views(*tiles)

    sheet = np.asarray(output_sheet(NAMES, [views(10), views(60), views(110)]))
    present = set(np.unique(sheet.reshape(-1, 3), axis=0)[:, 0].tolist())
    assert {10, 11, 12, 61, 62, 111, 112} <= present
    assert not {13, 60, 63, 110, 113} <= present
