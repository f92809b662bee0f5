"""Loader processes: what they share, what they are reading, when they are stuck, and how they end.

A read that takes too long is interrupted (`reading.py`). One that cannot be interrupted, or a process
that is stopped, ends the run with a sentence that names the file. Processes end within seconds of the
main one, however that ends.
"""

import atexit
import contextlib
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from unmask.data.reading import Board, limit_reads, reads_limited
from unmask.errors import DataError
from unmask.units import data_size, duration

READ_SECONDS = 60.0
"""For one image, unless another time is asked for."""
SECONDS_AFTER_SIGNAL = 5.0
"""For a batch that a stopping run still waits for."""
GRACE_SECONDS = 2.0
"""For a process to leave by itself; a read in it ends with it."""
KILL_SECONDS = 4.0
"""After these it is killed: it is stopped, or waits for a disk."""
POLL_SECONDS = 0.25
SETTLE_SECONDS = 0.05
"""For gloo's threads to release the tensors of the last collective before a process is forked.

They make themselves known to Python for that, under a lock that Python before 3.12 takes again in the
forked process (CPython's `_PyThreadState_DeleteExcept`): held there at the fork, it is never released.
"""
SHARED_MEMORY = "/dev/shm"
BATCHES_AHEAD = 3
"""Batches of each process: two that wait, and the one that it makes."""
SEMAPHORE_BYTES = 4096
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
"""What may reach loader processes too; the main one stops for them."""
WORKER_IS_GONE = ("exited unexpectedly", "killed by signal")

Say = Callable[[str], None]


def never() -> bool:
    """For callers that no signal stops."""
    return False


def silent(_: str) -> None:
    """For callers without a console."""


class Sharing(NamedTuple):
    """How batches come from loader processes."""

    workers: int
    through_pipes: bool
    note: str
    """What a user should hear about it, if anything."""


def load(
    dataset: Dataset,
    *,
    workers: int,
    collate: Callable[[list[Any]], Any],
    batch_bytes: int,
    timeout: float = READ_SECONDS,
    stopping: Callable[[], bool] = never,
    say: Say = silent,
    **options: Any,
) -> Generator[Any, None, None]:
    """The batches of a data set, made by `workers` processes.

    Args:
        dataset: makes samples.
        workers: processes; 0 for none. Fewer if there is too little shared memory, and `say` hears it.
        collate: from samples to a batch.
        batch_bytes: of one batch.
        timeout: seconds for one image.
        stopping: whether a signal has come: a late batch is then not waited for any longer.
        say: hears what a user should know.
        options: of torch's DataLoader.

    Raises DataError if a process dies or hangs, or if the data set raises it.
    """
    workers, through_pipes, note = sharing(workers, batch_bytes)
    if note:
        say(note)
    board = Board(workers)
    loader = DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=partial(_packed, collate) if through_pipes else collate,
        timeout=POLL_SECONDS * 4 if workers else 0,
        worker_init_fn=partial(_prepare, board, timeout) if workers else None,
        # Forked workers share the list of paths, and need no guard in the caller's script.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        **options,
    )
    with (
        lost_workers_named(board),
        errors_of_workers_unwrapped(),
        reads_limited(board, timeout),
        _ended(board, _started(loader)) as batches,
    ):
        guard = _Guard(board, batches, timeout, stopping)
        while (batch := guard.next()) is not None:
            yield pickle.loads(batch) if through_pipes else batch


def sharing(workers: int, batch_bytes: int) -> Sharing:
    """What the shared memory of this machine allows for `workers` processes with such batches."""
    if workers == 0 or sys.platform != "linux":
        return Sharing(workers, False, "")
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
        multiprocessing.get_context("fork").Lock()
    except (OSError, ImportError):
        free = 0
    semaphores = SEMAPHORE_BYTES * (3 * workers + 8)
    needed = semaphores + workers * BATCHES_AHEAD * batch_bytes
    if free >= needed:
        return Sharing(workers, False, "")
    has = f"{SHARED_MEMORY} has {data_size(free)} free and {workers} loader processes need"
    if free < semaphores:
        return Sharing(0, False, f"{has} {data_size(semaphores)}: going on without loader processes")
    return Sharing(
        workers, True, f"{has} {data_size(needed)}: their batches come through pipes, which is slower"
    )


@contextmanager
def lost_workers_named(board: Board | None = None) -> Iterator[None]:
    """DataError for the errors that follow from a lost loader process.

    Torch raises its own wherever the program is when the system reports a dead process, for each of
    them; a process that dies while it writes leaves half a message.
    """
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in WORKER_IS_GONE):
            raise
        if board and board.ended_because:
            raise DataError(board.ended_because) from error
        reason = str(error) or type(error).__name__
        if board and (files := board.reading()):
            reason += f", reading: {files}"
        raise DataError(
            f"a loader process died ({reason}): this is often too little memory or shared memory "
            f"({SHARED_MEMORY}); try --data.workers 0, and run the same command again to resume"
        ) from error


