"""Divides images into training and validation, and reduces labels to a few: pure functions.

Every choice depends on the names of the images, not on their order or the machine, so that it
hardly changes when images come or go.
"""

import os
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from unmask.data.images import Images, name_hash
from unmask.data.records import Labelled, Named, in_order, some
from unmask.errors import DataError

VAL_SHARE = 0.25
"""Validation share of each class, if nothing says which images are for validation."""


def default_held_out(images: int) -> int:
    """One image in twenty, at least 8 and at most 256, but never more than a quarter."""
    return min(256, max(images // 20, min(8, images // 4)))


def refuse_common(training: Images, validation: Images) -> None:
    """Raises DataError if an image is for training and for validation."""
    known = {os.path.abspath(path) for path in training.paths}
    common = [path for path in validation.paths if os.path.abspath(path) in known]
    if common:
        raise DataError(
            f"{len(common)} images are for training and for validation, the first is {common[0]}: give "
            f"others with --data.val"
        )


def held_out_names(names: Sequence[str], share: float) -> np.ndarray:
    """bool [n]: the share of names that is kept aside, at least one and not all of them.

    Raises DataError if there is one name alone.
    """
    if len(names) < 2:
        raise DataError("there is one image alone, so none can be kept for validation: give more")
    hashes = np.fromiter(map(name_hash, names), dtype=np.uint64, count=len(names))
    groups = np.zeros(len(names), dtype=np.int64)
    return _first_of_each(hashes, groups, lambda all_: min(all_ - 1, max(1, _rounded(all_ * share))))


def hold_out(data: Named, share: float) -> tuple[Named, Named, str]:
    """Training and validation images: the same share of every class; and a sentence that says so.

    `share` is between 0 and 1. Raises DataError if no class has two images.
    """

    def count(members: int) -> int:
        return min(members - 1, max(1, _rounded(members * share)))

    hashes = np.fromiter(map(name_hash, data.keys), dtype=np.uint64, count=len(data))
    held_out = _first_of_each(hashes, _groups(data.names if data.strata is None else data.strata), count)
    if not held_out.any():
        raise DataError(
            f"no class has two images, so none can be kept for validation: is the right column named by "
            f"--data.label-column? the classes are {some(in_order(data.names))}"
        )
    groups = "class" if data.strata is None else "group"
    note = (
        f"{share:.0%} of the images of each {groups} are held out for validation, chosen by a hash of "
        f"their names"
    )
    return data.subset(np.flatnonzero(~held_out)), data.subset(np.flatnonzero(held_out)), note


def take_fraction(
    labelled: Labelled, *, fraction: float | None, per_class: int | None, seed: int
) -> Labelled:
    """A share of each class, at least one image, or at most `per_class` images of each; all if None.

    For one seed a smaller choice is part of every larger one.
    """
    if fraction is None and per_class is None:
        return labelled
    if fraction is not None and per_class is not None:
        raise ValueError("a fraction and a number per class exclude each other: give one of them")
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f"the fraction of labels is {fraction}: give one above 0, at most 1")
    if per_class is not None and per_class < 1:
        raise ValueError(f"{per_class} labels per class are too few: give at least 1")

    def count(members: int) -> int:
        if fraction is None:
            return min(members, per_class or members)
        return max(1, _rounded(members * fraction))

    seeded = (name_hash(f"{seed} {name}") for name in labelled.images.names())
    hashes = np.fromiter(seeded, dtype=np.uint64, count=len(labelled))
    return labelled.subset(np.flatnonzero(_first_of_each(hashes, labelled.labels, count)))


def spread(images: Images, count: int) -> np.ndarray:
    """int64: the indices of `count` images to look at, or of all of fewer: one of each folder in turn.

    Folders, and images in them, are taken in the order of their names' hashes, so that the first of a
    list that is sorted by class are not all there is to see.
    """
    folders: dict[str, list[tuple[int, int]]] = {}
    for index, name in enumerate(images.names()):
        folders.setdefault(os.path.dirname(name), []).append((name_hash(name), index))
    # How often its folder was taken before an image decides first.
    turns = sorted(
        (turn, name_hash(folder), index)
        for folder, members in folders.items()
        for turn, (_, index) in enumerate(sorted(members)[:count])
    )
    return np.array([index for _, _, index in turns[:count]], dtype=np.int64)


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """float32 [classes]: the inverse of each class's frequency, 0 if it has no images.

    Their mean over the samples, `class_weights(labels, classes)[labels].mean()`, is 1.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return (len(labels) / (present * np.maximum(counts, 1)) * (counts > 0)).astype(np.float32)


def _first_of_each(hashes: np.ndarray, groups: np.ndarray, count: Callable[[int], int]) -> np.ndarray:
    """bool [n]: in each group as many as `count` says, those with the smallest hashes.

    Images of equal hashes, which are one image or bear one name, stay together.
    """
    chosen = np.zeros(len(hashes), dtype=bool)
    order = np.lexsort((hashes, groups))
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if (wanted := count(len(members))) > 0:
            chosen[members] = hashes[members] <= hashes[members[wanted - 1]]
    return chosen


def _groups(kinds: Sequence[Hashable]) -> np.ndarray:
    indices = {kind: index for index, kind in enumerate(dict.fromkeys(kinds))}
    return np.array([indices[kind] for kind in kinds], dtype=np.int64)


def _rounded(number: float) -> int:
    """The nearest integer; a half goes up."""
    return int(number + 0.5)
