"""Folders of images and folders of their label maps, by what they are usually called."""

import os
import re
from pathlib import Path

from unmask.data.decode.files import SUFFIXES
from unmask.data.records import PART_NAMES
from unmask.data.sources import cityscapes
from unmask.errors import DataError

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages", "leftImg8bit")
ENDINGS = re.compile(
    rf"({cityscapes.MAP_ENDING}|[_-](mask|masks|label|labels|gt|seg|segmentation))$", re.IGNORECASE
)
"""What may stand behind the image's name in the name of its map."""
MAP_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
MAP_FOLDERS = (
    *("annotations", "annotation", "labels", "label", "masks", "mask", "maps"),
    *("SegmentationClassPNG", "SegmentationClass", "gtFine", "gtCoarse"),
)


def pairs_of_folders(folder: Path, suffixes: tuple[str, ...] = MAP_SUFFIXES) -> list[tuple[Path, Path]]:
    """Folders of images and the folders of their maps: here, or in each part.

    Both are the folder itself if maps lie beside their images.
    """
    places = [folder, *map(Path, part_folders(str(folder)))]
    pairs = [pair for place in places if (pair := _pair(place, suffixes)) is not None]
    if not pairs and any(_has_maps_beside_images(place, suffixes) for place in places):
        return [(folder, folder)]
    return pairs


def part_folders(folder: str) -> list[str]:
    """The folders in a folder that are called after a part of the data."""
    inside = (place for place in sorted(Path(folder).iterdir()) if place.is_dir())
    return [str(place) for place in inside if place.name.lower() in PART_NAMES]


def is_called_a_map(stem: str) -> bool:
    """Whether a name without suffix says that it is of a label map."""
    return ENDINGS.search(stem) is not None


def _has_maps_beside_images(folder: Path, suffixes: tuple[str, ...]) -> bool:
    names = [os.path.splitext(name) for name in os.listdir(folder) if name.lower().endswith(SUFFIXES)]
    maps = {stem for stem, suffix in names if is_called_a_map(stem) and suffix.lower() in suffixes}
    images = {stem for stem, _ in names} - maps
    return any(ENDINGS.sub("", stem) in images for stem in maps)


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
