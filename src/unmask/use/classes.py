"""Which output of a classifier stands for which class of some data."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unmask.data.records import Labelled, some
from unmask.errors import DataError

IMAGENET_CLASSES = 1000
UNRECOGNISED = 10
"""So many of a thousand names may be spelt in some other way, if all others are ImageNet's."""


class Matching(NamedTuple):
    """The output for each class of the data, the names of all outputs, and how they were found."""

    outputs: list[int]
    names: tuple[str, ...]
    note: str


def match_classes(
    data: Sequence[str],
    model: Sequence[str],
    *,
    named: bool = True,
    order: Sequence[str] | None = None,
) -> Matching:
    """By name; by ImageNet's names for them; or, if no name is known and the counts agree, in order.

    Args:
        data: the classes of the data.
        model: the names of the outputs.
        named: whether these are names, and not numbers that stand in for unknown ones.
        order: the classes of the data as outputs of unknown names follow them; as in `data` if None.

    Raises DataError if neither does.
    """
    outputs = {name: i for i, name in enumerate(model)} if named else {}
    unknown = [name for name in data if name not in outputs]
    if not unknown:
        return Matching([outputs[name] for name in data], readable(model), "")
    mine, theirs = imagenet_indices(data), imagenet_indices(model)
    if mine and theirs and set(mine) <= set(theirs):
        by_number = {index: i for i, index in enumerate(theirs)}
        names = distinct([imagenet_names()[index] for index in theirs])
        return Matching([by_number[n] for n in mine], names, "classes are matched as those of ImageNet")
    if len(unknown) == len(data) == len(model):
        return _in_order(data, model, named, data if order is None else order)
    if not named:
        raise DataError(
            f"the classifier's {len(model)} outputs have no names, and the data have {len(data)} "
            f"classes ({some(data)}): give data with as many, or a classifier that names its classes"
        )
    raise DataError(
        f"the classifier knows {len(model)} classes ({some(model)}), and not {len(unknown)} of the "
        f"{len(data)} of the data ({some(unknown)}): call classes as it does, or give another classifier"
    )


def folder_order(labelled: Labelled) -> tuple[str, ...]:
    """The classes as outputs without names follow them: as the data have them, or sorted by characters
    if they are folders, since trainers that keep no names number folders so (torchvision's ImageFolder).
    """
    labels, first = np.unique(labelled.labels, return_index=True)
    for label, index in zip(labels, first, strict=True):
        if labelled.classes[label] not in Path(labelled.images.paths[index]).parts[:-1]:
            return labelled.classes
    return tuple(sorted(labelled.classes))


def _in_order(data: Sequence[str], model: Sequence[str], named: bool, order: Sequence[str]) -> Matching:
    places = {name: i for i, name in enumerate(order)}
    if named:
        pairs = (f"{name!r} for {output!r}" for name, output in zip(order, model, strict=True))
        note = f"no names of classes agree, so they are taken in their order: {', '.join(pairs)}"
    else:
        pairs = (f"{i} for {name!r}" for i, name in enumerate(order))
        note = f"the outputs have no names and are assigned to the sorted classes: {', '.join(pairs)}"
    return Matching([places[name] for name in data], distinct(order), _shortened(note))


def imagenet_indices(names: Sequence[str]) -> list[int] | None:
    """Which of ImageNet-1K's classes these are, by folder or by words; None if some are not."""
    count, aliases = Counter(names), _imagenet_aliases()
    indices = [aliases.get(name) if count[name] == 1 else None for name in names]
    known = {index for index in indices if index is not None}
    missing = indices.count(None)
    if len(known) < len(names) - missing:
        return None
    if missing and (len(names) != IMAGENET_CLASSES or missing > UNRECOGNISED):
        return None
    left = iter(sorted(set(range(IMAGENET_CLASSES)) - known))
    return [next(left) if index is None else index for index in indices]


@cache
def imagenet_names() -> tuple[str, ...]:
    """For each class of ImageNet-1K the first of its words, or all if another begins with it too."""
    words = _imagenet_words()
    count = Counter(map(_first, words))
    return tuple(_first(text) if count[_first(text)] == 1 else text for text in words)


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """The same names, each once; ImageNet's words in place of its folders."""
    words = dict(zip(imagenet_folders(), distinct(imagenet_names()), strict=True))
    return distinct([words.get(name, name) for name in names])


@cache
def imagenet_folders() -> tuple[str, ...]:
    """The names of its folders, which are WordNet's, in order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_names())


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The same names, with a number behind those that are another's too."""
    count = Counter(names)
    return tuple(name if count[name] == 1 else f"{name} ({i})" for i, name in enumerate(names))


@cache
def _imagenet_words() -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_descriptions())


@cache
def _imagenet_aliases() -> dict[str, int]:
    """Numbers of the classes by everything that they are called; nothing that two are called."""
    kinds = [
        distinct(imagenet_names()),
        tuple(map(_first, _imagenet_words())),
        _imagenet_words(),
        imagenet_folders(),
    ]
    aliases: dict[str, int] = {}
    for names in kinds:
        count = Counter(names)
        aliases |= {name: i for i, name in enumerate(names) if count[name] == 1}
    return aliases


def _first(words: str) -> str:
    return words.split(",")[0]


def _shortened(sentence: str, most: int = 300) -> str:
    return sentence if len(sentence) <= most else f"{sentence[: most - 4]} ..."
