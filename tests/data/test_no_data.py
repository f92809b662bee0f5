"""No-data: the value of a pixel that has none changes nothing."""

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.makers import reason, values, write_dicom
from unmask.config.image import PixelFormat
from unmask.data.decode.pictures import DecodedPicture
from unmask.data.evaluation_crop import evaluation_crop
from unmask.data.images import Images
from unmask.data.normalize import normalize, valid_pixels
from unmask.data.paths import PathList
from unmask.data.sampler import generator
from unmask.data.statistics import Layout, find_layout, measure_pixels
from unmask.data.transforms import random_crop, resized
from unmask.errors import DataError

RNG = np.random.default_rng(11)
TERRAIN = (200 + 50 * np.sin(np.mgrid[:40, :48][1] / 5)).astype(np.float32)
HOLES = RNG.random((40, 48)) < 0.1
HOLES[:10] = True


def images(path) -> Images:
    return Images("test", PathList([str(path)]))


def write(path, array: np.ndarray, mark: str | None = None) -> None:
    tags = [] if mark is None else [(42113, "s", 0, mark, True)]
    tifffile.imwrite(path, array, extratags=tags, photometric="minisblack")


def seen(found: Images, nodata: float | None = None) -> tuple:
    """All that a run makes of the images: statistics, crops, what the model sees and what counts."""
    layout = find_layout(found, nodata=nodata)
    wanted = PixelFormat(channels=layout.channels, pixel_type="float32", nodata=layout.nodata)
    statistics = measure_pixels(found, size=(16, 16), wanted=wanted)
    crop = found.take(
        0, wanted, lambda p: random_crop(p, wanted, (16, 16), (0.2, 1), True, generator(3))
    )
    batch = torch.stack([crop, found.take(0, wanted, lambda p: evaluation_crop(p, wanted, (16, 16)))])
    return statistics, normalize(batch, statistics.mean, statistics.std), valid_pixels(batch)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("nan") / "a.tif"
    write(path, np.where(HOLES, np.float32(np.nan), TERRAIN))
    return seen(images(path))


def assert_same(got: tuple, expected: tuple) -> None:
    assert got[0] == expected[0]
    assert got[1].equal(expected[1])
    assert got[2].equal(expected[2])


@pytest.mark.parametrize("how", ["tag", "flag", "npy"])
@pytest.mark.parametrize("value", [-9999.0, 0.0, 1e9, 199.123, -3.4028234663852886e38, float("inf")])
def test_the_value_of_a_pixel_without_data_changes_nothing(tmp_path, expected, how, value):
    array = np.where(HOLES, np.float32(value), TERRAIN)
    if how == "npy":
        np.save(tmp_path / "a.npy", array)
        assert_same(seen(images(tmp_path / "a.npy"), value), expected)
    else:
        write(tmp_path / "a.tif", array, repr(value) if how == "tag" else None)
        assert_same(seen(images(tmp_path / "a.tif"), value if how == "flag" else None), expected)


def test_what_is_seen(expected):
    statistics, batch, valid = expected
    assert abs(statistics.mean[0] - TERRAIN[10:].mean()) < 5
    assert batch.isfinite().all()
    assert batch[~valid].eq(0).all(), "what has no data shows the mean"
    assert 0.05 < 1 - valid.float().mean() < 0.6


def test_marks_of_integers_are_as_stored(tmp_path):
    array = np.uint16([[0, 1000], [65_535, 7]])
    write(tmp_path / "a.tif", array, "0")
    assert find_layout(images(tmp_path / "a.tif")) == Layout(1, "float32", nodata=0)
    got = values(tmp_path / "a.tif", 1).flatten()
    assert np.isnan(got).tolist() == [True, False, False, False]
    write(tmp_path / "b.tif", array.astype(np.uint8), "-9999")
    assert find_layout(images(tmp_path / "b.tif")) == Layout(1, "uint8"), "no byte can be that"
    write(tmp_path / "c.tif", array, "none")
    assert find_layout(images(tmp_path / "c.tif")).nodata is None


