"""What was found in a large folder, kept for the next start in the user's cache directory.

$UNMASK_CACHE names another directory; empty, it switches the index off.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unmask.data.paths import PathList
from unmask.storage import from_json, open_regular

VERSION = 2
"""Version of the file's layout; another one is another file."""
MOST_UNPACKED = 2**30
"""Bytes: that of ten million files has as many."""
VARIABLE = "UNMASK_CACHE"


class Stamp(NamedTuple):
    """Which directory it is, and when entries last came or went."""

    device: int
    inode: int
    changed_ns: int


class Directory(NamedTuple):
    """`name` is its path below the folder. Without a stamp it is read again each time."""

    name: str
    is_link: bool
    entered: bool
    """False if a link led to a directory that was entered elsewhere."""
    stamp: Stamp | None


class Ignored(NamedTuple):
    """What an ignored entry ends in, in small letters, and the reason."""

    suffix: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The image files below a folder."""

    names: bytes
    """Their paths below the folder, sorted, a zero byte behind each."""
    directories: list[Directory]
    ignored: dict[str, Counter[Ignored]] = field(default_factory=dict)
    """What was ignored in each directory, by its name."""

    @classmethod
    def of(
        cls, files: list[str], directories: list[Directory], ignored: dict[str, Counter[Ignored]]
    ) -> "Listing":
        """From sorted paths."""
        return cls(_terminated(files), directories, ignored)

    def all_ignored(self) -> Counter[Ignored]:
        """In all directories together."""
        return sum(self.ignored.values(), Counter[Ignored]())

    @property
    def count(self) -> int:
        return self.names.count(b"\0")

    def files(self) -> list[str]:
        """The path of each below the folder."""
        return _strings(self.names)

    def paths(self, folder: str) -> PathList:
        """The files with the folder in front."""
        inside = os.path.join(folder, "").encode("utf-8", "surrogateescape")
        whole = b"".join((inside, self.names.replace(b"\0", b"\0" + inside)))[: -len(inside)]
        if not self.names:
            return PathList()
        ends = np.flatnonzero(np.frombuffer(whole, dtype=np.uint8) == 0)
        ends -= np.arange(len(ends))
        return PathList.of_buffer(whole.replace(b"\0", b""), np.append(0, ends))


def read_index(folder: str) -> Listing | None:
    """The listing of the last time; None if there is none, or it is damaged."""
    place = _place(folder)
    if place is None or not os.path.exists(place):
        return None
    try:
        # An archive of arrays, which knows its own checksums.
        with (
            open_regular(Path(place)) as descriptor,
            open(descriptor, "rb", closefd=False) as file,
            np.load(file, allow_pickle=False) as stored,
        ):
            if sum(entry.file_size for entry in stored.zip.infolist()) > MOST_UNPACKED:
                return None
            parts = {name: stored[name] for name in stored.files}
        if parts["folder"].tobytes() != _absolute(folder) or _leads_elsewhere(parts["names"].tobytes()):
            return None
        directories = zip(
            _strings(parts["directories"].tobytes()),
            parts["is_link"].tolist(),
            parts["entered"].tolist(),
            parts["stamped"].tolist(),
            zip(*(parts[field].tolist() for field in Stamp._fields), strict=True),
            strict=True,
        )
        return Listing(
            parts["names"].tobytes(),
            [
                Directory(name, is_link, entered, Stamp(*stamp) if stamped else None)
                for name, is_link, entered, stamped, stamp in directories
            ],
            _counters(from_json(parts["ignored"].tobytes())),
        )
    except Exception:  # a damaged file raises almost anything
        return None


def _leads_elsewhere(names: bytes) -> bool:
    """Whether a path might lead out of the folder: nobody but us writes an index, and we write none."""
    return names.startswith(b"/") or b"\0/" in names or b"../" in names


def write_index(folder: str, listing: Listing) -> None:
    """Whole or not at all; if it cannot be written, the next start takes longer."""
    place = _place(folder)
    if place is None:
        return
    with contextlib.suppress(OSError, OverflowError):
        parts = _parts(folder, listing)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        number, aside = tempfile.mkstemp(dir=os.path.dirname(place), prefix=".unfinished-")
        try:
            with open(number, "wb") as file:
                np.savez_compressed(file, **parts)  # type: ignore[arg-type]  # not its allow_pickle
            os.replace(aside, place)
        except BaseException:
            os.unlink(aside)
            raise


def _parts(folder: str, listing: Listing) -> dict[str, np.ndarray]:
    directories = listing.directories
    stamps = [d.stamp or Stamp(0, 0, 0) for d in directories]
    return {
        "folder": _bytes(_absolute(folder)),
        "names": _bytes(listing.names),
        "ignored": _bytes(json.dumps(_counts(listing.ignored)).encode()),
        "directories": _bytes(_terminated(d.name for d in directories)),
        "is_link": np.array([d.is_link for d in directories]),
        "entered": np.array([d.entered for d in directories]),
        "stamped": np.array([d.stamp is not None for d in directories]),
        "device": np.array([stamp.device for stamp in stamps], dtype=np.uint64),
        "inode": np.array([stamp.inode for stamp in stamps], dtype=np.uint64),
        "changed_ns": np.array([stamp.changed_ns for stamp in stamps], dtype=np.int64),
    }


Counts = dict[str, list[tuple[str, str, int]]]
"""Suffix, reason and how many, by directory."""


def _counts(ignored: dict[str, Counter[Ignored]]) -> Counts:
    return {
        name: [(*kind, count) for kind, count in counter.items()] for name, counter in ignored.items()
    }


def _counters(counts: Counts) -> dict[str, Counter[Ignored]]:
    return {
        name: Counter({Ignored(suffix, reason): count for suffix, reason, count in kinds})
        for name, kinds in counts.items()
    }


def _place(folder: str) -> str | None:
    """The index's file; None if there is no place for it."""
    base = os.environ.get(VARIABLE)
    if base == "":
        return None
    if base is None:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "unmask")
    key = hashlib.blake2b(_absolute(folder), digest_size=16).hexdigest()
    place = os.path.join(base, "index", f"{key}-{VERSION}.npz")
    return place if os.path.isabs(place) else None


def _absolute(folder: str) -> bytes:
    return os.path.abspath(folder).encode("utf-8", "surrogateescape")


def _terminated(strings: Iterable[str]) -> bytes:
    return "".join(f"{string}\0" for string in strings).encode("utf-8", "surrogateescape")


def _strings(terminated: bytes) -> list[str]:
    return terminated.decode("utf-8", "surrogateescape").split("\0")[:-1]


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype=np.uint8)
