"""Finds image files in nested folders."""

import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from unmask.config.output import MARKER
from unmask.data.decode.dicom import is_dicom_image
from unmask.data.decode.files import START, SUFFIXES
from unmask.data.paths import PathList
from unmask.data.sources.index import Directory, Ignored, Listing, Stamp, read_index, write_index
from unmask.errors import DataError

FOLDER = "/"
"""Stands for the suffix of folders that are ignored."""
UNREAD = "no image of a kind that is read"
HIDDEN = "hidden"
DEAD_LINK = "a link to nothing or to itself"
SPECIAL = "a pipe, a socket or a device"
CLOSED = "a folder that cannot be read"
OURS = "a folder that unmask wrote"
"""Why entries are ignored."""

NEVER_DICOM = frozenset(
    ".txt .csv .tsv .json .jsonl .xml .yaml .yml .toml .ini .cfg .md .html .htm .pdf .log .db .py "
    ".ipynb .css .js .exe .dll .zip .gz .tgz .bz2 .xz .7z .rar .tar .npz .mat .h5 .hdf5 .pkl .pt "
    ".pth .safetensors .parquet .arrow .gif .svg .heic .heif .avif .jxl .jp2 .psd .ico .raw .dng "
    ".cr2 .cr3 .nef .arw .orf .rw2 .raf .mp4 .mov .avi .mkv .mp3 .wav".split()
)
"""Files with other suffixes that are not in `SUFFIXES`, or without one, are looked into."""

INDEXED_FROM = 5000
"""Files in a folder from which on its listing is kept for the next start."""

MOUNTS = "/proc/self/mountinfo"
FUSE = re.compile(r"fuse[. ]")
SETTLED_NS = 2 * 10**9
"""A folder that changed more recently may change again without a new time: some clocks tick slowly."""


@dataclass(frozen=True)
class Walk:
    """What is in or below a folder."""

    paths: PathList
    """Every image file, sorted."""
    ignored: Counter[Ignored]
    """How many other entries there are, by suffix and reason."""


def images_below(folder: str) -> PathList:
    """Every image file in or below a folder, sorted; see `walk`."""
    return walk(folder).paths


def walk(folder: str) -> Walk:
    """The images in or below a folder, and what was ignored.

    Hidden entries are ignored, and folders below that we wrote, and what cannot be read. Of a large
    folder, only the directories that changed since the last time are read again. Raises DataError if
    the folder itself cannot be read.
    """
    earlier = read_index(folder)
    if earlier is not None and all(_is_current(folder, d) for d in earlier.directories):
        return Walk(earlier.paths(folder), earlier.all_ignored())
    listing = _Walk(folder, earlier).listing()
    worthwhile = listing.count >= INDEXED_FROM and any(d.stamp for d in listing.directories)
    if worthwhile and listing != earlier:
        write_index(folder, listing)
    return Walk(listing.paths(folder), listing.all_ignored())


def _is_current(folder: str, directory: Directory) -> bool:
    if directory.stamp is None:
        return not directory.entered
    try:
        return _stamp(os.path.join(folder, directory.name)) == directory.stamp
    except OSError:
        return False


class _Content(NamedTuple):
    """Contents of one directory. `settled`: no entry may be replaced without changing its time."""

    folders: list[tuple[str, bool]]
    """Name, and whether it is a link."""
    files: list[str]
    ignored: Counter[Ignored]
    settled: bool = True
    is_ours: bool = False


@dataclass
class _Walk:
    """Follows links, but enters no directory twice."""

    folder: str
    earlier: Listing | None
    directories: list[Directory] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    ignored: dict[str, Counter[Ignored]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = {} if self.earlier is None else _contents(self.earlier)
        self.stamps = {} if self.earlier is None else {d.name: d.stamp for d in self.earlier.directories}
        self.silent = _fuse_devices()

    def listing(self) -> Listing:
        """All files in the order of their paths."""
        seen = set[str]()
        ahead = [("", os.path.realpath(self.folder), False)]
        while ahead:  # folders may be nested deeper than functions
            name, real, is_link = ahead.pop()
            if real in seen:
                self.directories.append(Directory(name, is_link, entered=False, stamp=None))
                continue
            seen.add(real)
            inside = os.path.join(name, "") if name else ""
            for below, links in reversed(self._enter(name, inside, is_link)):
                path = os.path.join(self.folder, inside + below)
                further = os.path.realpath(path) if links else os.path.join(real, below)
                ahead.append((inside + below, further, links))
        return Listing.of(sorted(self.files), self.directories, self.ignored)

    def _enter(self, name: str, inside: str, is_link: bool) -> list[tuple[str, bool]]:
        """Writes down a directory, whose path below the folder is `name`; gives the folders in it."""
        stamp, content = self._content(name)
        if content.is_ours and name:
            content = _Content([], [], Counter({Ignored(FOLDER, OURS): 1}))
        self.directories.append(Directory(name, is_link, entered=True, stamp=stamp))
        self.files.extend(inside + file for file in content.files)
        if content.ignored:
            self.ignored[name] = content.ignored
        return content.folders

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
            if name:
                return None, _Content([], [], Counter({Ignored(FOLDER, CLOSED): 1}))
            raise DataError(
                f"the folder {path} cannot be read ({error.strerror}): change its permissions, or "
                f"leave it out"
            ) from error
        rested = stamp.changed_ns < now - SETTLED_NS
        trusted = rested and content.settled and stamp.device not in self.silent
        return stamp if trusted else None, content


def _read(path: str) -> _Content:
    folders, files, ignored, settled, is_ours = [], [], Counter[Ignored](), True, False
    with os.scandir(path) as entries:
        for entry in entries:
            kind = _kind(entry)
            is_ours |= entry.name == MARKER
            if kind == FOLDER:
                folders.append((entry.name, entry.is_symlink()))
            elif kind == "":
                files.append(entry.name)
            else:
                settled &= kind != DEAD_LINK  # something may appear there
                ignored[Ignored(_suffix(entry), kind)] += 1
    return _Content(sorted(folders), files, ignored, settled, is_ours)


def _kind(entry: os.DirEntry[str]) -> str:
    """FOLDER, nothing for an image, or why it is ignored."""
    if entry.name.startswith("."):
        return HIDDEN
    try:
        if entry.is_dir():
            return FOLDER
        is_file = entry.is_file()
    except OSError:  # a link to itself, or into a closed folder
        return DEAD_LINK
    suffix = os.path.splitext(entry.name)[1].lower()
    if not is_file and os.path.exists(entry.path):
        return SPECIAL
    if not is_file:  # an image that is gone is one that cannot be read, and is named
        return "" if suffix in SUFFIXES else DEAD_LINK
    is_image = suffix in SUFFIXES or (suffix not in NEVER_DICOM and _is_dicom(entry.path))
    return "" if is_image else UNREAD


def _is_dicom(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return is_dicom_image(file.read(START))
    except OSError:
        return False


def _suffix(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return FOLDER
    except OSError:
        pass
    return os.path.splitext(entry.name)[1].lower()


def _broken_links(path: str, content: _Content) -> bool:
    return any(links and not os.path.isdir(os.path.join(path, name)) for name, links in content.folders)


def _contents(earlier: Listing) -> dict[str, _Content]:
    """What each directory held."""
    known = {
        d.name: _Content([], [], earlier.ignored.get(d.name, Counter[Ignored]()))
        for d in earlier.directories
    }
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
