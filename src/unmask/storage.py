"""Files that are whole or absent, and reading that neither hangs nor fills the memory.

A file is written aside, synced, read back and renamed, and its folder is synced: a kill or a power cut
at any moment leaves the old file or the new one.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from unmask.errors import CheckpointError
from unmask.faults import fault_point
from unmask.units import data_size

ASIDE = ".unfinished"
"""How the name of a file ends while it is written; it begins with a dot."""
SEAL = "sha256_of_this"
"""The entry of a JSON file for the checksum of its other entries."""
CHUNK = 2**24
SMALL_FILE, LARGE_FILE, ANY_SIZE = 2**28, 2**32, 2**63 - 1
"""Bytes: more than any JSON file of ours holds; several times the 1 GB of LVIS's annotations; more than
any file does."""
MOST_JSON = 2**26
"""Bytes of it that are read at once: as Python's objects they take up to 28 times as many."""
NOT_ORDINARY = "it is no ordinary file"
FULL = (errno.ENOSPC, errno.EDQUOT)


def from_json(content: str | bytes) -> Any:
    """What JSON holds. Raises ValueError if it is none, too long, or nested deeper than Python reads."""
    if len(content) > MOST_JSON:
        raise ValueError(f"it has {data_size(len(content))} and at most {data_size(MOST_JSON)} are read")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("its lists and objects are nested too deep") from error


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """The same, and the checksum of what these names and values are as JSON."""
    return {**values, SEAL: _seal(values)}


def unsealed(values: Any) -> Any:
    """Without the checksum, if it has one. Raises ValueError if that is of other values."""
    if not isinstance(values, dict) or SEAL not in values:
        return values
    bare = {name: value for name, value in values.items() if name != SEAL}
    if values[SEAL] != _seal(bare):
        raise ValueError(f"it does not match its checksum; if it was edited, remove its entry {SEAL!r}")
    return bare


def _seal(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def aside_name(name: str) -> str:
    """What a file is called until it is whole."""
    return f".{name}{ASIDE}"


def replace_file(path: Path, content: bytes, kind: str) -> str:
    """Writes a file whole or not at all; returns its SHA-256.

    `kind` names the fault points: `<kind>.write`, `<kind>.sync`, `<kind>.rename`, `<kind>.renamed`.
    Raises OSError, after removing what was written, and CheckpointError if the disk gives other bytes
    back.
    """
    aside = path.with_name(aside_name(path.name))
    try:
        checksum = write_synced(aside, content, kind)
        fault_point(f"{kind}.rename")
        os.replace(aside, path)
    except Exception:
        with suppress(OSError):
            aside.unlink()
        raise
    fault_point(f"{kind}.renamed")
    sync_folder(path.parent)
    return checksum


def write_synced(path: Path, content: bytes, kind: str) -> str:
    """Writes to the disk itself and reads back; returns the SHA-256. Never writes through a link.

    Raises OSError, and CheckpointError if the disk gives other bytes back.
    """
    with suppress(FileNotFoundError):
        path.unlink()
    with path.open("xb") as file:
        fault_point(f"{kind}.write")
        file.write(content)
        file.flush()
        fault_point(f"{kind}.sync")
        os.fsync(file.fileno())
    checksum = hashlib.sha256(content).hexdigest()
    if sha256_of(path) != checksum:
        raise CheckpointError(f"{path} does not read back as it was written: check the disk")
    return checksum


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """In pieces. Raises OSError."""
    digest = hashlib.sha256()
    with open_regular(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def read_regular(path: Path, most: int = SMALL_FILE) -> bytes:
    """The content of an ordinary file of at most `most` bytes.

    Raises OSError: for a pipe or a device at once, instead of waiting for somebody to write.
    """
    with open_regular(path) as descriptor:
        size = _refuse_larger(path, descriptor, most)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(size + 1)


@contextmanager
def open_text(
    path: Path, most: int, encoding: str, errors: str = "strict", newline: str = ""
) -> Iterator[IO[str]]:
    """A text of at most `most` bytes, to be read in pieces; see `open`. Raises OSError."""
    with open_regular(path) as descriptor:
        _refuse_larger(path, descriptor, most)
        with open(descriptor, "rb", closefd=False) as file:
            yield io.TextIOWrapper(file, encoding, errors, newline)


def _refuse_larger(path: Path, descriptor: int, most: int) -> int:
    size = os.fstat(descriptor).st_size
    if size > most:
        raise OSError(errno.EFBIG, f"it has {size} bytes and at most {most} are read", str(path))
    return size


def start_of(path: Path, count: int) -> bytes:
    """The first bytes of an ordinary file. Raises OSError."""
    with open_regular(path) as descriptor:
        return os.read(descriptor, count)


@contextmanager
def open_regular(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of an ordinary file; OSError for anything else, without waiting."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO and not path.is_file():  # a pipe from which nobody reads
            raise OSError(errno.EINVAL, NOT_ORDINARY, str(path)) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, NOT_ORDINARY, str(path))
        yield descriptor
    finally:
        os.close(descriptor)


def is_there(path: Path) -> bool:
    """Whether something has this name, a link that leads nowhere included.

    Raises OSError if a disk does not say: `os.path` takes that for no.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing if there is none. Raises OSError if it cannot be read.

    `is_dir` would not do: from Python 3.14 on it gives False for a folder on a disk that fails.
    """
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove(path: Path) -> None:
    """A file, a folder with what is in it, or a link itself; nothing if it is not there.

    Raises OSError.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Renames to `broken-<name>`, with a number behind it if that is taken; returns the new path."""
    target, number = path.with_name(f"broken-{path.name}"), 1
    while is_there(target):
        number += 1
        target = path.with_name(f"broken-{path.name}-{number}")
    os.rename(path, target)
    return target


def free_space(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not be there yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def need_space(folder: Path, needed: int, what: str) -> None:
    """Raises CheckpointError if the disk of `folder` has less than `needed` bytes free."""
    free = free_space(folder)
    if free < needed:
        raise CheckpointError(
            f"{what} {data_size(needed)} and the disk of {folder} has {data_size(free)} free: make "
            f"room, and run the same command again to resume"
        )


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextmanager
def disk_errors_named(what: str, folder: Path, needed: int) -> Iterator[None]:
    """CheckpointError, with the disk and the bytes needed, for the errors of writing below `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise _too_full(what, folder, data_size(needed)) from error
        raise CheckpointError(
            f"{what} cannot be written: {error.strerror or error}, below {folder}: check that disk, and "
            f"run the same command again to resume"
        ) from error


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Where to write a file piece by piece: it gets its name at the end, or leaves nothing behind.

    CheckpointError if the disk gets full.
    """
    aside = path.with_name(aside_name(path.name))
    try:
        yield aside
        if aside.exists():
            aside.replace(path)
    except OSError as error:
        if error.errno not in FULL:
            raise
        needed = f"more than {data_size(size_of(aside))}"
        raise _too_full(str(path), path.parent, needed) from error
    finally:
        aside.unlink(missing_ok=True)


def _too_full(what: str, folder: Path, needed: str) -> CheckpointError:
    return CheckpointError(
        f"{what} cannot be written: it needs {needed}, the disk of {folder} has "
        f"{data_size(free_space(folder))} free: make room, and run the same command again to resume"
    )
