"""Pictures of detections show what they should, and nothing breaks without objects."""

import numpy as np
import pytest
import torch

from unmask.evals.detection import average_precision
from unmask.evals.objects import FoundObjects, TrueObjects, encode
from unmask.viz.detections import (
    SIDE,
    Case,
    beside_truth_sheet,
    objects_figure,
    objects_statistics_figure,
    precision_recall_figure,
    worst_cases_sheet,
)

NAMES = ("cat", "a dog with quite a long name that is cut", "")
SIZE = (40, 60)
BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


def case(
    there=((5, 8, 25, 30), (30, 5, 50, 20)),
    seen=((5, 8, 25, 30), (2, 20, 12, 39)),
    scores=(0.9, 0.6),
    size=SIZE,
) -> Case:
    def boxes(given):
        return torch.tensor(given, dtype=torch.float32).reshape(-1, 4)

    def masks(given):
        made = torch.zeros(len(given), *size, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(made, given, strict=True):
            mask[top:bottom, left:right] = True
        return encode(made)

    labels = torch.arange(len(there)) % 3
    truth = TrueObjects(
        size=size,
        boxes=boxes(there),
        labels=labels,
        crowd=torch.zeros(len(there), dtype=torch.bool),
        areas=torch.tensor([(r - x) * (b - y) for x, y, r, b in there]).float(),
        masks=masks(there),
    )
    found = FoundObjects(
        size=size,
        boxes=boxes(seen),
        labels=torch.arange(len(seen)) % 3,
        scores=torch.tensor(scores),
        masks=masks(seen),
    )
    return Case(picture=np.zeros((*size, 3), np.uint8), truth=truth, found=found)


NOTHING = {"there": (), "seen": (), "scores": ()}


def test_boxes_and_masks_stand_where_they_should():
    given = case()
    plain = np.asarray(objects_figure(given.picture, given.truth, NAMES))
    assert plain.shape == (*SIZE, 3)
    assert tuple(plain[29, 5]) == BLUE
    assert tuple(plain[20, 50]) == ORANGE
    inside = plain[25, 15].astype(int)
    assert np.abs(inside - 0.45 * np.array(BLUE)).max() <= 1
    assert not plain[38, 55].any()
    large = np.asarray(objects_figure(given.picture, given.found, NAMES, side=240))
    assert large.shape == (160, 240, 3)
    assert tuple(large[29 * 4, 5 * 4]) == BLUE


def test_many_objects_have_frames_and_no_words():
    """Which would cover all of them."""
    places = [(x, y, x + 4, y + 4) for x in range(0, 60, 6) for y in range(0, 36, 6)]

    def drawn(count):
        given = case(there=places[:count])
        return [objects_figure(given.picture, given.truth, names) for names in ("abc", "xyz")]

    few, many = drawn(10), drawn(60)
    assert not np.array_equal(*map(np.asarray, few))
    assert np.array_equal(*map(np.asarray, many))
    pixels = np.asarray(many[0])
    assert all(pixels[y, x].any() and not pixels[y, x + 5].any() for x, y, _, _ in places)


def test_a_crowd_is_named():
    given = case().truth
    crowd = TrueObjects(**{**vars(given), "crowd": torch.tensor([True, False])})
    one, other = (
        np.asarray(objects_figure(np.zeros((*SIZE, 3), np.uint8), t, NAMES, side=300))
        for t in (given, crowd)
    )
    assert (one != other).any()


def test_crowds_are_not_counted_as_objects():
    given, one = case().truth, case(there=((5, 8, 25, 30),)).truth
    with_crowd = TrueObjects(**{**vars(given), "crowd": torch.tensor([False, True])})
    drawn = objects_statistics_figure([with_crowd], NAMES), objects_statistics_figure([one], NAMES)
    assert np.array_equal(*map(np.asarray, drawn))


def test_what_is_ignored_whatever_its_class_has_no_name():
    """Such regions are a crowd of each class."""
    given, box = case(), (5, 8, 25, 30)
    for there, is_named in (((box,), True), ((box, box), False)):
        truth = case(there=there).truth
        truth = TrueObjects(**{**vars(truth), "crowd": torch.ones(len(there), dtype=torch.bool)})
        drawn = [objects_figure(given.picture, truth, names) for names in (("a", "b"), ("c", "d"))]
        assert np.array_equal(*map(np.asarray, drawn)) != is_named


def test_truth_beside_detections():
    sheet = beside_truth_sheet([case(), case(size=(70, 30), **NOTHING), case()], NAMES)
    assert sheet.width >= 4 * SIDE
    assert sheet.height >= 2 * SIDE
    pair = beside_truth_sheet([case()], NAMES, score=0.95)
    assert 2 * SIDE <= pair.width < 3 * SIDE
    assert beside_truth_sheet([], NAMES).width > 0


def test_worst_cases():
    both = worst_cases_sheet([case(), case()], NAMES)
    only_missed = worst_cases_sheet([case(seen=(), scores=())], NAMES)
    assert both.height > only_missed.height
    assert worst_cases_sheet([case(**NOTHING)], NAMES).width > 0
    assert worst_cases_sheet([case()] * 9, NAMES, count=3).width < both.width + SIDE


@pytest.mark.parametrize("cases", [[case()] * 3, [case(seen=(), scores=())], [case(**NOTHING)]])
def test_curves_and_statistics(cases):
    truth = [c.truth for c in cases]
    precision = average_precision(truth, [c.found for c in cases], NAMES, "masks")
    picture = precision_recall_figure(precision, NAMES)
    assert picture.width > picture.height
    assert objects_statistics_figure(truth, NAMES).width > 900
