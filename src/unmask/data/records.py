"""Records of labelled images: by name, as sources give them, and numbered, as models take them."""

import json
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from unmask.data.images import Images
from unmask.errors import DataError
from unmask.units import counted

INTEGER = re.compile(r"-?[0-9]{1,18}")
NAMES_SHOWN = 5

TRAINING, VALIDATION, TEST = "train", "val", "test"
PART_NAMES = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""What a folder, or the column split of a list, calls a part of the data, in any letters' case."""


@dataclass(frozen=True)
class Named:
    """Images, the class of each, and how they may be divided."""

    images: Images
    names: list[str]
    """The class of each image."""
    keys: list[str]
    """Decides on which side of a split an image falls: a name that is the same on every machine."""
    classes: tuple[str, ...] | None = None
    """All classes in their order, if the source knows them; None: those that occur."""
    strata: list[Hashable] | None = None
    """Groups that a split divides in the same proportion; None: the classes."""
    weights: np.ndarray | None = None
    """float32 [n]: how much each image counts in the loss."""

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: np.ndarray) -> "Named":
        """Some of the images, in the order given."""
        return replace(
            self,
            images=self.images.subset(indices),
            names=[self.names[i] for i in indices],
            keys=[self.keys[i] for i in indices],
            strata=None if self.strata is None else [self.strata[i] for i in indices],
            weights=None if self.weights is None else self.weights[indices],
        )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a source holds, divided as it divides itself; None for a part that it does not have."""

    training: Named
    validation: Named | None = None
    test: Named | None = None
    """Validates if there is no validation part."""
    notes: tuple[str, ...] = ()
    is_one_part: bool = False
    """Whether the user named a part of the data set, which is `training` then."""


@dataclass(frozen=True)
class Labelled:
    """Images, each of one class."""

    images: Images
    labels: np.ndarray
    """int64 [n]"""
    classes: tuple[str, ...]
    """Their names, in the order of the labels; they may hold anything that a file's name may."""
    weights: np.ndarray | None = None
    """float32 [n]: how much each image counts in the loss; None: all the same."""

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> "Labelled":
        """Some of the images, in the order given."""
        weights = None if self.weights is None else self.weights[indices]
        labels = self.labels[indices]
        return replace(self, images=self.images.subset(indices), labels=labels, weights=weights)


class Split(NamedTuple):
    """Images to train and to validate on; `notes` are sentences that say what was decided."""

    training: Labelled
    validation: Labelled
    notes: tuple[str, ...]

    @property
    def counts(self) -> str:
        """How many images each part has."""
        return counts_of(self.training, self.validation)


def counts_of(training: Sized, validation: Sized) -> str:
    """A sentence on how many images each part has."""
    return (
        f"{counted(len(training), 'image')} for training and "
        f"{counted(len(validation), 'image')} for validation"
    )


def class_name(value: object) -> str | None:
    """The name of a class as a list may write it; None if this is no label."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return None


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, sorted; integers by their value."""
    distinct = set(names)
    if all(INTEGER.fullmatch(name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def names_of(labels: np.ndarray, classes: Sequence[str] | None, where: str) -> list[str]:
    """The names of numbered classes; the numbers themselves if the classes have no names.

    Raises DataError if a label has no class.
    """
    end = np.inf if classes is None else len(classes)
    wrong = labels[(labels < 0) | (labels >= end)]
    if len(wrong):
        known = "labels start at 0" if classes is None else f"there are {len(classes)} classes"
        raise DataError(
            f"{len(wrong)} of {len(labels)} labels in {where} are out of range, the first is {wrong[0]} "
            f"and {known}: give a part of the data that has labels, or name one with --data.val"
        )
    return [str(i) if classes is None else classes[i] for i in labels.tolist()]


def part_named(*names: str) -> str | None:
    """train, val or test if that is a word in one of the names, the first of which decides."""
    words = (word for name in names for word in re.findall("[a-z]+", name.lower()))
    return next((PART_NAMES[word] for word in words if word in PART_NAMES), None)


def some(names: Iterable[str]) -> str:
    """The first of many names, on one line whatever they hold."""
    names = list(names)
    shown = ", ".join(map(repr, names[:NAMES_SHOWN]))
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def refuse_contradictions(parts: Mapping[str, Named | None]) -> None:
    """An image may be named twice, but not with two classes or in two parts: DataError then."""
    seen: dict[str, tuple[str, str]] = {}
    for part, named in parts.items():
        if named is None:
            continue
        for path, label in zip(named.images.paths, named.names, strict=True):
            earlier = seen.setdefault(path, (label, part))
            for its, mine in zip(earlier, (label, part), strict=True):
                if its != mine:
                    raise DataError(f"{path} stands twice, as {its!r} and {mine!r}: keep one of them")
