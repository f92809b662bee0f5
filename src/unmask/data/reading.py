"""Which image each process is reading, and an end to reads that take too long.

A read that takes longer than the limit is interrupted, and its image counts as broken.
"""

import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Board:
    """Memory of all loader processes and the main one: who reads what, and whether all should leave.

    Shared if processes are forked; otherwise each has its own.
    """

    _SLOT = struct.Struct("qH1000s")  # images read, length of a name, name

    def __init__(self, workers: int):
        self.workers, self.main = workers, os.getpid()
        self.ended_because = ""
        """Why the main process killed the others, if it did."""
        self._memory = mmap.mmap(-1, 1 + max(1, workers) * self._SLOT.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return Board, (self.workers,)

    @property
    def leaving(self) -> bool:
        return self._memory[0] != 0

    def leave(self) -> None:
        """Asks all loader processes to end."""
        self._memory[0] = 1

    def write(self, worker: int, count: int, name: str) -> None:
        """`worker` has read `count` images and is reading `name`; nothing if that is empty."""
        encoded = name.encode("utf-8", "surrogateescape")[-1000:]
        place = 1 + worker * self._SLOT.size
        self._SLOT.pack_into(self._memory, place, count, len(encoded), encoded)

    def read(self) -> list[tuple[int, str]]:
        """Images read, and the name of the one that is being read, for each worker."""
        slots = (
            self._SLOT.unpack_from(self._memory, 1 + i * self._SLOT.size) for i in range(self.workers)
        )
        return [
            (count, name[:length].decode("utf-8", "surrogateescape")) for count, length, name in slots
        ]

    def reading(self) -> str:
        """For people: the files that are being read."""
        names = [f"loader process {i} {name!r}" for i, (_, name) in enumerate(self.read()) if name]
        return ", ".join(names)


class _Watch:
    """The reads of this process; its main thread only, since signals arrive there."""

    def __init__(self, board: Board, worker: int, limit: float):
        self.board, self.worker, self.limit, self.count = board, worker, limit, 0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.board.write(self.worker, self.count, name)
        handler = signal.signal(signal.SIGALRM, self._too_long)
        began, (left, _) = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, self.limit)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            if left:  # of somebody else's alarm
                signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - began)))
            self.count += 1
            self.board.write(self.worker, self.count, "")

    def _too_long(self, number: int, frame: Any) -> None:
        raise TimeoutError(f"it could not be read within {self.limit:g} s")


_watch: _Watch | None = None
"""The time limit on reading in this process, if there is one."""


def limit_reads(board: Board, worker: int, limit: float) -> None:
    """From now on in this process, which is loader process `worker`."""
    global _watch
    _watch = _Watch(board, worker, limit)


@contextmanager
def reads_limited(board: Board, limit: float) -> Iterator[None]:
    """In this process inside the context, if there are no loader processes."""
    global _watch
    earlier = _watch
    if board.workers == 0:
        _watch = _Watch(board, 0, limit)
    try:
        yield
    finally:
        _watch = earlier


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Reads one image inside. Raises TimeoutError there after the time that was allowed."""
    if _watch is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _watch(name):
        yield
