"""Images that share a file or come from another library: IDX, torchvision, Hugging Face.

Each is an `Opener` whose names end in #number.
"""

import gzip
import inspect
import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unmask.data.files import array_picture, open_encoded, open_file
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.pictures import Picture, PillowPicture
from unmask.errors import DataError

IDX_IMAGES = ("-images-idx3-ubyte", "-images-idx3-ubyte.gz", ".idx3-ubyte", ".idx3-ubyte.gz")
IDX_UNSIGNED_BYTES = 0x08


def numbered(container: str, count: int) -> PathList:
    """`container#0` to `container#count-1`."""
    return PathList(f"{container}#{i}" for i in range(count))


def number_of(name: str) -> int:
    """What stands behind the last #."""
    return int(name.rsplit("#", 1)[1])


class ArrayImages:
    """Opens the rows of one array [n, h, w] or [n, h, w, C]."""

    def __init__(self, array: np.ndarray, kind: str):
        self.array, self.kind = array, kind

    @contextmanager
    def __call__(self, name: str, channels: int | None) -> Iterator[Picture]:
        yield array_picture(self.array[number_of(name)], kind=self.kind, channels=channels)


def idx_images(file: str) -> Images:
    """The images of an IDX file, the format of MNIST and Fashion-MNIST, gzipped or not."""
    array = read_idx(file)
    if array.ndim not in (3, 4):
        raise DataError(
            f"{file} holds {array.ndim} dimension(s) and images need three: give the file of images, "
            f"not that of labels"
        )
    name = Path(file).name.split("-images")[0].split(".")[0]
    stem = f"{Path(file).parent.name}-{name}"
    return Images(stem, numbered(file, len(array)), opener=ArrayImages(array, "IDX"))


def read_idx(file: str) -> np.ndarray:
    """The array of unsigned bytes in an IDX file; raises DataError where it is something else."""
    try:
        with gzip.open(file) if file.endswith(".gz") else open(file, "rb") as stream:
            zero, kind, dimensions = struct.unpack(">HBB", stream.read(4))
            if zero != 0 or kind != IDX_UNSIGNED_BYTES or not 1 <= dimensions <= 4:
                raise ValueError("its first bytes are not those of unsigned bytes")
            shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
            values = np.frombuffer(stream.read(), dtype=np.uint8)
            if len(values) != np.prod(shape, dtype=np.int64):
                raise ValueError(f"it holds {len(values)} values and promises {shape}")
            return values.reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{file} is no IDX file ({error}): get a fresh copy") from error


def idx_file_in(folder: str) -> str | None:
    """The training images among the IDX files of a folder; None where there are none."""
    files = sorted(name for name in os.listdir(folder) if name.endswith(IDX_IMAGES))
    training = [name for name in files if name.startswith("train")]
    return os.path.join(folder, (training or files)[0]) if files else None


class DatasetImages:
    """Opens the items of a data set of torchvision, whose first entry is the image."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    @contextmanager
    def __call__(self, name: str, channels: int | None) -> Iterator[Picture]:
        image = self.dataset[number_of(name)][0]
        if not isinstance(image, Image.Image):
            raise ValueError(f"the data set gives a {type(image).__name__}, not an image")
        yield PillowPicture(image)


def torchvision_images(words: str, *, root: str, download: bool) -> Images:
    """`NAME` or `NAME:SPLIT` of torchvision's data sets, stored below `root`."""
    dataset = torchvision_dataset(words, root=root, download=download)
    name = words.replace(":", "-").lower()
    samples = getattr(dataset, "samples", None)
    if samples and isinstance(samples[0][0], str):  # files: then a broken one is skipped like any other
        return Images(name, PathList(path for path, *_ in samples))
    return Images(name, numbered(name, len(dataset)), opener=DatasetImages(dataset))


def torchvision_dataset(words: str, *, root: str, download: bool) -> Any:
    """The data set itself; raises DataError with the mend where it is unknown or not there."""
    from torchvision import datasets

    name, _, split = words.partition(":")
    known = {known.lower(): known for known in datasets.__all__ if known != "FakeData"}
    if name.lower() not in known:
        raise DataError(
            f"torchvision has no data set {name!r}: choose one of {', '.join(known.values())}"
        )
    make = getattr(datasets, known[name.lower()])
    accepted = inspect.signature(make).parameters
    values: dict[str, Any] = {"root": root, "download": download}
    if split:
        values |= {"split": split, "train": split == "train"}
    try:
        return make(**{key: value for key, value in values.items() if key in accepted})
    except TypeError as error:
        raise DataError(
            f"torchvision's {name} needs more than a folder ({error}): give its folder of images instead"
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        where = "add --data.download" if "download" in accepted else "get it by hand"
        raise DataError(
            f"torchvision's {name} is not below {root} ({str(error).splitlines()[0]}): set --data.root "
            f"to where it is, or {where}"
        ) from error


class HubImages:
    """Opens the encoded images of a Hugging Face data set with our own decoders."""

    def __init__(self, dataset: Any, column: str):
        self.dataset, self.column = dataset, column

    @contextmanager
    def __call__(self, name: str, channels: int | None) -> Iterator[Picture]:
        stored = self.dataset[number_of(name)][self.column]
        if stored["bytes"] is None:
            with open_file(stored["path"], channels) as picture:
                yield picture
        else:
            with open_encoded(io.BytesIO(stored["bytes"])) as picture:
                yield picture


def hub_images(words: str) -> Images:
    """`DIRECTORY` or `NAME`, or either with `:SPLIT`, of Hugging Face's data sets."""
    dataset = hub_dataset(words)
    from datasets import Image as ImageColumn

    columns = [name for name, kind in dataset.features.items() if isinstance(kind, ImageColumn)]
    if not columns:
        raise DataError(
            f"the data set {words} has no column of images among {', '.join(dataset.features)}: give "
            f"another one, or cast the column to datasets.Image"
        )
    dataset = dataset.cast_column(columns[0], ImageColumn(decode=False))
    name = Path(words.partition(":")[0]).name
    opener = HubImages(dataset.select_columns(columns[0]), columns[0])
    licence = dataset.info.license
    note = f"the data set {words} names the licence {licence}" if licence else ""
    return Images(name, numbered(name, len(dataset)), note, opener)


def hub_dataset(words: str) -> Any:
    """The data set itself, from the disk or the hub."""
    try:
        import datasets
    except ImportError as error:
        raise DataError("Hugging Face data sets need a library: pip install 'unmask[hub]'") from error
    name, _, split = words.partition(":")
    try:
        found = datasets.load_from_disk(name) if os.path.isdir(name) else datasets.load_dataset(name)
    except Exception as error:  # the library raises its own, its network's and its file system's errors
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"the Hugging Face data set {name} cannot be loaded ({reason[0]}): give a folder written by "
            f"save_to_disk, or a name on the hub and a network"
        ) from error
    if not isinstance(found, dict):
        return found
    if (split or "train") in found:
        return found[split or "train"]
    raise DataError(
        f"the data set {name} has no split {split or 'train'!r}: write hf:{name}:SPLIT with one of "
        f"{', '.join(found)}"
    )
