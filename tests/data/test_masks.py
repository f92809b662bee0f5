"""Polygons and run lengths: their pixels are pycocotools'."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.data import masks
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


@pytest.fixture
def peak():
    """Bytes that were allocated at once since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_the_extent_of_huge_run_lengths_needs_no_pixels(peak):
    side = 60_000
    within = RunLengths(counts=np.array([side + 7, 5, side * side - side - 12]), size=(side, side))
    assert extent_of(within) == (1, 7, 2, 12)
    across = RunLengths(counts=np.array([side + 7, side, side * side - 2 * side - 7]), size=(side, side))
    assert extent_of(across) == (1, 0, 3, side)
    assert peak() < 2**20
    with pytest.raises(ValueError, match="a mask of 60000 x 60000 pixels"):
        extent_of(RunLengths(counts=np.array([1, 5]), size=(side, side)))


@pytest.mark.parametrize("far", [3e4, 1e8, 3e38])
def test_polygons_far_beyond_the_image_are_cut(peak, far):
    around = polygons([[(-far, -far), (far, -far), (far, far), (-far, far)]])
    right = polygons([[(5, -far), (far, -far), (far, far), (5, far)]])
    outside = polygons([[(far, far), (far, far / 2), (far / 2, far)]])
    assert pixels_of(around, (6, 8)).all()
    assert np.array_equal(pixels_of(right, (6, 8)), np.tile(np.arange(8) >= 5, (6, 1)))
    assert not pixels_of(outside, (6, 8)).any()
    assert peak() < 2**20


@given(st.lists(rings, min_size=1, max_size=3), sides, sides)
def test_outlines_in_pieces_are_those_at_once(shape, height, width):
    whole = pixels_of(polygons(shape), (height, width))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "AT_ONCE", 9)
        assert np.array_equal(pixels_of(polygons(shape), (height, width)), whole)


def test_an_outline_of_many_long_edges_is_drawn_in_pieces(peak, monkeypatch):
    monkeypatch.setattr(masks, "AT_ONCE", 5000)
    zigzag = polygons([[(i % 2 * 200, i * 0.1) for i in range(1000)]])  # a million points
    assert pixels_of(zigzag, (100, 200)).any()
    assert peak() < 2**22


def test_long_numbers_in_run_lengths_are_refused_at_once():
    start = time.process_time()
    with pytest.raises(ValueError, match="more than 60 bits"):
        run_lengths_of_text("o" * 1_000_000, (1, 1))
    assert time.process_time() - start < 1
