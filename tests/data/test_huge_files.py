"""Files that are larger than what they hold can need: sparse here, so that they take no room."""

import os
import tracemalloc
from pathlib import Path

import pytest

from unmask.data.detections import find_boxes
from unmask.data.labels import find_labelled
from unmask.data.sources.find import find_images
from unmask.errors import DataError

HUGE = 2**33


@pytest.fixture(autouse=True)
def small_peak():
    """Nothing may allocate what such a file holds."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**26


def sparse(path: Path, start: bytes, size: int = HUGE) -> str:
    """A file that begins so and goes on with zeros."""
    path.write_bytes(start)
    os.truncate(path, size)
    return str(path)


def test_annotations_in_huge_files_are_refused(tmp_path):
    file = sparse(tmp_path / "instances.json", b'{"images": [], "annotations": [')
    with pytest.raises(
        DataError, match=r"instances\.json cannot be read: it has 8589934592 bytes and at"
    ):
        find_boxes((file,))


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl"])
def test_huge_lists_are_refused(tmp_path, name):
    file = sparse(tmp_path / name, b"path,label\n")
    for find in (find_images, find_labelled):
        with pytest.raises(
            DataError, match=rf"{name} cannot be read: it has 8589934592 bytes and at most"
        ):
            find((file,))