@pytest.mark.parametrize("kind", ["png", "jpg", "16.png", "bmp"])
def test_pictures_have_no_data_by_the_flag(tmp_path, kind):
    array = RNG.integers(1, 255, (16, 16), dtype=np.uint8)
    array[:8] = 0
    Image.fromarray(array.astype(np.uint16) if kind == "16.png" else array).save(tmp_path / f"a.{kind}")
    layout = find_layout(images(tmp_path / f"a.{kind}"), nodata=0)
    assert layout == Layout(1, "float32", nodata=0)
    got = values(tmp_path / f"a.{kind}", 1, nodata=0)[..., 0]
    assert np.isnan(got[:8]).all()
    assert kind == "jpg" or not np.isnan(got[8:]).any()


def test_marks_of_dicom_are_in_its_units(tmp_path):
    stored = np.uint16([[0, 1024, 3024]])
    write_dicom(tmp_path / "a.dcm", stored, bits=16, RescaleSlope=1, RescaleIntercept=-1024)
    got = values(tmp_path / "a.dcm", 1, nodata=-1024).flatten()
    assert np.isnan(got[0])
    assert got[1:].tolist() == [0, 2000]
    got = values(tmp_path / "a.dcm", 1, nodata=3024, rescale=False).flatten()
    assert np.isnan(got).tolist() == [False, False, True]


def test_marks_that_differ_are_kept_by_each_file(tmp_path):
    for name, mark in (("a", "-1"), ("b", "-2")):
        write(tmp_path / f"{name}.tif", np.float32([[float(mark), 5, 9]]), mark)
        assert np.isnan(values(tmp_path / f"{name}.tif", 1)).sum() == 1
    both = Images("x", PathList([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]))
    assert find_layout(both).nodata is None


def test_bands_have_no_data_of_their_own(tmp_path):
    array = RNG.random((12, 14, 3)).astype(np.float32)
    array[:6, :, 1] = np.nan
    np.save(tmp_path / "a.npy", array)
    wanted = PixelFormat(channels=3, pixel_type="float32")
    got = measure_pixels(images(tmp_path / "a.npy"), size=(12, 14), wanted=wanted)
    assert np.allclose(got.mean, np.nanmean(array, (0, 1)), rtol=1e-4)
    assert np.allclose(got.std, np.nanstd(array, (0, 1)), rtol=1e-4)


def test_a_band_without_any_data_is_refused(tmp_path):
    array = RNG.random((12, 14, 3)).astype(np.float32)
    array[..., 2] = np.nan
    np.save(tmp_path / "a.npy", array)
    wanted = PixelFormat(channels=3, pixel_type="float32")
    with pytest.raises(DataError, match="channel 3 has nothing but no-data"):
        measure_pixels(images(tmp_path / "a.npy"), size=(12, 14), wanted=wanted)


def test_infinite_values_are_no_data_if_said(tmp_path):
    np.save(tmp_path / "a.npy", np.float32([[1, np.inf]]))
    assert "--data.nodata inf" in reason(tmp_path / "a.npy", 1)
    assert np.isnan(values(tmp_path / "a.npy", 1, nodata=np.inf)).tolist() == [[[False], [True]]]


@given(st.integers(4, 40), st.integers(4, 40), st.integers(1, 20), st.floats(0, 0.9), st.integers(0, 99))
def test_resizing_around_holes(height, width, out, share, seed):
    rng = torch.Generator().manual_seed(seed)
    holes = torch.rand(2, height, width, generator=rng) < share
    flat = torch.full((2, height, width), 1234.5).masked_fill(holes, torch.nan)
    small = resized(flat, (out, out))
    data = ~small.isnan()
    assert (small[data] - 1234.5).abs().max() < 0.01 if data.any() else True
    if not holes.any():
        assert data.all()
    if holes.all():
        assert not data.any()


def test_without_holes_nothing_is_resized_otherwise():
    pixels = torch.rand(3, 30, 41, generator=torch.Generator().manual_seed(0))
    holed = pixels.clone()
    holed[2, 0, 0] = torch.nan
    plain, around = resized(pixels, (8, 9)), resized(holed, (8, 9))
    assert torch.allclose(plain[:2], around[:2], atol=1e-6)
    assert torch.allclose(plain[2, 4:], around[2, 4:], atol=1e-6)


def test_bytes_have_no_room_for_marks():
    batch = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert valid_pixels(batch) is None
    picture = DecodedPicture(batch[0].float().masked_fill(batch[0] < 99, torch.nan))
    assert picture.pixel_type == "float32"
