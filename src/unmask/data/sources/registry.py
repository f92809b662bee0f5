"""All kinds of sources of images and labels, in the order in which they are asked."""

from unmask.data.sources import (
    class_folders,
    digits,
    elpv,
    fashion_mnist,
    hub_sets,
    idx,
    image_file,
    lists,
    torchvision_sets,
)
from unmask.data.sources.source import Source
from unmask.errors import DataError

SOURCES: tuple[Source, ...] = (
    digits.SOURCE,
    elpv.SOURCE,
    fashion_mnist.SOURCE,
    torchvision_sets.SOURCE,
    hub_sets.SOURCE,
    idx.SOURCE,
    class_folders.SOURCE,
    lists.SOURCE,
    image_file.SOURCE,
)

BUILT_IN: tuple[str, ...] = tuple(name for source in SOURCES for name in source.built_in)


def kinds_of(words: tuple[str, ...]) -> list[Source]:
    """The kind of each source; raises DataError if one is none, or may not stand beside others."""
    kinds = [_kind_of(word) for word in words]
    for word, kind in zip(words, kinds, strict=True):
        if kind.alone and len(words) > 1:
            raise DataError(f"{word} is a data set of its own: give it alone, without other sources")
    return kinds


def _kind_of(word: str) -> Source:
    for source in SOURCES:
        if source.matches(word):
            return source
    raise DataError(
        f"there is no folder or file {word}: check the path, or name a built-in data set "
        f"({', '.join(BUILT_IN)})"
    )
