"""Fault 18 in annotations: what they take is in proportion to their files and to one image."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.data.annotations import Annotations
from unmask.data.detections import find_boxes
from unmask.data.instances import Detections
from unmask.data.masks import Polygons, pixels_of, run_lengths_of
from unmask.data.sources.coco_maps import ObjectMaps
from unmask.tasks.detections import true_objects

SIDE = 1000


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Fails if what is allocated inside ever exceeds so many bytes."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size, f"{peak / 2**20:.0f} MiB"


def crowded(folder: Path, count: int) -> Detections:
    """An image of so many triangles, the last of them without a mask."""
    path = str(folder / "a.png")
    Image.new("L", (SIDE, SIDE)).save(path)
    collected = Annotations("a test")
    collected.add_image(0, path, (SIDE, SIDE), 0)
    for i in range(count):
        corners = np.array([[i, 0], [i + 20, 0], [i + 20, 900]], dtype=np.float32)
        mask = None if i == count - 1 else Polygons(rings=(corners,))
        collected.add_object(0, (i, 0, i + 20, 900), 0, crowd=False, mask=mask)
    return collected.finished("a", ["thing"], [1])


def test_18_masks_of_many_objects_are_drawn_one_at_a_time(tmp_path):
    """Together these would take 60 times the image."""
    data = crowded(tmp_path, 60)
    with at_most(24 * SIDE**2):
        truth = true_objects(data.instances[0], (SIDE, SIDE), masks=True)
        maps = ObjectMaps(detections=data, labels=np.array([1]), background=0)
        drawn = maps(0)
    wanted = [data.instances[0].pixels(i, (SIDE, SIDE)).sum() for i in range(59)]
    assert truth.areas.tolist() == [*wanted, 20 * 900]
    assert truth.masks is not None
    assert len(truth.masks) == 60
    assert np.unique(drawn).tolist() == [0, 1, 255]


def test_18_a_polygon_as_large_as_its_image_takes_little_more_than_that():
    corners = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], dtype=np.float32)
    with at_most(4 * SIDE**2 + 2**24):  # and what the pieces of an outline take
        assert pixels_of(Polygons(rings=(corners,)), (SIDE, SIDE)).all()


def test_18_run_lengths_of_single_pixels_take_little_more_than_those():
    board = np.arange(SIDE**2).reshape(SIDE, SIDE).T % 2 == 1
    lengths = run_lengths_of(board)
    assert len(lengths.counts) == SIDE**2
    with at_most(12 * SIDE**2):
        assert np.array_equal(pixels_of(lengths, (SIDE, SIDE)), board)


@pytest.mark.parametrize("line", ["bad", "0 .5 .5 .5 .5 .9", "0" + " .1" * 2_000_000], ids=len)
def test_18_odd_lines_of_yolo_are_counted_not_kept(tmp_path, line):
    count = max(1, 100_000 // len(line))
    Image.new("L", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "classes.txt").write_text("thing\n")
    text = "0 .5 .5 .5 .5\n" + f"{line}\n" * count
    (tmp_path / "a.txt").write_text(text)
    with at_most(3 * len(text) + 200 * 6_000 * line.startswith("0 .5") + 2**22):
        parts = find_boxes((str(tmp_path),))
    odd = next(each for each in parts.findings if each.what.startswith(("lines", "boxes with")))
    assert odd.count == count
    assert len(odd.examples) == min(count, 3)
