"""Finding, decoding and cropping images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unmask.config.image import PixelFormat
from unmask.data.decode.pictures import DecodedPicture
from unmask.data.evaluation_crop import evaluation_crop
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.sampler import generator
from unmask.data.sources.find import find_images
from unmask.data.split import default_held_out
from unmask.data.statistics import Layout, find_layout, measure_pixels
from unmask.data.transforms import random_box, random_crop
from unmask.errors import DataError

COLOUR, GREY = PixelFormat(channels=3), PixelFormat(channels=1)


@given(st.lists(st.text(min_size=1)))
def test_path_list_is_a_list(paths):
    kept = [
        p.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        for p in paths
        if _encodes(p)
    ]
    packed = PathList(kept)
    assert list(packed) == kept
    assert packed[1:] == kept[1:]
    if kept:
        assert packed[-1] == kept[-1]
    with pytest.raises(IndexError):
        packed[len(kept)]


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def test_finds_nested_images_and_nothing_else(photos, tmp_path):
    (tmp_path / "linked").symlink_to(photos)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    found = find_images((str(tmp_path),))
    assert len(found.paths) == 24
    assert list(found.paths) == sorted(found.paths)
    assert len(find_images((str(photos / "near"), found.paths[0])).paths) == 9


@pytest.mark.parametrize("source", [(), ("nowhere",)])
def test_nothing_there(source):
    with pytest.raises(DataError, match="elpv"):
        find_images(source)


def test_no_images(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"sought .jpg.* and found 1 \.txt: no image of a kind"):
        find_images((str(tmp_path),))


def test_split_is_stable_when_an_image_comes(tmp_path):
    names = [f"a/{i}.png" for i in range(200)]
    _, before = Images("x", PathList(names)).split(20)
    training, after = Images("x", PathList([*names, "a/new.png"])).split(20)
    assert len(set(before.paths) & set(after.paths)) >= 19
    assert not set(training.paths) & set(after.paths)
    assert len(training.paths) + len(after.paths) == 201


def test_moved_folder_keeps_its_split_and_fingerprint():
    def images(folder):
        return Images("x", PathList([f"{folder}/{c}/{i}.png" for c in "ab" for i in range(30)]))

    here, there = images("data"), images("/elsewhere/renamed")
    assert here.fingerprint() == there.fingerprint()
    names = [[path[-8:] for path in i.split(9)[1].paths] for i in (here, there)]
    assert names[0] == names[1]
    swapped = [f"data/{c}/{i}.png" for c in "ab" for i in range(30) if (c, i) != ("a", 0)]
    assert Images("x", PathList([*swapped, "data/c/0.png"])).fingerprint() != here.fingerprint()


def test_names_start_where_paths_part():
    for root, paths in (
        ("data/", ["ab/1", "abc/1", "ab/2"]),
        ("photos//", ["a/1", "b/1"]),
        ("/mnt/x/", ["1"]),
        ("", ["relative/1", "/absolute/1"]),
    ):
        images = Images("x", PathList(root + path for path in paths))
        assert list(images.names()) == paths


def test_default_held_out():
    assert [default_held_out(n) for n in (2, 20, 100, 2624, 10**6)] == [0, 5, 8, 131, 256]


@given(
    height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 99),
    out=st.sampled_from([(32, 32), (16, 48), (48, 16)]),
)  # fmt: skip
def test_boxes_stay_inside(height, width, seed, out):
    top, left, h, w = random_box((height, width), out, (0.2, 1.0), generator(seed))
    assert min(top, left) >= 0
    assert min(h, w) >= 1
    assert top + h <= height
    assert left + w <= width


def test_boxes_cover_the_scale_and_aspect_that_were_asked_for():
    boxes = [random_box((400, 400), (32, 64), (0.2, 0.5), generator(i)) for i in range(500)]
    areas = np.array([h * w / 400**2 for _, _, h, w in boxes])
    aspects = np.array([w / h for _, _, h, w in boxes])
    assert areas.min() > 0.19
    assert areas.max() < 0.51
    assert abs(areas.mean() - 0.35) < 0.02
    assert aspects.min() > 2 * 0.74
    assert aspects.max() < 2 * 1.35


def test_crops_flip_half_and_depend_on_the_generator_alone():
    image = torch.arange(256, dtype=torch.uint8).repeat(64, 1)[None]

    def crop(seed, flip=True):
        picture = DecodedPicture(image)
        return random_crop(picture, GREY, (32, 32), (0.9, 1.0), flip, generator(7, seed))

    crops = [crop(i) for i in range(200)]
    flipped = sum(bool(c[0, 0, 0] > c[0, 0, -1]) for c in crops)
    assert 70 < flipped < 130
    assert crops[5].equal(crop(5))
    unflipped = [crop(i, flip=False) for i in range(50)]
    assert all(c[0, 0, 0] < c[0, 0, -1] for c in unflipped)


def test_evaluation_of_long_images():
    image = torch.zeros(1, 100, 20, dtype=torch.uint8)
    image[:, 40:60] = 255
    crop = evaluation_crop(DecodedPicture(image), GREY, (8, 8))
    assert crop[:, 2:-2].eq(255).all()
    assert crop[:, [0, -1]].gt(128).all()
    thin = DecodedPicture(torch.full((3, 1, 20_000), 9, dtype=torch.uint8))
    assert evaluation_crop(thin, COLOUR, (8, 8)).eq(9).all()


def test_statistics(tmp_path):
    for i, value in enumerate((0, 255)):
        Image.new("RGB", (8, 8), (value, 51, 0)).save(tmp_path / f"{i}.png")
    images = find_images((str(tmp_path),))
    assert find_layout(images).channels == 3
    pixels = measure_pixels(images, size=(8, 8), wanted=COLOUR)
    assert pixels.mean == (0.5, 0.2, 0.0)
    assert pixels.std == (0.5, 1, 1)
    assert pixels.decoded_bytes == 192


def test_grey_images_have_one_channel(tmp_path):
    Image.new("L", (8, 8), 3).save(tmp_path / "grey.png")
    assert find_layout(find_images((str(tmp_path),))) == Layout(1, "uint8")
