"""Finds image files in nested folders."""

import os
import re
import time
from typing import NamedTuple

from unmask.data.decode.files import SUFFIXES
from unmask.data.paths import PathList
from unmask.data.sources.index import Directory, Listing, Stamp, read_index, write_index
from unmask.errors import DataError

INDEXED_FROM = 5000
"""Files in a folder from which on its listing is kept for the next start."""

MOUNTS = "/proc/self/mountinfo"
FUSE = re.compile(r"fuse[. ]")
SETTLED_NS = 2 * 10**9
"""A folder that changed more recently may change again without a new time: some clocks tick slowly."""


def images_below(folder: str) -> PathList:
    """Every image file in or below a folder, sorted, hidden ones left out; raises DataError.

    Of a large folder, only the directories that changed since the last time are read again.
    """
    earlier = read_index(folder)
    if earlier is not None and all(_is_current(folder, d) for d in earlier.directories):
        return earlier.paths(folder)
    listing = _Walk(folder, earlier).listing()
    worthwhile = listing.count >= INDEXED_FROM and any(d.stamp for d in listing.directories)
    if worthwhile and listing != earlier:
        write_index(folder, listing)
    return listing.paths(folder)


def _is_current(folder: str, directory: Directory) -> bool:
    if directory.stamp is None:
        return not directory.entered
    try:
        return _stamp(os.path.join(folder, directory.name)) == directory.stamp
    except OSError:
        return False


class _Content(NamedTuple):
    """Of one directory. `settled`: none of its entries may become another without its knowledge."""

    folders: list[tuple[str, bool]]
    files: list[str]
    settled: bool = True


class _Walk:
    """Follows links, but enters no directory twice."""

    def __init__(self, folder: str, earlier: Listing | None):
        self.folder = folder
        self.known = {} if earlier is None else _contents(earlier)
        self.stamps = {} if earlier is None else {d.name: d.stamp for d in earlier.directories}
        self.directories: list[Directory] = []
        self.files: list[str] = []
        self.seen: set[str] = set()
        self.silent = _fuse_devices()

    def listing(self) -> Listing:
        """All files in the order of their paths."""
        self._enter("", os.path.realpath(self.folder), is_link=False)
        return Listing.of(sorted(self.files), self.directories)

    def _enter(self, name: str, real: str, is_link: bool) -> None:
        """`name` is the path below the folder, `real` is where that leads."""
        if real in self.seen:
            self.directories.append(Directory(name, is_link, entered=False, stamp=None))
            return
        self.seen.add(real)
        stamp, content = self._content(name)
        self.directories.append(Directory(name, is_link, entered=True, stamp=stamp))
        inside = os.path.join(name, "") if name else ""
        self.files.extend(inside + file for file in content.files)
        for below, links in content.folders:
            path = os.path.join(self.folder, inside + below)
            further = os.path.realpath(path) if links else os.path.join(real, below)
            self._enter(inside + below, further, links)

    def _content(self, name: str) -> tuple[Stamp | None, _Content]:
        """What is in a directory, and its stamp, unless that could miss a change."""
        path = os.path.join(self.folder, name) if name else self.folder
        try:
            stamp, known = _stamp(path), self.known.get(name)
            if known and stamp == self.stamps[name] and not _broken_links(path, known):
                return stamp, known
            now = time.time_ns()
            content = _read(path)
        except OSError as error:
            raise DataError(
                f"the folder {path} cannot be read ({error.strerror}): change its permissions, or "
                f"leave it out"
            ) from error
        rested = stamp.changed_ns < now - SETTLED_NS
        trusted = rested and content.settled and stamp.device not in self.silent
        return stamp if trusted else None, content


def _read(path: str) -> _Content:
    folders, files, settled = [], [], True
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append((entry.name, entry.is_symlink()))
            elif entry.name.lower().endswith(SUFFIXES):
                files.append(entry.name)
            elif entry.is_symlink():
                settled = False  # to nothing, where a folder may appear
    return _Content(sorted(folders), files, settled)


def _broken_links(path: str, content: _Content) -> bool:
    return any(links and not os.path.isdir(os.path.join(path, name)) for name, links in content.folders)


def _contents(earlier: Listing) -> dict[str, _Content]:
    """What each directory held."""
    known = {d.name: _Content([], []) for d in earlier.directories}
    for directory in earlier.directories:
        above, _, name = directory.name.rpartition(os.sep)
        if directory.name:
            known[above].folders.append((name, directory.is_link))
    for file in earlier.files():
        above, _, name = file.rpartition(os.sep)
        known[above].files.append(name)
    return known


def _stamp(path: str) -> Stamp:
    found = os.stat(path)
    return Stamp(found.st_dev, found.st_ino, found.st_mtime_ns)


def _fuse_devices() -> set[int]:
    """File systems made by programs: buckets, for one, do not say when a directory changed."""
    try:
        with open(MOUNTS, errors="replace") as file:
            mounts = [line.rpartition(" - ") for line in file]
    except OSError:  # not Linux
        return set()
    numbers = [before.split()[2] for before, _, after in mounts if FUSE.match(after)]
    return {os.makedev(*map(int, number.split(":"))) for number in numbers}
