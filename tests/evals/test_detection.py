"""Average precision equals pycocotools'; matching, results and tiles by hand."""

import contextlib
import copy
import io
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from pycocotools import mask as their_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from unmask.evals.detection import (
    average_precision,
    coco_found,
    coco_truth,
    matches,
    recall_at,
)
from unmask.evals.objects import (
    FoundObjects,
    TrueObjects,
    coco_results,
    decode,
    encode,
    found_objects,
    merge_tiles,
    tile_corners,
)

CLASSES = ("cat", "dog", "cup", "never there")
SIZE = (230, 250)


def boxes(rng: np.random.Generator, count: int) -> torch.Tensor:
    corner = rng.uniform(0, 100, (count, 2))
    side = rng.choice([6.0, 25.0, 60.0, 125.0], (count, 2)) * rng.uniform(0.8, 1.2, (count, 2))
    high = np.minimum(corner + side, [SIZE[1], SIZE[0]])
    return torch.from_numpy(np.concatenate([corner, high], axis=1)).float()


def ellipses(around: torch.Tensor) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    left, top, right, bottom = (c[:, None, None] for c in around.unbind(1))
    down, across = (
        (y - (top + bottom) / 2) / (bottom - top) * 2,
        (x - (left + right) / 2) / (right - left) * 2,
    )
    return down**2 + across**2 <= 1


def an_image(seed: int, *, objects: int, detections: int) -> tuple[TrueObjects, FoundObjects]:
    """Objects, some of them crowds, and detections near them or anywhere, with tied scores."""
    rng = np.random.default_rng(seed)
    there = boxes(rng, objects)
    masks = ellipses(there)
    truth = TrueObjects(
        size=SIZE,
        boxes=there,
        labels=torch.from_numpy(rng.integers(0, 3, objects)),
        crowd=torch.from_numpy(rng.random(objects) < 0.2),
        areas=masks.sum(dim=(1, 2)).float(),
        masks=encode(masks),
    )
    seen, labels = boxes(rng, detections), torch.from_numpy(rng.integers(0, 3, detections))
    for i in range(detections):
        if objects and rng.random() < 0.6:
            which = rng.integers(objects)
            shift = torch.from_numpy(rng.normal(0, 3, 4)).float()
            seen[i], labels[i] = there[which] + shift, truth.labels[which]
    seen[:, 2:] = torch.maximum(seen[:, 2:], seen[:, :2] + 2)
    scores = torch.from_numpy(rng.random(detections)).float().mul(20).round() / 20
    found = FoundObjects(
        size=SIZE, boxes=seen, labels=labels, scores=scores, masks=encode(ellipses(seen))
    )
    return truth, found


def everything_odd() -> tuple[list[TrueObjects], list[FoundObjects]]:
    """No objects, no detections, neither, and more detections than count."""
    counts = [(5, 9), (0, 6), (4, 0), (0, 0), (12, 160), (1, 1), (30, 60)]
    pairs = [an_image(i, objects=g, detections=n) for i, (g, n) in enumerate(counts)]
    return [t for t, _ in pairs], [f for _, f in pairs]


