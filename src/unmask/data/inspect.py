"""A look at a data set before training on it."""

import hashlib
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unmask.config.image import PixelFormat
from unmask.core.spec import Size
from unmask.data.decode.files import open_file
from unmask.data.decode.pictures import BadImage
from unmask.data.decode.reading import Reading
from unmask.data.images import Images
from unmask.data.statistics import measured

GLANCE = 1000
"""Pixels that are compared before all are."""


@dataclass(frozen=True)
class Inspection:
    """What is in a data set."""

    images: int
    kinds: Counter[str]
    """Format and type of pixel, as 'JPEG RGB'."""
    smallest: Size
    median: Size
    largest: Size
    """Height and width, ordered by area."""
    decoded: int
    """How many images were decoded in full to look for damage."""
    bad: list[BadImage]
    damaged: int
    """How many of those that were decoded are bad."""
    one_colour: list[str]
    """Those among the decoded in which all pixels that are data are the same."""
    duplicates: list[list[str]]
    """Groups of files with the same content."""

    @property
    def bad_share(self) -> float:
        """What share of all images is bad, as far as the decoded ones speak for the others."""
        return max(len(self.bad) / self.images, self.damaged / self.decoded)


def inspect(images: Images, wanted: PixelFormat) -> Inspection:
    """Reads every header, and decodes up to 512 images in full.

    `wanted` is what a run would decode them as; what does not fit it is a bad image.
    """
    kinds: Counter[str] = Counter()
    heights, widths = array("q"), array("q")
    bad: dict[str, BadImage] = {}
    for i, name in enumerate(images.paths):
        try:
            with images.open(i, Reading.of(wanted)) as picture:
                kinds[picture.kind] += 1
                heights.append(picture.size[0])
                widths.append(picture.size[1])
        except Exception as error:  # broken headers raise almost anything
            bad[name] = BadImage.of(name, error)
    sample, damaged, one_colour = measured(images), 0, list[str]()
    for i in range(len(sample)):
        result = sample.decode(i, wanted)
        if isinstance(result, BadImage):
            bad[result.path] = result
            damaged += 1
        elif _is_one_colour(result):
            one_colour.append(sample.paths[i])
    sizes = _least_median_most(heights, widths)
    files = images.paths if images.opener is open_file else []
    return Inspection(
        images=len(images),
        kinds=kinds,
        smallest=sizes[0],
        median=sizes[1],
        largest=sizes[2],
        decoded=len(sample),
        bad=sorted(bad.values(), key=lambda b: b.path),
        damaged=damaged,
        one_colour=one_colour,
        duplicates=find_duplicates([path for path in files if path not in bad]),
    )


def median_size(images: Images, wanted: PixelFormat) -> Size | None:
    """Height and width of the median by area, by the headers of some; None if none can be read."""
    heights, widths, some = array("q"), array("q"), measured(images)
    for i in range(len(some)):
        with suppress(Exception), some.open(i, Reading.of(wanted)) as picture:  # as in `inspect`
            heights.append(picture.size[0])
            widths.append(picture.size[1])
    return _least_median_most(heights, widths)[1] if heights else None


def find_duplicates(paths: Sequence[str]) -> list[list[str]]:
    """Groups of files with equal content; only files of equal length are read."""
    by_length: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        by_length[os.path.getsize(path)].append(path)
    by_content: dict[bytes, list[str]] = defaultdict(list)
    for length, group in by_length.items():
        if len(group) > 1 and length:
            for path in group:
                by_content[_digest(path)].append(path)
    return sorted(group for group in by_content.values() if len(group) > 1)


def _is_one_colour(pixels: Tensor) -> bool:
    """[C, h, w]; NaN is no-data, and a band of nothing else is of one value too."""
    values = pixels.flatten(1)
    few = values[:, :: max(1, values.shape[1] // GLANCE)]  # of most images these already differ
    return _is_constant(few) and _is_constant(values)


def _is_constant(values: Tensor) -> bool:
    low = values.nan_to_num(torch.inf).amin(1)
    high = values.nan_to_num(-torch.inf).amax(1)
    return bool((low >= high).all())


def _least_median_most(heights: Sequence[int], widths: Sequence[int]) -> list[Size]:
    h, w = np.array(heights or [0]), np.array(widths or [0])
    order = np.argsort(h * w, kind="stable")
    chosen = order[[0, len(order) // 2, -1]]
    return [(int(h[i]), int(w[i])) for i in chosen]


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
