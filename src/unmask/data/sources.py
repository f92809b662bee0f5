"""From what a user names to images: folders, files, lists, containers, data sets of other libraries."""

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from unmask.config.schema import DataConfig
from unmask.data.containers import (
    IDX_IMAGES,
    hub_images,
    idx_file_in,
    idx_images,
    torchvision_images,
)
from unmask.data.files import SUFFIXES
from unmask.data.folder import images_below
from unmask.data.images import Images
from unmask.data.lists import LIST_SUFFIXES, paths_in_list
from unmask.data.paths import PathList
from unmask.errors import DataError

TORCHVISION, HUB = "torchvision:", "hf:"


def find_images(
    sources: tuple[str, ...], *, root: str = DataConfig().root, download: bool = False
) -> Images:
    """All images of the sources; `DataConfig.source` says what a source may be.

    Raises DataError with the mend where there are none.
    """
    if not sources:
        raise DataError(
            "no images were named: give a folder, or the name of a built-in data set "
            f"({', '.join(BUILT_IN)})"
        )
    whole = [source for source in sources if _is_whole_dataset(source)]
    if whole and len(sources) > 1:
        raise DataError(f"{whole[0]} is a data set by itself: give it alone, without other sources")
    if whole:
        return _dataset(whole[0], root=root, download=download)
    paths = [path for source in sources for path in _files_of(source)]
    if not paths:
        found = sum(len(files) for source in sources for _, _, files in os.walk(source))
        raise DataError(
            f"no images in {', '.join(sources)}: sought {' '.join(SUFFIXES)} at any depth among "
            f"{found} files; give a folder that holds images"
        )
    return Images("-".join(Path(source).resolve().stem for source in sources), PathList(paths))


def default_held_out(images: int) -> int:
    """One image in twenty, at least 8 and at most 256, but never more than a quarter."""
    return min(256, max(images // 20, min(8, images // 4)))


def slug(source: str) -> str:
    """What a source is called in the names of directories."""
    return re.sub(r"[^\w.-]+", "-", Path(source).resolve().name)


def _is_whole_dataset(source: str) -> bool:
    return (
        source in BUILT_IN
        or source.startswith((TORCHVISION, HUB))
        or source.endswith(IDX_IMAGES)
        or (os.path.isdir(source) and idx_file_in(source) is not None)
    )


def _dataset(source: str, *, root: str, download: bool) -> Images:
    if source in BUILT_IN:
        return BUILT_IN[source](root)
    if source.startswith(TORCHVISION):
        return torchvision_images(source.removeprefix(TORCHVISION), root=root, download=download)
    if source.startswith(HUB):
        return hub_images(source.removeprefix(HUB))
    return idx_images((idx_file_in(source) or source) if os.path.isdir(source) else source)


def _files_of(source: str) -> Iterator[str]:
    if os.path.isdir(source):
        yield from sorted(images_below(source))
    elif not os.path.isfile(source):
        raise DataError(
            f"there is no folder or file {source}: check the path, or name a built-in data set "
            f"({', '.join(BUILT_IN)})"
        )
    elif source.lower().endswith(LIST_SUFFIXES):
        yield from paths_in_list(source)
    else:
        yield source


def _elpv(root: str) -> Images:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError(
            "the data set elpv comes in a package of its own: pip install 'unmask[quickstart]'"
        )
    paths = sorted(images_below(str(Path(spec.origin).parent / "data" / "images")))
    note = "ELPV images of solar cells (Deitsch et al.), CC BY-NC-SA 4.0: no commercial use"
    return Images("elpv", PathList(paths), note)


def _fashion_mnist(root: str) -> Images:
    for folder in FASHION_MNIST:
        place = os.path.join(root, folder)
        if os.path.isdir(place) and (file := idx_file_in(place)):
            return replace(idx_images(file), name="fashion-mnist", licence_note="Fashion-MNIST, MIT")
    raise DataError(
        f"Fashion-MNIST is not in {' or '.join(os.path.join(root, f) for f in FASHION_MNIST)}: install "
        f"Debian's package dataset-fashion-mnist, or give the folder of its IDX files"
    )


FASHION_MNIST = ("FashionMNIST/raw", "fashion-mnist", "/usr/share/datasets/fashion-mnist")
"""Where its IDX files may lie below --data.root: torchvision's place, ours, and Debian's package."""

BUILT_IN: dict[str, Callable[[str], Images]] = {"elpv": _elpv, "fashion-mnist": _fashion_mnist}
