"""Which boxes learn which objects, against torchvision's and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from unmask.models import matching
from unmask.models.matching import match, sample

RULES = {"positive": 0.7, "negative": 0.3, "each_object": True}


def whole_boxes(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Of few pixels, so that many overlap equally."""
    corners = rng.integers(0, 8, (count, 2))
    return torch.from_numpy(np.hstack([corners, corners + rng.integers(1, 6, (count, 2))])).float()


@given(
    st.integers(0, 2**31),
    st.integers(1, 9),
    st.integers(1, 40),
    st.sampled_from([(0.7, 0.3), (0.5, 0.5)]),
    st.booleans(),
    st.sampled_from([1, 20, 2**23]),
)
@settings(max_examples=100, deadline=None)
def test_matches_are_torchvisions_however_many_pairs_are_looked_at_at_once(
    seed, objects, count, thresholds, each_object, at_once
):
    rng = np.random.default_rng(seed)
    truth, boxes = whole_boxes(objects, rng), whole_boxes(count, rng)
    high, low = thresholds
    theirs = Matcher(high, low, allow_low_quality_matches=each_object)(box_iou(truth, boxes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "PAIRS_AT_ONCE", at_once)
        patch.setattr(matching, "MOST_PAIRS_KEPT", 100)
        ours = match(truth, boxes, positive=high, negative=low, each_object=each_object)
    assert ours.equal(theirs)


def test_18_thousands_of_objects_are_matched_with_some_boxes_at_a_time(monkeypatch):
    """1,600 objects and the anchors of 1024 x 1024 pixels took 13 GiB."""
    seen, rng = list[int](), np.random.default_rng(0)
    truth, boxes, ignored = (whole_boxes(count, rng) for count in (50, 400, 30))

    def watched(one, other):
        seen.append(len(one) * len(other))
        return box_iou(one, other)

    monkeypatch.setattr(matching, "box_iou", watched)
    whole = match(truth, boxes, ignored=ignored, **RULES)
    assert sum(seen) == 50 * 400, "few are kept until they are looked at again"
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 1000)
    monkeypatch.setattr(matching, "MOST_PAIRS_KEPT", 1000)
    seen.clear()
    assert match(truth, boxes, ignored=ignored, **RULES).equal(whole)
    assert sum(seen) == 2 * 50 * 400
    assert max(seen) <= 1000


def test_without_objects_all_is_background():
    boxes = whole_boxes(5, np.random.default_rng(0))
    assert match(torch.zeros(0, 4), boxes, **RULES).tolist() == [-1] * 5


def test_what_lies_in_an_ignored_region_is_no_background():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [24, 0, 34, 10], [40, 0, 50, 10]])
    truth, ignored = boxes[:1], torch.tensor([[18.0, 0, 29, 10], [0, 0, 12, 12]])
    rule = {"positive": 0.5, "negative": 0.5}
    assert match(truth, boxes, ignored=ignored, **rule).tolist() == [0, -2, -2, -1]
    assert match(truth[:0], boxes, ignored=ignored[:0], **rule).tolist() == [-1, -1, -1, -1]


@pytest.mark.parametrize(
    ("positives", "negatives", "drawn"),
    [(100, 100, (4, 12)), (2, 100, (2, 14)), (100, 3, (4, 3)), (0, 0, (0, 0))],
)
def test_sampling(positives, negatives, drawn):
    matched = torch.tensor([-2, *[5] * positives, *[-1] * negatives, -2])
    found = [sample(matched, 16, 0.25, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    positive, negative = found[0]
    assert (len(positive), len(negative)) == drawn
    assert (matched[positive] == 5).all()
    assert (matched[negative] == -1).all()
    assert len(set(positive.tolist() + negative.tolist())) == sum(drawn)
    assert all(one.equal(other) for one, other in zip(found[0], found[1], strict=True))
    if positives == negatives == 100:
        assert not found[0][0].equal(found[2][0])
