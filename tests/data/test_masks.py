"""Polygons and run lengths: their pixels are pycocotools'."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.data.masks import (
    Polygons,
    RunLengths,
    extent_of,
    packed,
    pixels_of,
    run_lengths_of,
    run_lengths_of_text,
    unpacked,
)

sides = st.integers(1, 24)
coordinates = st.floats(-6, 30, width=32) | st.integers(0, 24).map(float)
rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)


def polygons(rings) -> Polygons:
    return Polygons(rings=tuple(np.array(ring, dtype=np.float32) for ring in rings))


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools itself
@given(st.lists(rings, min_size=1, max_size=3), sides, sides)
def test_polygons_cover_what_pycocotools_says(shape, height, width):
    library = pytest.importorskip("pycocotools.mask")
    flat = [[value for point in ring for value in point] for ring in shape]
    theirs = library.decode(library.merge(library.frPyObjects(flat, height, width))).astype(bool)
    assert np.array_equal(pixels_of(polygons(shape), (height, width)), theirs)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_run_lengths_cover_what_pycocotools_says(height, width, share, seed):
    library = pytest.importorskip("pycocotools.mask")
    wanted = np.random.default_rng(seed).random((height, width)) < share
    text = library.encode(np.asfortranarray(wanted))["counts"]
    mask = run_lengths_of_text(text, (height, width))
    assert np.array_equal(pixels_of(mask, (height, width)), wanted)
    assert run_lengths_of_text(text.decode(), (height, width)).counts.tolist() == mask.counts.tolist()
    if wanted.any():
        rows, columns = np.nonzero(wanted)
        box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert extent_of(mask) == box


def test_known_pixels():
    square = polygons([[(1, 1), (3, 1), (3, 4), (1, 4)]])
    assert np.argwhere(pixels_of(square, (5, 5))).tolist() == [[y, x] for y in (1, 2, 3) for x in (1, 2)]
    assert extent_of(square) == (1, 1, 3, 4)
    lengths = RunLengths(counts=np.array([1, 2, 3], dtype=np.uint32), size=(2, 3))
    assert pixels_of(lengths, (2, 3)).tolist() == [[False, True, False], [True, False, False]]
    assert extent_of(RunLengths(counts=np.array([6], dtype=np.uint32), size=(2, 3))) == (0, 0, 0, 0)


@pytest.mark.parametrize("rows", [["00", "00"], ["11", "11"], ["01", "11"], ["10", "01"], ["1", "0"]])
def test_pixels_in_run_lengths_come_back(rows):
    pixels = np.array([[value == "1" for value in row] for row in rows])
    lengths = run_lengths_of(pixels)
    assert lengths.counts.sum() == pixels.size
    assert np.array_equal(pixels_of(lengths, pixels.shape), pixels)
    assert np.array_equal(pixels_of(unpacked(packed(lengths)), pixels.shape), pixels)


def test_masks_of_another_size():
    lengths = RunLengths(counts=np.array([6], dtype=np.uint32), size=(2, 3))
    with pytest.raises(ValueError, match="2 x 3 pixels lies on an image of 3 x 2"):
        pixels_of(lengths, (3, 2))
    with pytest.raises(ValueError, match="3 x 2 pixels lies on an image of 3 x 2"):
        pixels_of(RunLengths(counts=np.array([5], dtype=np.uint32), size=(3, 2)), (3, 2))
    with pytest.raises(ValueError, match="cut short"):
        run_lengths_of_text("P", (1, 1))


@given(st.lists(rings, min_size=1, max_size=3))
def test_packed_polygons_come_back(shape):
    mask = polygons(shape)
    again = unpacked(packed(mask))
    assert isinstance(again, Polygons)
    assert all(np.array_equal(a, b) for a, b in zip(mask.rings, again.rings, strict=True))


def test_packed_run_lengths_come_back():
    mask = RunLengths(counts=np.array([1, 2**31, 3], dtype=np.uint32), size=(7, 9))
    again = unpacked(packed(mask))
    assert isinstance(again, RunLengths)
    assert again.size == (7, 9)
    assert again.counts.tolist() == mask.counts.tolist()
    assert unpacked(packed(None)) is None
