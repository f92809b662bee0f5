"""Fault 18 in annotations: what they take is in proportion to their files and to one image."""

import json
import os
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faults.test_memory import memory_pages
from faults_support import PASSED, in_child
from unmask.data import masks
from unmask.data.annotations import Annotations
from unmask.data.detections import find_boxes
from unmask.data.instances import Detections
from unmask.data.masks import Polygons, pixels_of, run_lengths_of
from unmask.data.placement import Placement
from unmask.data.sources import json_members
from unmask.data.sources.class_lists import class_list
from unmask.data.sources.coco_maps import ObjectMaps
from unmask.data.sources.find import find_images
from unmask.data.sources.lists import paths_in_list
from unmask.errors import DataError
from unmask.storage import MOST_JSON, from_json
from unmask.tasks.detections import true_objects
from unmask.tasks.objects import placed

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


def test_18_training_keeps_of_each_mask_what_its_object_needs(tmp_path):
    """120 triangles of 20 x 900 pixels enlarged to 2400 x 2400, with room for 90 masks of that size."""
    objects = crowded(tmp_path, 121).instances[0]
    whole = (2400, 2400)
    placement = Placement(source=(SIDE, SIDE), resized=whole, crop=(0, 0, *whole), canvas=whole)

    def limited() -> None:
        used = memory_pages()[0] * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
        target = placed(objects, placement, masks=True)
        assert len(target["masks"]) == 121
        assert target["masks"].pixels.numel() <= 120 * 50 * 2165

    assert in_child(limited) == PASSED


def test_18_a_polygon_as_large_as_its_image_takes_little_more_than_that(monkeypatch):
    monkeypatch.setattr(masks, "AT_ONCE", 2**12)
    corners = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], dtype=np.float32)
    with at_most(5 * SIDE**2):
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
    with at_most(3 * len(text) + 250 * 6_000 * line.startswith("0 .5") + 2**18):
        parts = find_boxes((str(tmp_path),))
    odd = next(each for each in parts.findings if each.what.startswith(("lines", "boxes with")))
    assert odd.count == count
    assert len(odd.examples) == min(count, 3)


def test_18_annotations_in_cocos_format_are_read_piece_by_piece(tmp_path):
    """One value at a time is held, and one without an end is refused with its length."""
    Image.new("L", (64, 48)).save(tmp_path / "0.png")
    images = [{"id": 0, "file_name": "0.png", "height": 48, "width": 64}]
    head = json.dumps({"images": images, "categories": [{"id": 1, "name": "thing"}]})[:-1]
    objects = [{"image_id": 0, "category_id": 1, "bbox": [i, 1, 2, 2], "area": 4} for i in range(40)]
    spaces = " " * 2**18  # so that values end anywhere in a piece
    annotations = ",".join(f"{spaces[: 2**18 - i]}{json.dumps(each)}" for i, each in enumerate(objects))
    file = tmp_path / "a.json"
    file.write_text(f'{head},"annotations": [{annotations}]}}')
    with at_most(2**23):
        parts = find_boxes((str(file),))
    assert parts.training is not None
    assert parts.training.instances.boxes[:, 0].tolist() == list(range(40))


def test_18_one_value_of_gigabytes_in_cocos_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_members, "LONGEST", 2**20)
    file = tmp_path / "a.json"
    for value in ("[" + "0," * 2**20, '"' + "a" * 2**21):
        file.write_text('{"images": [], "annotations": [' + value)
        with at_most(2**26), pytest.raises(DataError, match="has more than 1 MiB, or does not end"):
            find_boxes((str(file),))


def test_18_json_of_gigabytes_is_refused():
    with pytest.raises(ValueError, match="it has 64 MiB and at most 64 MiB are read"):
        from_json(b"0" * (MOST_JSON + 1))


def test_18_lists_are_read_line_by_line(tmp_path):
    names = [f"images/{i:07}.png" for i in range(20_000)]
    (tmp_path / "a.txt").write_text("\n".join(names))
    (tmp_path / "a.csv").write_text("path\n" + "\n".join(names))
    for name in ("a.txt", "a.csv"):
        with at_most(2**18):
            assert sum(1 for _ in paths_in_list(str(tmp_path / name))) == 20_000


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_18_an_endless_line_of_a_list_is_refused(tmp_path, name):
    (tmp_path / name).write_text("path\n" + "a" * 2**24)
    with at_most(2**24), pytest.raises(DataError, match=r"of more than 4194304 characters|is not JSON"):
        find_images((str(tmp_path / name),))


def test_18_sheets_and_lists_of_classes_far_longer_than_any_are_refused(tmp_path):
    sheet, classes = tmp_path / "a.xml", tmp_path / "classes.txt"
    for file, start in ((sheet, "<annotation>"), (classes, "cat\n")):
        file.write_text(start)
        os.truncate(file, 2**25)
    with pytest.raises(DataError, match="has 33554432 bytes and at most 16777216 are read"):
        find_boxes((str(tmp_path),))
    with pytest.raises(DataError, match="has 33554432 bytes and at most 16777216 are read"):
        class_list(str(classes))
