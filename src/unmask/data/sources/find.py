"""From what a user names to images: folders, files, lists, containers, data sets of other libraries."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unmask.config.schema import DataConfig
from unmask.data.decode.files import SUFFIXES
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.sources.elpv import elpv_images
from unmask.data.sources.folder import images_below
from unmask.data.sources.hub_sets import hub_images
from unmask.data.sources.idx import IDX_IMAGES, idx_file_in, idx_images
from unmask.data.sources.lists import LIST_SUFFIXES, paths_in_list
from unmask.data.sources.torchvision_sets import torchvision_images
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
    if is_dataset(sources):
        return _dataset(sources[0], root=root, download=download)
    paths = PathList.joined([_files_of(source) for source in sources])
    if not paths:
        found = sum(len(files) for source in sources for _, _, files in os.walk(source))
        raise DataError(
            f"no images in {', '.join(sources)}: sought {' '.join(SUFFIXES)} at any depth among "
            f"{found} files; give a folder that holds images"
        )
    return Images("-".join(Path(source).resolve().stem for source in sources), paths)


def default_held_out(images: int) -> int:
    """One image in twenty, at least 8 and at most 256, but never more than a quarter."""
    return min(256, max(images // 20, min(8, images // 4)))


def slug(source: str) -> str:
    """What a source is called in the names of directories."""
    return re.sub(r"[^\w.-]+", "-", Path(source).resolve().name)


def is_dataset(sources: tuple[str, ...]) -> bool:
    """Whether they are one data set, not files; raises DataError where they are both."""
    whole = [source for source in sources if _is_whole_dataset(source)]
    if whole and len(sources) > 1:
        raise DataError(f"{whole[0]} is a data set by itself: give it alone, without other sources")
    return bool(whole)


def check_it_exists(source: str) -> None:
    """Raises DataError where there is no such folder or file."""
    if not os.path.isdir(source) and not os.path.isfile(source):
        raise DataError(
            f"there is no folder or file {source}: check the path, or name a built-in data set "
            f"({', '.join(BUILT_IN)})"
        )


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


def _files_of(source: str) -> PathList:
    check_it_exists(source)
    if os.path.isdir(source):
        return images_below(source)
    return PathList(paths_in_list(source) if source.lower().endswith(LIST_SUFFIXES) else [source])


def _fashion_mnist(root: str) -> Images:
    for folder in FASHION_MNIST:
        place = os.path.join(root, folder)
        if os.path.isdir(place) and (file := idx_file_in(place)):
            return replace(idx_images(file), name="fashion-mnist", licence_note="Fashion-MNIST, MIT")
    raise DataError(
        f"Fashion-MNIST is not in {' or '.join(os.path.join(root, f) for f in FASHION_MNIST)}: install "
        f"Debian's package dataset-fashion-mnist, or give the folder of its IDX files"
    )


def _elpv_training(root: str) -> Images:
    """The images that fine-tuning on elpv trains on: those it validates on are new then."""
    from unmask.data.labels import ELPV, find_labelled  # which imports this module

    return find_labelled((ELPV,), root=root).training.images


FASHION_MNIST = ("FashionMNIST/raw", "fashion-mnist", "/usr/share/datasets/fashion-mnist")
"""Where its IDX files may lie below --data.root: torchvision's place, ours, and Debian's package."""

BUILT_IN: dict[str, Callable[[str], Images]] = {
    "elpv": elpv_images,
    "elpv:train": _elpv_training,
    "fashion-mnist": _fashion_mnist,
}