def pycocotools(truth, found, kind: str) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        there = COCO()
        there.dataset = copy.deepcopy(coco_truth(truth, len(CLASSES)))
        there.createIndex()
        run = COCOeval(there, there.loadRes(copy.deepcopy(coco_found(found))), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


@pytest.mark.parametrize(("kind", "theirs"), [("boxes", "bbox"), ("masks", "segm")])
def test_average_precision_equals_pycocotools(kind, theirs):
    truth, found = everything_odd()
    expected = pycocotools(truth, found, theirs)
    ours = average_precision(truth, found, CLASSES, kind)
    numbers = [ours.ap, ours.ap50, ours.ap75, ours.small, ours.medium, ours.large]
    assert numbers == pytest.approx(expected.stats[:6].tolist(), abs=1e-6)
    assert ours.recall == pytest.approx(expected.stats[8], abs=1e-6)
    assert 0.05 < ours.ap < 0.9
    precision = expected.eval["precision"][..., 0, -1]
    for k, name in enumerate(CLASSES[:3]):
        assert ours.per_class[name] == pytest.approx(precision[..., k].mean(), abs=1e-6)
        assert ours.per_class50[name] == pytest.approx(precision[0, :, k].mean(), abs=1e-6)
        np.testing.assert_allclose(ours.curves[..., k], precision[..., k], atol=1e-6)
    assert math.isnan(ours.per_class["never there"])
    assert recall_at(truth, found, CLASSES, kind, 0.5) == pytest.approx(
        expected.eval["recall"][0, :3, 0, -1].mean(), abs=1e-6
    )
    assert recall_at(truth, found, CLASSES, kind, 0.4) >= recall_at(truth, found, CLASSES, kind, 0.5)


def test_nothing_found_and_nothing_there():
    truth, _ = everything_odd()
    nothing = [an_image(0, objects=0, detections=0)[1]] * len(truth)
    assert average_precision(truth, nothing, CLASSES, "boxes").ap == 0
    empty = [an_image(0, objects=0, detections=0)[0]] * 2
    assert math.isnan(average_precision(empty, everything_odd()[1][:2], CLASSES, "boxes").ap)
    assert math.isnan(average_precision(empty, nothing[:2], CLASSES, "masks").ap50)


def test_everything_found_is_perfect():
    truth = [an_image(i, objects=5, detections=0)[0] for i in range(3)]
    found = [
        FoundObjects(size=t.size, boxes=t.boxes, labels=t.labels, scores=torch.ones(5), masks=t.masks)
        for t in truth
    ]
    for kind in ("boxes", "masks"):
        assert average_precision(truth, found, CLASSES, kind).ap == pytest.approx(1.0)


def test_codes_are_pycocotools_and_come_back():
    masks = ellipses(boxes(np.random.default_rng(0), 4))
    codes = encode(masks)
    assert decode(codes, SIZE).equal(masks)
    their = their_masks.encode(np.asfortranarray(masks[0].numpy().astype(np.uint8)))
    assert codes[0]["counts"] == their["counts"].decode()
    assert decode((), SIZE).shape == (0, *SIZE)
    assert encode(masks[:0]) == ()


def record(boxes, labels, scores=None, size=(100, 100), crowd=None):
    given = {"boxes": torch.tensor(boxes).float().reshape(-1, 4), "labels": torch.tensor(labels).long()}
    if scores is not None:
        return FoundObjects(size=size, scores=torch.tensor(scores).float(), **given)
    crowd = torch.tensor(crowd or [False] * len(labels), dtype=torch.bool)
    return TrueObjects(size=size, crowd=crowd, areas=torch.ones(len(labels)), **given)


def test_matches():
    truth = record(
        [[0, 0, 10, 10], [20, 20, 40, 40], [60, 60, 99, 99]], [0, 1, 0], crowd=[False, False, True]
    )
    found = record(
        [[0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 40, 40], [70, 70, 80, 80], [5, 50, 9, 60]],
        [0, 0, 0, 0, 1],
        [0.5, 0.9, 0.8, 0.7, 0.6],
    )
    result = matches(truth, found)
    assert result.object_of.tolist() == [-1, 0, -1, -2, -1]
    assert result.missed.tolist() == [False, True, False]
    assert matches(record([], []), found).object_of.tolist() == [-1] * 5
    assert matches(truth, record([], [], [])).missed.tolist() == [True, True, False]


def test_a_detection_on_the_images_own_pixels():
    detection = {
        "boxes": torch.tensor([[10.0, 20, 30, 40]]),
        "labels": torch.tensor([1]),
        "scores": torch.tensor([0.75]),
        "masks": torch.full((1, 28, 28), 9.0),
    }
    found = found_objects(detection, seen=(50, 60), size=(100, 180))
    assert found.boxes.tolist() == [[30, 40, 90, 80]]
    mask = decode(found.masks, (100, 180))[0]
    assert mask[40:80, 30:90].all()
    assert mask.sum() == 40 * 60
    row = coco_results(found, image_id=7, category_ids=[3, 5])[0]
    assert row["bbox"] == [30, 40, 60, 40]
    assert (row["image_id"], row["category_id"], row["score"]) == (7, 5, 0.75)
    assert their_masks.area(row["segmentation"]) == 40 * 60


def test_tiles_are_merged():
    """Two tiles of 60 columns that share 20."""
    left = record(
        [[45, 10, 60, 30], [2, 2, 20, 20], [42, 50, 55, 70]], [0, 0, 1], [0.9, 0.6, 0.5], (100, 60)
    )
    right = record(
        [[5, 10, 35, 30], [2, 50, 15, 70], [3, 51, 14, 69]], [0, 1, 0], [0.7, 0.8, 0.4], (100, 60)
    )
    whole = merge_tiles([left, right], [(0, 0), (0, 40)], (100, 100))
    assert whole.boxes.tolist() == [[42, 50, 55, 70], [45, 10, 75, 30], [2, 2, 20, 20], [43, 51, 54, 69]]
    assert whole.labels.tolist() == [1, 0, 0, 0]
    assert whole.scores.tolist() == pytest.approx([0.8, 0.7, 0.6, 0.4])
    assert whole.size == (100, 100)


def test_masks_of_tiles_move_too():
    mask = torch.zeros(1, 10, 12, dtype=torch.bool)
    mask[0, 2:5, 3:9] = True
    tile = FoundObjects(
        size=(10, 12),
        boxes=torch.tensor([[3.0, 2, 9, 5]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([0.5]),
        masks=encode(mask),
    )
    whole = merge_tiles([tile], [(20, 30)], (50, 60))
    assert whole.boxes.tolist() == [[33, 22, 39, 25]]
    placed = decode(whole.masks, (50, 60))[0]
    assert placed[22:25, 33:39].all()
    assert placed.sum() == mask.sum()


@pytest.mark.parametrize("size", [(100, 130), (64, 64), (30, 65), (65, 300)])
def test_tiles_cover_an_image_and_overlap(size):
    corners = tile_corners(size, (64, 64), 16)
    covered = torch.zeros(size, dtype=torch.int)
    for top, left in corners:
        covered[top : top + 64, left : left + 64] += 1
        assert top + 64 <= max(64, size[0])
        assert left + 64 <= max(64, size[1])
    assert covered.min() >= 1
    assert len(set(corners)) == len(corners)
    lefts = sorted({left for _, left in corners})
    assert all(b - a <= 48 for a, b in pairwise(lefts))


def test_tiles_that_never_end():
    with pytest.raises(ValueError, match="give less than 64"):
        tile_corners((100, 100), (64, 80), 64)
