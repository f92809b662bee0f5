"""Hugging Face's data sets: their images, and their labels without decoding any."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unmask.data.decode.files import open_encoded, open_file
from unmask.data.decode.pictures import Picture
from unmask.data.decode.reading import Reading
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.records import Named, Parts, class_name, names_of
from unmask.data.sources.idx import index_names, number_of, numbered
from unmask.data.sources.source import Options, Source
from unmask.errors import DataError

PREFIX = "hf:"
WRITTEN_BY_SAVE_TO_DISK = ("dataset_dict.json", "state.json")
SECONDS_FOR_AN_ANSWER = 2.0
VALIDATION_SPLITS = ("validation", "val", "valid", "dev", "test")


class HubImages:
    """Opens the encoded images of a Hugging Face data set with our own decoders."""

    def __init__(self, dataset: Any, column: str):
        self.dataset, self.column = dataset, column

    @contextmanager
    def __call__(self, name: str, reading: Reading) -> Iterator[Picture]:
        stored = self.dataset[number_of(name)][self.column]
        if stored["bytes"] is None:
            with open_file(stored["path"], reading) as picture:
                yield picture
        else:
            with open_encoded(io.BytesIO(stored["bytes"]), reading) as picture:
                yield picture


def _images(word: str, options: Options) -> Images:
    words = word.removeprefix(PREFIX)
    return images_of_hub(hub_dataset(words), words)


def images_of_hub(dataset: Any, words: str) -> Images:
    """The first column of images of a data set that is called by these words."""
    from datasets import Image as ImageColumn

    columns = [name for name, kind in dataset.features.items() if isinstance(kind, ImageColumn)]
    if not columns:
        raise DataError(
            f"the data set {words} has no column of images among {', '.join(dataset.features)}: give "
            f"another one, or cast the column to datasets.Image"
        )
    dataset = dataset.cast_column(columns[0], ImageColumn(decode=False))
    name = Path(words).name.replace(":", "-")
    opener = HubImages(dataset.select_columns(columns[0]), columns[0])
    licence = dataset.info.license
    note = f"the data set {words} names the licence {licence}" if licence else ""
    if (files := _files_below(words.partition(":")[0], dataset, columns[0])) is not None:
        return Images(name, PathList(files), note)
    container = os.path.join(os.path.dirname(Path(words)), name)
    return Images(name, numbered(container, len(dataset)), note, opener)


def _files_below(folder: str, dataset: Any, column: str) -> list[str] | None:
    """The file of each image if all lie in the folder: then a broken one is skipped by its name."""
    inside = os.path.join(os.path.abspath(folder), "")

    def lies_inside(stored: dict[str, Any] | None) -> bool:
        return bool(stored and stored["bytes"] is None and stored["path"].startswith(inside))

    if not os.path.isdir(folder) or not len(dataset) or not lies_inside(dataset[0][column]):
        return None
    stored = dataset.select_columns([column])[:][column]
    return [one["path"] for one in stored] if all(map(lies_inside, stored)) else None


def hub_dataset(words: str) -> Any:
    """The data set itself, from the disk or the hub; its training part if none is named."""
    name, _, split = words.partition(":")
    return _split_of(hub_splits(name), name, split or "train")


def _split_of(splits: dict[str, Any], name: str, split: str) -> Any:
    if split in splits:
        return splits[split]
    raise DataError(
        f"the data set {name} has no split {split!r}: write hf:{name}:SPLIT with one of "
        f"{', '.join(splits)}"
    )


def hub_splits(name: str) -> dict[str, Any]:
    """All parts of a data set; one without parts is called train.

    `name` is a folder that save_to_disk wrote, or one of parquet files, or of images with
    metadata.csv or metadata.jsonl, or else a name on the hub. Raises DataError if it cannot be loaded;
    without a network that is at once, unless the library has a copy in its cache.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError("Hugging Face data sets need a library: pip install 'unmask[hub]'") from error
    try:
        if any(os.path.isfile(os.path.join(name, file)) for file in WRITTEN_BY_SAVE_TO_DISK):
            found = datasets.load_from_disk(name)
        elif os.path.isdir(name) or _hub_answers(name):
            found = datasets.load_dataset(name)
        else:
            with _offline():
                found = datasets.load_dataset(name)
    except Exception as error:  # the library raises its own, its network's and its file system's errors
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"the Hugging Face data set {name} cannot be loaded ({reason[0]}): give a folder written by "
            f"save_to_disk, of parquet files or of images with metadata.csv, or a name on the hub and a "
            f"network"
        ) from error
    return found if isinstance(found, dict) else {"train": found}


def _hub_answers(name: str) -> bool:
    """Asks once: `load_dataset` itself tries six times, for half a minute, without a network."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(name, timeout=SECONDS_FOR_AN_ANSWER)
    except HfHubHTTPError:
        return True  # what it answers is for `load_dataset` to tell
    except Exception:  # which library sends the request, and so what it raises, differs by version
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Both libraries read their caches alone; as they were afterwards."""
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _labelled(word: str, options: Options) -> Parts:
    """The labelled images, and the part for validation if the word names no split."""
    words, label_column = word.removeprefix(PREFIX), options.label_column
    name, _, split = words.partition(":")
    splits = hub_splits(name)
    dataset = _split_of(splits, name, split or "train")
    column = _column_of_labels(dataset, words, label_column)
    training = _named(dataset, words, column)
    notes = () if column == label_column else (f"labels are from the column {column} of {name}",)
    other = next((other for other in VALIDATION_SPLITS if other in splits), None)
    if split or other is None:
        return Parts(training=training, notes=notes, is_one_part=bool(split))
    validation = _named(splits[other], f"{name}:{other}", column)
    notes = (*notes, f"{PREFIX}{name}:{other} is for validation")
    return Parts(training=training, validation=validation, notes=notes)


def _column_of_labels(dataset: Any, words: str, wanted: str) -> str:
    """The one that was asked for, or else the only one that holds classes."""
    from datasets import ClassLabel

    found = [name for name, kind in dataset.features.items() if isinstance(kind, ClassLabel)]
    if wanted in dataset.features:
        return wanted
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"the data set {words} has no column {wanted!r} among {', '.join(dataset.features)}: name that "
        f"of the labels with --data.label-column"
    )


def _named(dataset: Any, words: str, column: str) -> Named:
    from datasets import ClassLabel

    if column not in dataset.features:
        raise DataError(
            f"hf:{words} has no column {column!r}, so no labels: give labelled images with --data.val"
        )
    kind, images = dataset.features[column], images_of_hub(dataset, words)
    values = dataset.select_columns([column])[:][column]
    keys = index_names(len(images)) if isinstance(images.opener, HubImages) else list(images.names())
    if isinstance(kind, ClassLabel):
        labels = np.array([-1 if value is None else value for value in values], dtype=np.int64)
        return Named(images, names_of(labels, kind.names, f"hf:{words}"), keys, tuple(kind.names))
    names = [class_name(value) for value in values]
    named = [name for name in names if name is not None]
    if missing := len(names) - len(named):
        raise DataError(
            f"{missing} of {len(names)} images of hf:{words} have no class in the column {column}: "
            f"leave them out, or name another column with --data.label-column"
        )
    return Named(images, named, keys)


def _matches(word: str) -> bool:
    return word.startswith(PREFIX)


SOURCE = Source(matches=_matches, images=_images, labelled=_labelled)
"""`hf:NAME` or `hf:FOLDER`, or either with `:SPLIT`; a folder is of any kind that `hub_splits` reads."""
