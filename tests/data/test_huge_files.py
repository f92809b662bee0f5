"""Files that are larger than what they hold can need: sparse here, so that they take no room."""

import io
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.makers import RGB, reason, values, write_png
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


def png(path: Path, size: int) -> bytes:
    """Sixteen bits of colours, and a chunk of zeros before their end so that the file is so large."""
    write_png(path, np.full((4, 5, 3), 999, dtype=np.uint16), RGB)
    whole = path.read_bytes()
    return whole[:-12] + struct.pack(">I", size - len(whole)) + b"noNe"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.dcm", "a"])
def test_huge_image_files_are_refused_before_they_are_read(tmp_path, name):
    start = bytes(128) + b"DICM" if name.startswith("a.d") else b"\xff\xd8\xff\xe0\0\x10JFIF\0"
    file = sparse(tmp_path / name, start)
    assert "its file has 8 GiB, and --data.max-megapixels 200 allows 1.93 GiB" in reason(file)
    assert "--data.max-megapixels 2 allows 83.1 MiB" in reason(file, max_pixels=2_000_000), name


def test_image_files_far_larger_than_their_pixels_are_not_read_whole(tmp_path):
    size = 2**30
    deep = sparse(tmp_path / "deep.png", png(tmp_path / "deep.png", size), size)
    assert "its file has 1 GiB, and 5 x 4 pixels need at most 64 MiB" in reason(deep)
    jpeg = io.BytesIO()
    Image.new("RGB", (640, 480), (9, 8, 7)).save(jpeg, "JPEG")
    behind = sparse(tmp_path / "a.jpg", jpeg.getvalue(), size)
    (tmp_path / "small.jpg").write_bytes(jpeg.getvalue())
    small, large = (values(path, pixel_type="uint8") for path in (tmp_path / "small.jpg", behind))
    assert np.array_equal(small, large)


def test_huge_arrays_and_tiffs_are_read_in_parts(tmp_path):
    np.save(tmp_path / "a.npy", np.full((4, 5, 3), 7, dtype=np.uint8))
    Image.new("RGB", (5, 4), (7, 7, 7)).save(tmp_path / "a.tif")
    for path in (tmp_path / "a.npy", tmp_path / "a.tif"):
        os.truncate(path, HUGE)
        assert (values(path, pixel_type="uint8") == 7).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_large_files_of_zeros_are_not_read_whole(tmp_path, name):
    assert "its content is no image" in reason(sparse(tmp_path / name, b"", 2**30))
