"""The images of one data set: names, and how to open each."""

import errno
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from torch import Tensor

from unmask.config.image import PixelFormat
from unmask.data.decode.files import open_file
from unmask.data.decode.pictures import BadImage, Picture
from unmask.data.decode.reading import AS_IT_SAYS, Reading
from unmask.data.paths import PathList
from unmask.data.reading import reading
from unmask.errors import AnnotationError
from unmask.faults import fault_point

T = TypeVar("T")

PASSING = {errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.ESTALE, errno.EINTR, errno.ENOTCONN}
"""Errors of a storage that may be over in a moment."""
SECONDS_BETWEEN_TRIES = (0.1, 1.0)
STAMPED_FILES = 20_000
"""At most so many files of a data set are asked for size and time: a second on slow storage."""

Opener = Callable[[str, Reading], AbstractContextManager[Picture]]
"""From a name, and what is known of how to read it, to an open picture."""


@dataclass(frozen=True)
class Images:
    """The images of one data set, in a fixed order.

    A name is a path, or `container#number` if many images share a file.
    """

    name: str
    paths: PathList
    licence_note: str = ""
    opener: Opener = open_file

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int, reading: Reading = AS_IT_SAYS) -> AbstractContextManager[Picture]:
        """One image with its header read; raises almost anything if it is broken."""
        return self.opener(self.paths[index], reading)

    def decode(self, index: int, wanted: PixelFormat) -> Tensor | BadImage:
        """All pixels of one image, [C, h, w], or why it cannot be used."""
        return self.take(index, wanted, lambda picture: picture.pixels(wanted))

    def take(self, index: int, wanted: PixelFormat, use: Callable[[Picture], T]) -> T | BadImage:
        """What `use` makes of one open picture, or why it cannot be used.

        `use` may be called again if the storage fails for a moment; an AnnotationError of its passes.
        """
        try:
            return tried_again(lambda: self._take(index, wanted, use))
        except OSError as error:
            return BadImage.of(self.paths[index], error)

    def _take(self, index: int, wanted: PixelFormat, use: Callable[[Picture], T]) -> T | BadImage:
        """Raises OSError if it may be worth another try."""
        try:
            fault_point("decode.open")
            with reading(self.paths[index]), self.open(index, Reading.of(wanted)) as picture:
                fault_point("decode.pixels")
                return use(picture)
        except AnnotationError:
            raise
        except Exception as error:  # broken files raise almost anything out of their decoders
            if isinstance(error, OSError) and error.errno in PASSING:
                raise
            return BadImage.of(self.paths[index], error)

    def subset(self, indices: Sequence[int] | np.ndarray | range) -> "Images":
        """Some of the images, in the order given."""
        return replace(self, paths=self.paths.take(indices))

    def fingerprint(self) -> str:
        """Changes when an image is added, removed or renamed."""
        checksum = 0
        for names in self._encoded_names():
            checksum = zlib.crc32(b"".join(names), checksum)
        return f"{len(self.paths)} images, names {checksum:08x}"

    def stamps(self) -> tuple[str, str]:
        """Checksums of the files' sizes, and of when their content changed.

        Of at most STAMPED_FILES, at equal distances; an image in a container counts as the container.
        """
        every = range(0, len(self.paths), -(-len(self.paths) // STAMPED_FILES) or 1)
        found = np.array([_stamp(self.paths[i]) for i in every], dtype=np.int64).reshape(-1, 2)
        sizes, times = (f"{zlib.crc32(column.tobytes()):08x}" for column in found.T)
        return sizes, times

    def split(self, held_out: int) -> tuple["Images", "Images"]:
        """Training and held-out images.

        The choice depends on each image's own name, so that it hardly changes when images come or go.
        """
        digests = b"".join(b"".join(map(_digest, names)) for names in self._encoded_names())
        hashes = np.frombuffer(digests, dtype=">u8").astype(np.uint64)
        order = np.argsort(hashes, kind="stable")
        return self.subset(np.sort(order[held_out:])), self.subset(np.sort(order[:held_out]))

    def names(self) -> Iterator[str]:
        """Each path from where all of them part, so that the folder may be moved or renamed."""
        pieces = self._encoded_names()
        return (name.decode("utf-8", "surrogateescape") for names in pieces for name in names)

    def _encoded_names(self) -> Iterator[list[bytes]]:
        return self.paths.pieces(skip=self.paths.shared().rfind(os.sep.encode()) + 1)


def tried_again(read: Callable[[], T]) -> T:
    """What `read` gives, which is called again if the storage fails for a moment.

    Raises its last error.
    """
    for wait in SECONDS_BETWEEN_TRIES:
        try:
            return read()
        except OSError as error:
            if error.errno not in PASSING:
                raise
            time.sleep(wait)
    return read()


def checksum(*parts: bytes | np.ndarray) -> str:
    """8 hexadecimal digits that change with any of these."""
    digest = hashlib.blake2b(digest_size=4)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.tobytes())
    return digest.hexdigest()


def name_hash(name: str) -> int:
    """64 bits that are the same on every machine."""
    return int.from_bytes(_digest(name.encode("utf-8", "surrogateescape")), "big")


def _stamp(path: str) -> tuple[int, int]:
    for name in (path, path.rpartition("#")[0]):
        try:
            found = os.stat(name)
        except (OSError, ValueError):
            continue
        return found.st_size, found.st_mtime_ns
    return 0, 0


def _digest(name: bytes) -> bytes:
    return hashlib.blake2b(name, digest_size=8).digest()
