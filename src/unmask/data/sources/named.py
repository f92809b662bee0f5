"""Images with the names of their classes, before the classes are numbered: what every source gives."""

import json
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from unmask.data.images import Images
from unmask.errors import DataError

INTEGER = re.compile(r"-?[0-9]{1,18}")
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Named:
    """Images, the class of each, and how they may be divided."""

    images: Images
    names: list[str]
    """The class of each image."""
    keys: list[str]
    """Decides on which side of a split an image falls: a name that is the same on every machine."""
    classes: tuple[str, ...] | None = None
    """All classes in their order, where the source knows them; None: those that occur."""
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


class Parts(NamedTuple):
    """What a source holds; `validation` is None where it has no such part."""

    training: Named
    validation: Named | None
    notes: tuple[str, ...] = ()


def class_name(value: object) -> str | None:
    """The name of a class as a list may write it; None where this is no label."""
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
    """The names of numbered classes; the numbers themselves where the classes have no names.

    Raises DataError where a label has no class.
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


def some(names: Iterable[str]) -> str:
    """The first of many names, on one line whatever they hold."""
    names = list(names)
    shown = ", ".join(map(repr, names[:NAMES_SHOWN]))
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")