@contextmanager
def errors_of_workers_unwrapped() -> Iterator[None]:
    """A DataError of a worker comes with the worker's traceback: only its sentence stays."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).strip().splitlines()[-1].split("Error: ", 1)[-1]) from error


class _Guard:
    """Waits for batches, but not for ever.

    A thread kills the processes if nothing moves for too long, which ends the wait: torch's own time-out
    does not see a process that is stopped in the midst of handing over a batch.
    """

    def __init__(
        self, board: Board, batches: Iterator[Any], timeout: float, stopping: Callable[[], bool]
    ):
        self.board, self.batches, self.timeout, self.stopping = board, batches, timeout, stopping
        self._waiting = False
        if board.workers:
            threading.Thread(target=self._watch, daemon=True).start()

    def next(self) -> Any | None:
        """The next batch, or None behind the last. Raises DataError if nothing moves for too long."""
        began = self._moved = time.monotonic()
        self._seen, self._waiting = self.board.read(), True
        try:
            while True:
                try:
                    return next(self.batches, None)
                except RuntimeError as error:
                    if "timed out" not in str(error):
                        raise
                waited = time.monotonic() - began
                if self.stopping() and waited > SECONDS_AFTER_SIGNAL:
                    names = self.board.reading()
                    raise DataError(f"stopping on a signal, and the next batch is late ({names})")
        finally:
            self._waiting = False

    def _idle(self) -> float:
        """Seconds in which no process has finished an image."""
        if self._seen != (found := self.board.read()):
            self._seen, self._moved = found, time.monotonic()
        return time.monotonic() - self._moved

    def _watch(self) -> None:
        while not self.board.leaving:
            time.sleep(POLL_SECONDS)
            if self._waiting and self._idle() > self.timeout + GRACE_SECONDS:
                names = self.board.reading() or "they may be stopped"
                self.board.ended_because = (
                    f"the loader processes have done nothing for {duration(self._idle())} ({names}): "
                    f"check that storage, and run the same command again to resume"
                )
                _kill(self.batches)
                return


def _packed(collate: Callable[[list[Any]], Any], samples: list[Any]) -> bytes:
    return pickle.dumps(collate(samples), protocol=pickle.HIGHEST_PROTOCOL)


def _started(loader: DataLoader) -> Iterator[Any]:
    """Its processes begin with these signals blocked, until they are prepared for them."""
    if loader.multiprocessing_context is None:
        return iter(loader)
    if sys.version_info < (3, 12) and dist.is_available() and dist.is_initialized():
        time.sleep(SETTLE_SECONDS)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(board: Board, limit: float, worker: int) -> None:
    """In a loader process, before it begins.

    Signals often reach all processes, and the main one still needs a batch to finish its step: a death
    by signal would make the loader raise in the middle of it. It says itself when to leave.
    """
    for number in SIGNALS - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if board.main != os.getpid():  # shared
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0) if board.leaving else None)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    board.write(worker, 0, "")
    limit_reads(board, worker, limit)
    threading.Thread(target=_leave_with, args=(board,), daemon=True).start()


def _leave_with(board: Board) -> None:
    """Ends this process soon after the main one ends or asks for it, whatever it is reading.

    The main one may have ended before this one began.
    """
    while os.getppid() == board.main and not board.leaving:
        time.sleep(POLL_SECONDS)
    if os.getppid() == board.main:
        time.sleep(GRACE_SECONDS)
    os._exit(0)


@contextmanager
def _ended(board: Board, batches: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """Ends the loader processes behind the context: by themselves, or else by force."""
    atexit.register(board.leave)  # before multiprocessing waits for its processes
    try:
        yield batches
    finally:
        with _no_news_of_children():
            board.leave()
            atexit.unregister(board.leave)
            last = threading.Timer(KILL_SECONDS, _kill, [batches])
            last.daemon = True
            last.start()
            # Otherwise a traceback that somebody keeps would keep the processes.
            getattr(batches, "_shutdown_workers", lambda: None)()
            last.cancel()


def _kill(batches: Iterator[Any]) -> None:
    for process in getattr(batches, "_workers", ()):
        process.kill()


@contextmanager
def _no_news_of_children() -> Iterator[None]:
    """Torch raises when it hears of a killed loader process; not of one that we end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        with contextlib.suppress(TypeError):  # of a handler that Python did not install
            signal.signal(signal.SIGCHLD, handler)
