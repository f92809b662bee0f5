"""Folders of images and folders of their label maps, by what they are usually called."""

import os
from pathlib import Path

from unmask.data.records import PART_NAMES
from unmask.errors import DataError

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages", "leftImg8bit")
MAP_FOLDERS = (
    *("annotations", "annotation", "labels", "label", "masks", "mask", "maps"),
    *("SegmentationClassPNG", "SegmentationClass", "gtFine", "gtCoarse"),
)


def pairs_of_folders(
    folder: Path, suffixes: tuple[str, ...] = (".png", ".tif", ".tiff", ".bmp")
) -> list[tuple[Path, Path]]:
    """Folders of images and the folders of their maps: here, or in each part."""
    inside = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.lower() in PART_NAMES]
    pairs = [_pair(place, suffixes) for place in (folder, *inside)]
    return [pair for pair in pairs if pair is not None]


def _pair(folder: Path, suffixes: tuple[str, ...]) -> tuple[Path, Path] | None:
    images = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
    maps = next((folder / name for name in MAP_FOLDERS if _holds(folder / name, suffixes)), None)
    return None if images is None or maps is None else (images, maps)


def _holds(folder: Path, suffixes: tuple[str, ...]) -> bool:
    return folder.is_dir() and any(
        name.lower().endswith(suffixes) for _, _, names in os.walk(folder) for name in names
    )


def refuse_jpeg_maps(word: str) -> None:
    """Raises DataError if the maps of a folder are JPEG."""
    pairs = pairs_of_folders(Path(word), (".jpg", ".jpeg")) if os.path.isdir(word) else []
    if pairs:
        raise DataError(f"the label maps in {pairs[0][1]} are JPEG, which changes labels: store PNG")
