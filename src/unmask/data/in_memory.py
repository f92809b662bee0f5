"""Images that are in memory already: PIL images and arrays."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unmask.data.decode.arrays import array_picture
from unmask.data.decode.pictures import Picture
from unmask.data.decode.pillow import PillowPicture
from unmask.data.decode.reading import Reading
from unmask.data.images import Images
from unmask.data.sources.idx import number_of, numbered
from unmask.errors import DataError

NAME = "images"
InMemory = Image.Image | np.ndarray


class GivenImages:
    """Opens PIL images and arrays by their places."""

    def __init__(self, given: Sequence[InMemory]):
        self.given = given

    @contextmanager
    def __call__(self, name: str, reading: Reading) -> Iterator[Picture]:
        one = self.given[number_of(name)]
        if isinstance(one, Image.Image):
            # A copy is whole: a file behind the image would be decoded smaller, and for good.
            yield PillowPicture(one.copy())
        else:
            yield array_picture(one, kind="array", reading=reading)


def images_in_memory(given: Any) -> Images | None:
    """The images if they are PIL images or arrays, one or several; None if files are named.

    An array is one image [h, w], [h, w, C] or with its channels elsewhere, as a .npy file; of four axes
    it holds several. They are called images#0, images#1, ... in their order. Raises DataError if
    they stand beside anything else.
    """
    if isinstance(given, np.ndarray) and given.ndim == 4:
        several: list[Any] = list(given)
    elif isinstance(given, InMemory):
        several = [given]
    elif isinstance(given, Sequence) and not isinstance(given, str | Path):
        several = list(given)
    else:
        several = []
    kinds = {isinstance(one, InMemory) for one in several}
    if True not in kinds:
        return None
    if False in kinds:
        other = next(one for one in several if not isinstance(one, InMemory))
        raise DataError(
            f"some images are PIL images or arrays, and {other!r} is none: give paths alone, or open all"
        )
    return Images(NAME, numbered(NAME, len(several)), opener=GivenImages(several))
