"""Who may write where: one process, and in it one thread."""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from unmask.config.output import MARKER, Before, claim_output
from unmask.errors import CheckpointError
from unmask.storage import open_regular

LOCK = ".lock"

_open_here: set[Path] = set()
_registry = threading.Lock()


@contextmanager
def only_writer_in(folder: Path) -> Iterator[None]:
    """Keeps other processes and threads out of a folder of results that is there.

    The operating system releases the lock when the process ends, however it ends; its file goes too.
    Raises CheckpointError if another is writing there, or if the folder cannot be written.
    """
    with _only_writer(folder / LOCK, folder):
        yield


@contextmanager
def only_writer_of(path: Path) -> Iterator[None]:
    """The same for one file or folder that need not be there, in a folder that is made for it.

    Folders that were made go again if nothing was written there.
    """
    missing = Before.of(path.parent).missing
    with folder_errors_named(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _only_writer(path.with_name(f".{path.name}{LOCK}"), path):
            yield
    finally:
        for place in missing:
            with suppress(OSError):  # there is something in it
                place.rmdir()


@contextmanager
def claimed(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """`claim_output` for several runs; others are kept out, unless they share the work.

    If none of the runs can begin, the folder is as it was before. Raises as `claim_output` and
    `only_writer_in`.
    """
    before = Before.of(folder)
    try:
        claim_output(folder)
        with nullcontext() if shared else only_writer_in(folder):
            yield
    except BaseException:
        if before.new() <= {folder / MARKER}:
            before.restore()
        raise


@contextmanager
def locked(lock: Path, path: Path) -> Iterator[tuple[int, int]]:
    """Device and inode of the lock's file, which keeps others from writing to `path`; the file stays.

    Raises CheckpointError if another is writing there, or if its folder cannot be written.
    """
    with _alone_in_this_process(path), _locked(lock, path) as identity:
        yield identity


@contextmanager
def _only_writer(lock: Path, path: Path) -> Iterator[None]:
    with locked(lock, path):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def _alone_in_this_process(path: Path) -> Iterator[None]:
    """The system's lock is one process's: its threads are told apart here."""
    key = path.resolve()
    with _registry:
        if key in _open_here:
            raise CheckpointError(
                f"another thread of this process is writing to {path}: wait for it, or choose another "
                f"--out"
            )
        _open_here.add(key)
    try:
        yield
    finally:
        with _registry:
            _open_here.remove(key)


@contextmanager
def _locked(lock: Path, path: Path) -> Iterator[tuple[int, int]]:
    """Device and inode of the lock's file, which keeps others from writing to `path`.

    One that another process removed after we opened it is no lock any more: it is refused, too.
    """
    with ExitStack() as stack:
        with folder_errors_named(lock.parent):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            descriptor = stack.enter_context(open_regular(lock, flags))
        found = os.fstat(descriptor)
        try:
            # Not flock: loader workers would inherit that and outlive a killed run with it.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.lstat(lock)
            if (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino):
                raise OSError(errno.EAGAIN, "the lock was replaced")
        except OSError as error:
            raise CheckpointError(
                f"another process is writing to {path}: wait for it, or choose another --out"
            ) from error
        yield found.st_dev, found.st_ino


@contextmanager
def folder_errors_named(path: Path) -> Iterator[None]:
    """CheckpointError, which asks for another folder, where this one cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CheckpointError(
                f"{error.filename} is a link, and unmask does not write through it: remove it"
            ) from error
        raise CheckpointError(
            f"the folder {path} cannot be written ({error.strerror}): choose another --out"
        ) from error
