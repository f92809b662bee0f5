"""Finds images: nested folders, single files, or a built-in data set by name."""

import hashlib
import importlib.util
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unmask.data.paths import PathList
from unmask.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Images:
    """The images of one data set, sorted by path."""

    name: str
    paths: PathList
    licence_note: str = ""

    def fingerprint(self) -> str:
        """Changes when an image is added, removed or renamed."""
        checksum = 0
        for name in self._names():
            checksum = zlib.crc32(name.encode("utf-8", "surrogateescape"), checksum)
        return f"{len(self.paths)} images, names {checksum:08x}"

    def split(self, held_out: int) -> tuple["Images", "Images"]:
        """Training and held-out images.

        The choice depends on each image's own name, so that it hardly changes when images come or go.
        """
        if held_out == 0:
            return self, Images(self.name, PathList([]), self.licence_note)
        hashes = [_hash(name) for name in self._names()]
        chosen = set(sorted(range(len(hashes)), key=hashes.__getitem__)[:held_out])
        kept: list[str] = []
        aside: list[str] = []
        for i, path in enumerate(self.paths):
            (aside if i in chosen else kept).append(path)
        return (
            Images(self.name, PathList(kept), self.licence_note),
            Images(self.name, PathList(aside), self.licence_note),
        )

    def _names(self) -> Iterator[str]:
        """Each path from where all of them part, so that the folder may be moved or renamed."""
        first, last = self.paths[0], self.paths[-1]  # sorted: what these share, all share
        root = os.path.dirname(first) if first == last else os.path.commonpath([first, last])
        return (path[len(root) :].lstrip(os.sep) for path in self.paths)


def find_images(sources: tuple[str, ...]) -> Images:
    """All images in or below the given folders, the given files, or a built-in data set.

    Raises DataError where there are none.
    """
    if not sources:
        raise DataError(
            "no images were named: give a folder, or the name of a built-in data set "
            f"({', '.join(BUILT_IN)})"
        )
    if len(sources) == 1 and sources[0] in BUILT_IN:
        return BUILT_IN[sources[0]]()
    paths = sorted(path for source in sources for path in _images_below(source))
    if not paths:
        found = sum(len(files) for source in sources for _, _, files in os.walk(source))
        raise DataError(
            f"no images in {', '.join(sources)}: sought {' '.join(SUFFIXES)} at any depth among "
            f"{found} files; give a folder that holds images"
        )
    return Images("-".join(Path(source).resolve().name for source in sources), PathList(paths))


def default_held_out(images: int) -> int:
    """One image in twenty, at least 8 and at most 256, but never more than a quarter."""
    return min(256, max(images // 20, min(8, images // 4)))


def _images_below(source: str) -> Iterator[str]:
    if os.path.isfile(source):
        yield source
        return
    if not os.path.isdir(source):
        raise DataError(
            f"there is no folder or file {source}: check the path, or name a built-in data set "
            f"({', '.join(BUILT_IN)})"
        )
    yield from _walk(source, seen=set())


def _walk(folder: str, seen: set[str]) -> Iterator[str]:
    """Follows links, but enters no folder twice."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be read ({error.strerror}): change its permissions, or "
            f"leave it out"
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, seen)
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry.path


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _elpv() -> Images:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError(
            "the data set elpv comes in a package of its own: pip install 'unmask[quickstart]'"
        )
    paths = _images_below(str(Path(spec.origin).parent / "data" / "images"))
    note = "ELPV images of solar cells (Deitsch et al.), CC BY-NC-SA 4.0: no commercial use"
    return Images("elpv", PathList(sorted(paths)), note)


BUILT_IN: dict[str, Callable[[], Images]] = {"elpv": _elpv}
