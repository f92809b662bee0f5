"""Which axis of an array is which: by the file, by what is asked, by evidence, else it is asked for."""

import numpy as np
import pytest
import tifffile
from hypothesis import assume, given
from hypothesis import strategies as st

from data.makers import reason, values
from unmask.data.decode.arrays import in_order, order_of
from unmask.data.decode.reading import Reading
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.statistics import Layout, find_layout

RNG = np.random.default_rng(2)
side = st.integers(1, 9)


def shape_of(shape: tuple[int, ...], **asked) -> tuple[int, ...]:
    """Height, width, channels."""
    return in_order(np.empty(shape), order_of(shape, Reading(**asked))).shape


def layout(path, **asked) -> Layout:
    return find_layout(Images("test", PathList([str(path)])), **asked)


@given(side, side, side)
def test_the_rule(a, b, c):
    shape = (a, b, c)
    if a == b == c:
        with pytest.raises(ValueError, match=r"say which is which with --data.axes"):
            order_of(shape, Reading())
    elif len({a, b, c}) == 2:
        height, width, channels = shape_of(shape)
        assert height == width != channels
    else:
        assert shape_of(shape)[2] == min(a, c)


@given(side, side, side)
def test_asked_channels_come_before_evidence(a, b, c):
    assume(a != c)
    assert shape_of((a, b, c), channels=a) == (b, c, a)
    assert shape_of((a, b, c), channels=c) == (a, b, c)


@given(st.permutations("YXC"), side, side, side)
def test_axes_come_before_all(letters, height, width, channels):
    lengths = dict(zip("YXC", (height, width, channels), strict=True))
    shape = tuple(lengths[name] for name in letters)
    assert shape_of(shape, axes="".join(letters), channels=1) == (height, width, channels)


@pytest.mark.parametrize("axes", ["ZYX", "YX", "CYXY", "", "hello"])
def test_axes_that_do_not_fit(tmp_path, axes):
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4)))
    assert "--data.axes" in reason(tmp_path / "a.npy", 2, axes=axes)


def test_arrays(tmp_path):
    cube = RNG.random((32, 32, 200), dtype=np.float32)
    np.save(tmp_path / "a.npy", cube)
    assert layout(tmp_path / "a.npy") == Layout(200, "float32")
    assert np.array_equal(values(tmp_path / "a.npy", 200), cube)
    np.save(tmp_path / "grey.npy", cube[..., 0])
    assert np.array_equal(values(tmp_path / "grey.npy", 1, axes="CYX"), cube[..., :1])
    assert np.array_equal(values(tmp_path / "grey.npy", 1, axes="XY")[..., 0], cube[..., 0].T)


def test_pages_that_tifffile_made_of_rows_are_no_evidence(tmp_path):
    cube = RNG.integers(0, 4000, (64, 48, 10)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", cube)
    np.save(tmp_path / "a.npy", cube)
    for name in ("a.tif", "a.npy"):
        assert layout(tmp_path / name) == Layout(10, "float32")
        assert np.abs(values(tmp_path / name, 10) * 65_535 - cube).max() < 0.01


def test_axes_that_a_file_names(tmp_path):
    cube = RNG.integers(0, 255, (5, 12, 40), dtype=np.uint8)
    options = {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.ome.tif", cube, metadata={"axes": "CYX"}, **options)
    tifffile.imwrite(tmp_path / "b.tif", cube, metadata={"axes": "YXC"}, **options)
    assert np.array_equal(values(tmp_path / "a.ome.tif", 5, "uint8"), np.moveaxis(cube, 0, -1))
    assert np.array_equal(values(tmp_path / "b.tif", 40, "uint8"), cube)


@pytest.mark.parametrize(("axes", "name"), [("ZYX", "depth"), ("TYX", "time")])
def test_depth_and_time_are_no_channels_unless_said(tmp_path, axes, name):
    stack = RNG.integers(0, 255, (12, 40, 30), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": axes})
    printed = reason(tmp_path / "a.tif", 12, "uint8")
    assert f"12 planes are {axes[0]} ({name}), not channels" in printed
    assert "--data.axes CYX" in printed
    got = values(tmp_path / "a.tif", 12, "uint8", axes="CYX")
    assert np.array_equal(got, np.moveaxis(stack, 0, -1))
    assert layout(tmp_path / "a.tif", axes="CYX") == Layout(12, "uint8")


def test_axes_leave_pictures_alone(tmp_path):
    picture = RNG.integers(0, 255, (12, 40, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb")
    assert values(tmp_path / "a.tif", 3, axes="CYX").shape == (12, 40, 3)
