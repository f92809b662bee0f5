"""Images that share a file: IDX, the format of MNIST, with labels.

Each kind is an `Opener` whose names end in #number.
"""

import gzip
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from unmask.data.decode.arrays import array_picture
from unmask.data.decode.pictures import Picture
from unmask.data.decode.reading import Reading
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.records import Named, Parts, names_of
from unmask.data.sources.source import Options, Source
from unmask.errors import DataError
from unmask.storage import CHUNK, open_regular
from unmask.units import counted

IDX_IMAGES = ("-images-idx3-ubyte", "-images-idx3-ubyte.gz", ".idx3-ubyte", ".idx3-ubyte.gz")
IDX_TEST = ("t10k", "test", "val")
"""What the names of files for validation start with."""
IDX_UNSIGNED_BYTES = 0x08
IDX_MOST_BYTES = 2**31
"""2 GiB: 45 times MNIST. A gzipped file of a thousandth of that may unpack to it."""


def numbered(container: str, count: int) -> PathList:
    """`container#0` to `container#count-1`."""
    return PathList(f"{container}#{i}" for i in range(count))


def index_names(count: int) -> list[str]:
    """The keys of a container's images: what it is called, and where it lies, does not matter."""
    return [str(i) for i in range(count)]


def number_of(name: str) -> int:
    """What stands behind the last #."""
    return int(name.rsplit("#", 1)[1])


class ArrayImages:
    """Opens the rows of one array [n, h, w] or [n, h, w, C]."""

    def __init__(self, array: np.ndarray, kind: str):
        self.array, self.kind = array, kind

    @contextmanager
    def __call__(self, name: str, reading: Reading) -> Iterator[Picture]:
        yield array_picture(self.array[number_of(name)], kind=self.kind, reading=reading)


def idx_images(file: str) -> Images:
    """The images of an IDX file, the format of MNIST and Fashion-MNIST, gzipped or not."""
    array = read_idx(file)
    if array.ndim not in (3, 4):
        raise DataError(
            f"{file} holds {counted(array.ndim, 'dimension')} and images need three: give the "
            f"file of images, not that of labels"
        )
    name = Path(file).name.split("-images")[0].split(".")[0]
    stem = f"{Path(file).parent.name}-{name}"
    return Images(stem, numbered(file, len(array)), opener=ArrayImages(array, "IDX"))


def read_idx(file: str) -> np.ndarray:
    """The array of unsigned bytes in an IDX file; raises DataError if it is something else.

    What its header promises is compared with its size, or read up to that and no further.
    """
    try:
        with (
            open_regular(Path(file)) as descriptor,
            open(descriptor, "rb", closefd=False) as raw,
            gzip.open(raw) if file.endswith(".gz") else raw as stream,
        ):
            zero, kind, dimensions = struct.unpack(">HBB", stream.read(4))
            if zero != 0 or kind != IDX_UNSIGNED_BYTES or not 1 <= dimensions <= 4:
                raise ValueError("its first bytes are not those of unsigned bytes")
            shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
            promised = math.prod(shape)
            if not 0 < promised <= IDX_MOST_BYTES:
                raise ValueError(f"it promises {shape}, and 1 to {IDX_MOST_BYTES} values are read")
            here = os.fstat(descriptor).st_size - stream.tell()
            if stream is raw and here != promised:
                raise ValueError(f"it holds {here} values and promises {shape}")
            values = bytearray()
            while piece := stream.read(min(CHUNK, promised + 1 - len(values))):
                values += piece
            if len(values) != promised:
                found = len(values) if len(values) < promised else "more"
                raise ValueError(f"it holds {found} values and promises {shape}")
            return np.frombuffer(values, dtype=np.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{file} is no IDX file ({error}): get a fresh copy") from error


def idx_file_in(folder: str) -> str | None:
    """The training images among the IDX files of a folder; None if there are none."""
    files = _idx_names(folder)
    training = [name for name in files if name.startswith("train")]
    return os.path.join(folder, (training or files)[0]) if files else None


def _idx_names(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder or ".") if name.endswith(IDX_IMAGES))


def labelled_idx(images: Images, classes: tuple[str, ...] | None = None) -> Parts:
    """IDX images with the labels beside them; validated on the test images of the same folder."""
    if not len(images):
        raise DataError(f"{images.name} holds no images: get a fresh copy of its IDX files")
    file = images.paths[0].rsplit("#", 1)[0]
    test = next((name for name in _idx_names(os.path.dirname(file)) if name.startswith(IDX_TEST)), None)
    training = _named_idx(images, file, classes)
    if test is None or Path(file).name.startswith(IDX_TEST):
        return Parts(training=training)
    place = os.path.join(os.path.dirname(file), test)
    validation = replace(idx_images(place), name=images.name, licence_note=images.licence_note)
    return Parts(
        training=training,
        validation=_named_idx(validation, place, classes),
        notes=(f"{place} is for validation",),
    )


def _named_idx(images: Images, file: str, classes: tuple[str, ...] | None) -> Named:
    place = _labels_beside(file)
    labels = read_idx(place)
    if labels.shape != (len(images),):
        shape = " x ".join(map(str, labels.shape))
        raise DataError(
            f"{file} holds {len(images)} images and {place} {shape} labels: get fresh copies of both"
        )
    return Named(images, names_of(labels, classes, place), index_names(len(images)), classes)


def _labels_beside(file: str) -> str:
    folder, name = os.path.split(file.removesuffix(".gz"))
    wanted = os.path.join(folder, name.replace("images", "labels").replace("idx3", "idx1"))
    for place in (wanted, f"{wanted}.gz"):
        if wanted != file.removesuffix(".gz") and os.path.isfile(place):
            return place
    raise DataError(f"the labels of {file} are not beside it: put {wanted} there, gzipped or not")


def _matches(word: str) -> bool:
    return word.endswith(IDX_IMAGES) or (os.path.isdir(word) and idx_file_in(word) is not None)


def _images(word: str, options: Options) -> Images:
    return idx_images((idx_file_in(word) or word) if os.path.isdir(word) else word)


def _labelled(word: str, options: Options) -> Parts:
    return replace(labelled_idx(_images(word, options)), is_one_part=word.endswith(IDX_IMAGES))


SOURCE = Source(matches=_matches, images=_images, labelled=_labelled)
