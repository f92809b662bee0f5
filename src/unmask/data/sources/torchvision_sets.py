"""The data sets of torchvision: their images, and their labels without decoding any."""

import inspect
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from unmask.data.decode.pictures import Picture
from unmask.data.decode.pillow import PillowPicture
from unmask.data.decode.reading import Reading
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.records import Named, Parts, names_of
from unmask.data.sources.idx import index_names, number_of, numbered
from unmask.data.sources.source import Options, Source
from unmask.errors import DataError

PREFIX = "torchvision:"
SPLIT_KEYWORDS = ("split", "version")
"""How data sets call their parts; INaturalist says version."""


class DatasetImages:
    """Opens the items of a data set of torchvision, whose first entry is the image."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    @contextmanager
    def __call__(self, name: str, reading: Reading) -> Iterator[Picture]:
        image = self.dataset[number_of(name)][0]
        if not isinstance(image, Image.Image):
            raise ValueError(f"the data set gives a {type(image).__name__}, not an image")
        yield PillowPicture(image)


def _images(word: str, options: Options) -> Images:
    words = word.removeprefix(PREFIX)
    return images_of(torchvision_dataset(words, options), words)


def images_of(dataset: Any, words: str) -> Images:
    """The images of a data set that torchvision calls by these words.

    Files are opened as files, so that a broken one is skipped like any other.
    """
    name = words.replace(":", "-").lower()
    files = files_of(dataset)
    if files is not None:
        return Images(name, PathList(sorted(files)))  # some are listed in the order of the disk
    return Images(name, numbered(name, len(dataset)), opener=DatasetImages(dataset))


def files_of(dataset: Any) -> list[str] | None:
    """The file of each item, if the items of one of torchvision's data sets are files."""
    if hasattr(dataset, "all_categories"):  # INaturalist
        return [os.path.join(dataset.root, dataset.all_categories[i], f) for i, f in dataset.index]
    for attribute in ("samples", "imgs", "_samples", "_image_files", "_images"):
        entries = getattr(dataset, attribute, None)
        if isinstance(entries, list) and 0 < len(entries) == len(dataset):
            files = [entry[0] if isinstance(entry, tuple) else entry for entry in entries]
            if isinstance(files[0], str | Path):
                return [str(file) for file in files]
    return None


class UnknownSplit(DataError):
    """A data set has no part of that name."""


def torchvision_dataset(words: str, options: Options) -> Any:
    """The data set itself; raises DataError with a fix if it is unknown or not there."""
    make, root = torchvision_class(words), options.root
    name, *splits = words.split(":")
    accepted = parameters(make)
    values: dict[str, Any] = {"root": root, "download": options.download}
    values = {key: value for key, value in values.items() if key in accepted}
    for split in splits:
        values |= _split_argument(name, accepted, split)
    try:
        return make(**values)
    except TypeError as error:
        raise DataError(
            f"torchvision's {name} needs more than a folder ({error}): give its folder of images instead"
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, ValueError) and "Valid values are" in reason:
            raise UnknownSplit(f"torchvision's {name}: {reason}") from error
        command = ["unmask", "check", f"torchvision:{words}", "--data.root", root, "--data.download"]
        how = f"run `{shlex.join(command)}`" if "download" in accepted else "get it by hand"
        raise DataError(
            f"torchvision's {words} is not below {root} ({reason}): set --data.root (of predict and "
            f"embed: --root) to where it is, or {how}"
        ) from error


def torchvision_class(words: str) -> Any:
    """The class behind `NAME` or `NAME:SPLIT`, whatever its letters' case."""
    from torchvision import datasets

    name = words.partition(":")[0]
    known = {known.lower(): known for known in datasets.__all__ if known != "FakeData"}
    if name.lower() not in known:
        raise DataError(
            f"torchvision has no data set {name!r}: choose one of {', '.join(known.values())}"
        )
    return getattr(datasets, known[name.lower()])


def parameters(make: type) -> dict[str, inspect.Parameter]:
    """What a class can be made with, those included that it hands on to its parents."""
    found: dict[str, inspect.Parameter] = {}
    for cls in make.__mro__:
        own = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
        found = {**own, **found}
        if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in own.values()):
            break
    return found


