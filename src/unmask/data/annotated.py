"""Annotated images, of objects or label maps: as a source divides them, and to train and validate on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from unmask.data.findings import Finding, joined
from unmask.data.images import Images
from unmask.data.records import TEST, TRAINING, VALIDATION, counts_of, some
from unmask.data.split import VAL_SHARE, held_out_names, refuse_common
from unmask.errors import DataError
from unmask.units import counted


class Annotated(Protocol):
    """Images, what is known of each, and the classes."""

    @property
    def images(self) -> Images:
        """In the order of what is known of them."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of their labels."""
        ...

    def subset(self, indices: np.ndarray) -> Self:
        """Some of the images, in the order given."""
        ...

    def with_classes(self, classes: tuple[str, ...]) -> Self:
        """With the labels of other classes, by name; DataError if one that occurs is not among them."""
        ...


T = TypeVar("T", bound=Annotated)


@dataclass(frozen=True, kw_only=True)
class AnnotatedParts(Generic[T]):
    """What a source holds, divided as it divides itself; None for a part that it does not have."""

    training: T | None = None
    validation: T | None = None
    test: T | None = None
    """Validates if there is no validation part."""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, parts: Mapping[str, T], findings: Iterable[Sequence[Finding]]) -> "AnnotatedParts[T]":
        """From the parts by their names; findings of one kind are joined."""
        return cls(
            training=parts.get(TRAINING),
            validation=parts.get(VALIDATION),
            test=parts.get(TEST),
            findings=joined(findings),
        )


class AnnotatedSplit(NamedTuple, Generic[T]):
    """Images to train and to validate on, of the same classes."""

    training: T
    validation: T
    findings: tuple[Finding, ...]
    """What is odd in the annotations, and what happens to it: for `check`, and before training."""
    notes: tuple[str, ...]
    """Sentences on what was decided."""

    @property
    def counts(self) -> str:
        """How many images each part has."""
        return counts_of(self.training.images, self.validation.images)


def divided(
    source: str, found: AnnotatedParts[T], given: AnnotatedParts[T] | None, val_share: float | None
) -> AnnotatedSplit[T]:
    """Training and validation images of a source.

    The latter are those of `given`, what the user names for validation, or else `val_share` of all if
    it is given, or else the part of the source that is for it, or else a quarter, chosen by a hash of
    the names. Raises DataError, which says how to correct it, if there are none, or one is in both, or a
    class only in validation.
    """
    if val_share is not None and not 0 < val_share < 1:
        raise ValueError(f"val_share is {val_share}: give a share between 0 and 1")
    if found.training is None:
        raise DataError(f"{source} has no part for training: put train into its name")
    training, findings, notes = found.training, [found.findings], list(found.notes)
    validation = found.test if found.validation is None else found.validation
    if found.test is not None:
        what = "are for validation" if found.validation is None else "are left out"
        notes.append(f"{len(found.test.images)} images of the test part {what}")
    if validation is not None and (given is not None or val_share is not None):
        count = len(validation.images)
        notes.append(f"{count} images that the data keep for validation are left out")
        validation = None
    if given is not None:
        parts = (given.validation, given.test, given.training)
        validation = next(part for part in parts if part is not None)
        findings.append(given.findings)
    if validation is None:
        training, validation, note = _held_out(training, VAL_SHARE if val_share is None else val_share)
        notes.append(note)
    validation = validation.with_classes(training.classes)
    refuse_common(training.images, validation.images)
    notes.append(f"{counted(len(training.classes), 'class')}: {some(training.classes)}")
    return AnnotatedSplit(training, validation, joined(findings), tuple(notes))


def only_in_validation(names: list[str]) -> DataError:
    """The error for classes that training lacks."""
    return DataError(
        f"the classes for training and validation differ, only validation has {some(names)}: give both "
        f"the same"
    )


def _held_out(data: T, share: float) -> tuple[T, T, str]:
    chosen = held_out_names(list(data.images.names()), share)
    note = f"{share:.0%} of the images are held out for validation, chosen by a hash of their names"
    return data.subset(np.flatnonzero(~chosen)), data.subset(np.flatnonzero(chosen)), note
