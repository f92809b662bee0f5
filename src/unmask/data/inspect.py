"""A look at a folder of images before training on it."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from unmask.data.decode import FORMATS, BadImage, decode
from unmask.data.folder import Images
from unmask.data.statistics import measured_paths


@dataclass(frozen=True)
class Inspection:
    """What is in a folder."""

    images: int
    formats: Counter[str]
    modes: Counter[str]
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    """Height and width, ordered by area."""
    decoded: int
    """How many images were decoded in full to look for damage."""
    bad: list[BadImage]
    duplicates: list[list[str]]
    """Groups of files with the same content."""


def inspect(images: Images, max_pixels: int) -> Inspection:
    """Reads every header, and decodes up to 512 images in full."""
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    bad: dict[str, BadImage] = {}
    for path in images.paths:
        try:
            with Image.open(path, formats=FORMATS) as image:
                formats[str(image.format)] += 1
                modes[image.mode] += 1
                sizes.append((image.height, image.width))
        except Exception as error:  # broken headers raise almost anything
            bad[path] = BadImage(path, f"{type(error).__name__}: {error}")
    sample = measured_paths(images.paths)
    for path in sample:
        result = decode(path, channels=3, max_pixels=max_pixels)
        if isinstance(result, BadImage):
            bad[path] = result
    sizes.sort(key=lambda size: size[0] * size[1])
    nothing = (0, 0)
    return Inspection(
        images=len(images.paths),
        formats=formats,
        modes=modes,
        smallest=sizes[0] if sizes else nothing,
        median=sizes[len(sizes) // 2] if sizes else nothing,
        largest=sizes[-1] if sizes else nothing,
        decoded=len(sample),
        bad=sorted(bad.values(), key=lambda b: b.path),
        duplicates=find_duplicates([path for path in images.paths if path not in bad]),
    )


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


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
