"""Images with labels: found, divided into training and validation, and their classes numbered."""

from collections.abc import Iterable

import numpy as np

from unmask.config.settings import Source as SourceSettings
from unmask.data.records import NAMES_SHOWN, Labelled, Named, Split, in_order, some
from unmask.data.sources.find import find_parts
from unmask.data.sources.source import Options
from unmask.data.split import VAL_SHARE, hold_out, refuse_common
from unmask.errors import DataError


def find_labelled(
    sources: tuple[str, ...],
    *,
    val: tuple[str, ...] = (),
    root: str = SourceSettings().root,
    download: bool = False,
    label_column: str = "label",
    val_share: float | None = None,
) -> Split:
    """The labelled images of the sources; `config.settings.Labels` says what each argument means.

    Validation images are those of `val`, or else `val_share` of each class if it is given, or else the
    part of the source that is for it, or else a quarter of each class. Raises DataError,
    which says how to correct it, if labels are missing or wrong.
    """
    if val_share is not None and not 0 < val_share < 1:
        raise ValueError(f"val_share is {val_share}: give a share between 0 and 1")
    options = Options(root=root, download=download, label_column=label_column)
    found = find_parts(sources, options)
    training, validation, notes = found.training, found.validation, found.notes
    if not len(training):
        raise DataError(f"{', '.join(sources)} has no part for training: name it train")
    _refuse_one_class(training)
    if validation is not None and (val or val_share is not None):
        notes = (*notes, f"{len(validation)} images that the data keep for validation are left out")
        validation = None
    if val:
        given = find_parts(val, options)
        its_own = None if given.is_one_part else given.validation
        validation = given.training if its_own is None else its_own
        notes = (*notes, *given.notes, f"validation images are those of {', '.join(val)}")
        refuse_common(training.images, validation.images)
    if validation is None:
        training, validation, note = hold_out(training, VAL_SHARE if val_share is None else val_share)
        notes = (*notes, note)
    classes = _classes_of(training, validation)
    split = _numbered(training, classes), _numbered(validation, classes)
    return Split(*split, (*notes, *_counts(*split)))


def find_every(
    sources: tuple[str, ...], *, root: str, download: bool, label_column: str
) -> tuple[list[Labelled], tuple[str, ...]]:
    """The parts of the sources, undivided; one class is enough, since nothing is trained."""
    options = Options(root=root, download=download, label_column=label_column)
    found = find_parts(sources, options)
    parts = [part for part in (found.training, found.validation) if part is not None and len(part)]
    classes = _classes_of(parts[0], parts[-1])
    return [_numbered(part, classes) for part in parts], found.notes


def _refuse_one_class(training: Named) -> None:
    if len(set(training.names)) < 2:
        raise DataError(
            f"all {len(training)} training images are of one class, {training.names[0]!r}, and "
            f"classification needs two: give a folder that holds a folder for each class, or more images"
        )


def _classes_of(training: Named, validation: Named) -> tuple[str, ...]:
    """All classes in their order, of which validation may lack some.

    Raises DataError if an image for validation is of a class that training does not have.
    """
    classes = training.classes or in_order(training.names)
    if unknown := set(validation.names) - set(classes):
        raise DataError(
            f"the classes for training and validation differ, only validation has "
            f"{some(in_order(unknown))}: give both the same"
        )
    return classes


def _numbered(data: Named, classes: tuple[str, ...]) -> Labelled:
    indices = {name: index for index, name in enumerate(classes)}
    labels = np.fromiter((indices[name] for name in data.names), dtype=np.int64, count=len(data))
    return Labelled(data.images, labels, classes, data.weights)


def _counts(training: Labelled, validation: Labelled) -> Iterable[str]:
    """Sentences on the images of each class, and on classes without any."""
    classes, parts = training.classes, {"training": training, "validation": validation}
    counts = {name: np.bincount(part.labels, minlength=len(classes)) for name, part in parts.items()}
    if len(classes) <= NAMES_SHOWN:
        for name, count in counts.items():
            each = ", ".join(f"{which!r} {n}" for n, which in zip(count, classes, strict=True))
            yield f"{name} images per class: {each}"
    for name, count in counts.items():
        absent = np.flatnonzero(count == 0)
        if len(absent):
            which = some([classes[i] for i in absent])
            yield f"{len(absent)} of {len(classes)} classes have no images for {name}: {which}"
