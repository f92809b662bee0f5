"""Images with labels: found, split into training and validation, and reduced to a few.

Every choice depends on the names of the images, not on their order or the machine, so that it
hardly changes when images come or go.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from unmask.config.schema import DataConfig
from unmask.data.images import Images, name_hash
from unmask.data.sources.elpv import labelled_elpv
from unmask.data.sources.find import HUB, TORCHVISION, find_images, is_dataset
from unmask.data.sources.hub_sets import labelled_hub
from unmask.data.sources.idx import IDX_IMAGES, labelled_idx
from unmask.data.sources.labelled_files import labelled_files
from unmask.data.sources.named import NAMES_SHOWN, Named, Parts, in_order, some
from unmask.data.sources.torchvision_sets import labelled_torchvision
from unmask.errors import DataError

VAL_SHARE = 0.25
"""Of each class, where nothing says which images are for validation."""

ELPV, ELPV_TRAINING, ELPV_PLAIN = "elpv", "elpv:train", "elpv:plain"
FASHION_MNIST = "fashion-mnist"
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


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


def find_labelled(
    sources: tuple[str, ...],
    *,
    val: tuple[str, ...] = (),
    root: str = DataConfig().root,
    download: bool = False,
    label_column: str = "label",
    val_share: float | None = None,
) -> Split:
    """The labelled images of the sources; `LabelledDataConfig` says what each argument means.

    Validation images are those of `val`, or else `val_share` of each class if it is given, or else the
    part of the source that is for it, or else a quarter of each class. Raises DataError with the mend
    where labels are missing or wrong.
    """
    if val_share is not None and not 0 < val_share < 1:
        raise ValueError(f"val_share is {val_share}: give a share between 0 and 1")
    training, validation, notes = _read(sources, root, download, label_column)
    if not len(training):
        raise DataError(f"{', '.join(sources)} has no part for training: name it train")
    _refuse_one_class(training)
    if validation is not None and (val or val_share is not None):
        notes = (*notes, f"{len(validation)} images that the data keep for validation are left out")
        validation = None
    if val:
        given = _read(val, root, download, label_column)
        its_own = None if _names_a_part(val[0]) else given.validation
        validation = given.training if its_own is None else its_own
        notes = (*notes, *given.notes, f"validation images are those of {', '.join(val)}")
        _refuse_common(training, validation)
    if validation is None:
        training, validation, note = _hold_out(training, VAL_SHARE if val_share is None else val_share)
        notes = (*notes, note)
    classes = _classes_of(training, validation)
    split = _numbered(training, classes), _numbered(validation, classes)
    return Split(*split, (*notes, *_counts(*split)))


def find_every(
    sources: tuple[str, ...], *, root: str, download: bool, label_column: str
) -> tuple[list[Labelled], tuple[str, ...]]:
    """The parts of the sources, undivided; one class is enough, since nothing is trained."""
    training, validation, notes = _read(sources, root, download, label_column)
    parts = [part for part in (training, validation) if part is not None and len(part)]
    classes = _classes_of(parts[0], parts[-1])
    return [_numbered(part, classes) for part in parts], notes


def _read(sources: tuple[str, ...], root: str, download: bool, label_column: str) -> Parts:
    if not sources:
        raise DataError(
            "no images were named: give a folder with a folder per class, a .csv with the columns path "
            "and label, or the name of a data set"
        )
    if sources != (ELPV_PLAIN,) and not is_dataset(sources):
        return labelled_files(sources, label_column)
    source = sources[0]
    if source in (ELPV, ELPV_TRAINING, ELPV_PLAIN):
        return labelled_elpv(plain=source == ELPV_PLAIN)
    if source.startswith(TORCHVISION):
        return labelled_torchvision(source.removeprefix(TORCHVISION), root=root, download=download)
    if source.startswith(HUB):
        return labelled_hub(source.removeprefix(HUB), label_column)
    classes = FASHION_MNIST_CLASSES if source == FASHION_MNIST else None
    return labelled_idx(find_images(sources, root=root), classes)


def _names_a_part(source: str) -> bool:
    """Whether it is `torchvision:NAME:SPLIT`, `hf:NAME:SPLIT` or one IDX file."""
    library = source.startswith((TORCHVISION, HUB))
    return (library and source.count(":") > 1) or source.endswith(IDX_IMAGES)


def _refuse_one_class(training: Named) -> None:
    if len(set(training.names)) < 2:
        raise DataError(
            f"all {len(training)} training images are of one class, {training.names[0]!r}, and "
            f"classification needs two: give a folder that holds a folder for each class, or more images"
        )


def _refuse_common(training: Named, validation: Named) -> None:
    known = {os.path.abspath(path) for path in training.images.paths}
    common = [path for path in validation.images.paths if os.path.abspath(path) in known]
    if common:
        raise DataError(
            f"{len(common)} images are for training and for validation, the first is {common[0]}: give "
            f"others with --data.val"
        )


def _hold_out(data: Named, share: float) -> tuple[Named, Named, str]:
    """Training and validation images: the same share of every class."""

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
    note = f"a share of {share:g} of each {groups} is kept for validation, chosen by the images' names"
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


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """float32 [classes]: the inverse of each class's frequency, 0 where it has no images.

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
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    return np.array([numbers[kind] for kind in kinds], dtype=np.int64)


def _rounded(number: float) -> int:
    """The nearest integer; a half goes up."""
    return int(number + 0.5)


def _classes_of(training: Named, validation: Named) -> tuple[str, ...]:
    """All classes in their order; raises DataError where the two parts do not agree on them."""
    classes = training.classes or in_order(training.names)
    both_know = training.classes and validation.classes
    mine, theirs = set(classes), set((both_know and validation.classes) or validation.names)
    missing = mine - theirs if both_know else set()
    unknown = theirs - mine
    if unknown or missing:
        which = [f"only validation has {some(in_order(unknown))}"] if unknown else []
        which += [f"only training has {some(in_order(missing))}"] if missing else []
        raise DataError(
            f"the classes for training and validation differ, {' and '.join(which)}: give both the same"
        )
    return classes


def _numbered(data: Named, classes: tuple[str, ...]) -> Labelled:
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.fromiter((numbers[name] for name in data.names), dtype=np.int64, count=len(data))
    return Labelled(data.images, labels, classes, data.weights)


def _counts(training: Labelled, validation: Labelled) -> Iterable[str]:
    """Sentences on what there is, and on classes without images."""
    classes, parts = training.classes, {"training": training, "validation": validation}
    counts = {name: np.bincount(part.labels, minlength=len(classes)) for name, part in parts.items()}
    yield " and ".join(f"{len(part)} images for {name}" for name, part in parts.items())
    if len(classes) <= NAMES_SHOWN:
        for name, count in counts.items():
            each = ", ".join(f"{n} of {which!r}" for n, which in zip(count, classes, strict=True))
            yield f"for {name} {each}"
    for name, count in counts.items():
        absent = np.flatnonzero(count == 0)
        if len(absent):
            which = some([classes[i] for i in absent])
            yield f"{len(absent)} of {len(classes)} classes have no images for {name}: {which}"
