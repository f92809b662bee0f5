"""Many paths in one buffer."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np


class PathList(Sequence[str]):
    """An immutable list of paths that costs their bytes and eight more each.

    A list of a million Python strings would be copied into every loader worker, page by page, as
    reference counts change; two arrays stay shared.
    """

    def __init__(self, paths: Iterable[str]):
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # slices make lists of strings
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        span = self._bytes[self._ends[index] : self._ends[index + 1]]
        return span.tobytes().decode("utf-8", "surrogateescape")

    def take(self, indices: Sequence[int] | np.ndarray | range) -> "PathList":
        """The paths at these indices, without a Python object for each."""
        chosen = np.asarray(indices, dtype=np.int64)
        lengths = np.diff(self._ends)[chosen]
        taken = PathList([])
        taken._ends = np.concatenate([[0], np.cumsum(lengths)])
        shift = np.repeat(self._ends[chosen] - taken._ends[:-1], lengths)
        taken._bytes = self._bytes[shift + np.arange(taken._ends[-1])]
        return taken

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))
