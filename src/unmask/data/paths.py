"""Many paths in one buffer, and what a path is called."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

LONGEST_NAME = 150
"""Length limit in characters; file systems take 255 bytes."""
AT_ONCE = 4096
"""Paths that exist as Python objects while all are gone through."""


def slug(source: str) -> str:
    """What a source is called in the names of directories; every data.yaml with its folder's name."""
    path = Path(source).resolve()
    name = f"{path.parent.name}-{path.stem}" if path.suffix in (".yaml", ".yml") else path.name
    return re.sub(r"[^\w.-]+", "-", name)


def slugs(sources: Sequence[str]) -> str:
    """What several sources together are called there."""
    return together([slug(source) for source in sources]) or "images"


def together(names: Sequence[str]) -> str:
    """The names of several data sets as one; of very many the first, and the number of the others."""
    joined = "-".join(names)
    if len(joined) <= LONGEST_NAME:
        return joined
    return f"{names[0][:LONGEST_NAME]}-and-{len(names) - 1}-more"


def files_below(folder: str, suffix: str) -> Iterator[str]:
    """Files in or below a folder whose names end so, however deep; links to folders are not followed.

    A link to nothing counts: it is found to be missing where it is read. A pipe does not.
    """
    ahead = [folder]
    while ahead:
        try:
            with os.scandir(ahead.pop()) as entries:
                found = list(entries)
        except OSError:  # closed, gone, or a path longer than the system takes
            continue
        ahead.extend(entry.path for entry in found if entry.is_dir(follow_symlinks=False))
        named = (entry.path for entry in found if entry.name.endswith(suffix))
        yield from (path for path in named if os.path.isfile(path) or not os.path.exists(path))


class PathList(Sequence[str]):
    """An immutable list of paths that costs their bytes and eight more each.

    A list of a million Python strings would be copied into every loader worker, page by page, as
    reference counts change; a buffer and an array stay shared.
    """

    def __init__(self, paths: Iterable[str] = ()):
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        self._buffer = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    @classmethod
    def of_buffer(cls, buffer: bytes, ends: np.ndarray) -> "PathList":
        """Encoded paths one behind another; `ends` int64 [n + 1] holds 0 and where each ends."""
        made = cls()
        made._buffer, made._ends = buffer, ends
        return made

    @classmethod
    def joined(cls, lists: Sequence["PathList"]) -> "PathList":
        """One list behind another."""
        if len(lists) == 1:
            return lists[0]
        lengths = [np.diff(paths._ends) for paths in lists]
        ends = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
        return cls.of_buffer(b"".join(paths._buffer for paths in lists), ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # slices make lists of strings
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self._buffer[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (path.decode("utf-8", "surrogateescape") for piece in self.pieces() for path in piece)

    def pieces(self, skip: int = 0) -> Iterator[list[bytes]]:
        """The paths as they are stored, UTF-8, without their first bytes; some at a time."""
        for first in range(0, len(self), AT_ONCE):
            ends = self._ends[first : first + AT_ONCE + 1].tolist()
            yield [self._buffer[start + skip : end] for start, end in pairwise(ends)]

    def shared(self) -> bytes:
        """What all paths begin with, as it is stored."""
        every = np.frombuffer(self._buffer, dtype=np.uint8)
        shared = every[: self._ends[min(1, len(self))]]
        for first in range(0, len(self), AT_ONCE):
            ends = self._ends[first : first + AT_ONCE + 1]
            shared = shared[: np.diff(ends).min()]
            same = (every[ends[:-1, None] + np.arange(len(shared))] == shared).all(axis=0)
            shared = shared[: len(shared) if same.all() else same.argmin()]
        return shared.tobytes()

    def take(self, indices: Sequence[int] | np.ndarray | range) -> "PathList":
        """The paths at these indices, in their order; neighbours are copied together."""
        chosen = np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            return PathList()
        breaks = np.flatnonzero(np.diff(chosen) != 1) + 1
        starts = self._ends[chosen[np.append(0, breaks)]]
        stops = self._ends[chosen[np.append(breaks, len(chosen)) - 1] + 1]
        runs = zip(starts.tolist(), stops.tolist(), strict=True)
        buffer = b"".join(self._buffer[start:stop] for start, stop in runs)
        lengths = self._ends[chosen + 1] - self._ends[chosen]
        return PathList.of_buffer(buffer, np.cumsum(np.append(0, lengths)))