def _split_argument(name: str, accepted: dict[str, inspect.Parameter], split: str) -> dict[str, Any]:
    if "train" in accepted and split in ("train", "test"):
        return {"train": split == "train"}
    for keyword in SPLIT_KEYWORDS:
        if keyword in accepted:
            return {keyword: split}
    parts = "train or test" if "train" in accepted else "no parts: leave it out"
    raise UnknownSplit(f"torchvision's {name} has no split {split!r}, it has {parts}")


def _labelled(word: str, options: Options) -> Parts:
    """The labelled images, and the part of the data set that is for validation."""
    words = word.removeprefix(PREFIX)
    training = _named(torchvision_dataset(words, options), words)
    is_one_part = ":" in words
    for other in _words_for_validation(words):
        try:
            validation = _named(torchvision_dataset(other, options), other)
        except UnknownSplit:
            continue
        return Parts(
            training=training,
            validation=validation,
            notes=(f"{PREFIX}{other} is for validation",),
            is_one_part=is_one_part,
        )
    return Parts(training=training, is_one_part=is_one_part)


def _words_for_validation(words: str) -> list[str]:
    """What the part for validation may be called, the usual name first; none beside a test part."""
    accepted = parameters(torchvision_class(words))
    name, *splits = words.split(":")
    if "train" in accepted:
        kept = [split for split in splits if split != "train"]
        return [] if "test" in splits else [":".join([name, *kept, "test"])]
    keyword = next((keyword for keyword in SPLIT_KEYWORDS if keyword in accepted), None)
    if keyword is None:
        return []
    trained = splits[0] if splits else str(accepted[keyword].default)
    if keyword == "version":
        return [f"{name}:2021_valid"] if trained.startswith("2021_train") else []
    if not trained.startswith("train"):
        return []
    return [f"{name}:{split}" for split in ("val", "valid", "test") if split not in trained]


def _named(dataset: Any, words: str) -> Named:
    labels, files = _labels_of(dataset, words), files_of(dataset)
    images = images_of(dataset, words)
    if files is not None:
        labels = labels[sorted(range(len(files)), key=files.__getitem__)]
    keys = index_names(len(images)) if files is None else list(images.names())
    classes = _classes_of(dataset)
    return Named(images, names_of(labels, classes, f"torchvision:{words}"), keys, classes)


def _labels_of(dataset: Any, words: str) -> np.ndarray:
    """int64 [n]; -1 if an image has none."""
    entries = _label_entries(dataset)
    if entries is not None:
        labels = np.asarray([-1 if entry is None else entry for entry in entries])
        if labels.ndim == 1 and labels.dtype.kind in "iu":
            return labels.astype(np.int64)
    raise DataError(
        f"torchvision's {words} does not have one class for each image: give its images as folders, one "
        f"for each class, or as a .csv with the columns path and label"
    )


def _label_entries(dataset: Any) -> Sequence[Any] | np.ndarray | None:
    """Something like a list of labels, wherever this data set keeps it."""
    if hasattr(dataset, "all_categories"):  # INaturalist
        return [category for category, _ in dataset.index]
    for attribute in ("targets", "labels", "_labels", "y"):
        entries = getattr(dataset, attribute, None)
        if entries is not None and len(entries) == len(dataset):
            return entries.numpy() if isinstance(entries, Tensor) else entries
    for attribute in ("samples", "imgs", "_samples"):
        pairs = getattr(dataset, attribute, None)
        if pairs is not None and len(pairs) == len(dataset):
            return [pair[1] for pair in pairs]
    return None


def _classes_of(dataset: Any) -> tuple[str, ...] | None:
    """One name for each class.

    ImageNet has several: then it is the first, all of them if two classes share the first, and a
    number in addition if they share all.
    """
    classes = getattr(dataset, "classes", None) or getattr(dataset, "all_categories", None)
    if not classes:
        return None
    several = [(names,) if isinstance(names, str) else tuple(names) for names in classes]
    firsts = Counter(names[0] for names in several)
    chosen = [names[0] if firsts[names[0]] == 1 else ", ".join(names) for names in several]
    count = Counter(chosen)
    return tuple(name if count[name] == 1 else f"{name} ({i})" for i, name in enumerate(chosen))


def _matches(word: str) -> bool:
    return word.startswith(PREFIX)


SOURCE = Source(matches=_matches, images=_images, labelled=_labelled)
"""`torchvision:NAME` or `torchvision:NAME:SPLIT`, stored below `Options.root`."""
