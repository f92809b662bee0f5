"""Records of label maps: for each image the class of every pixel.

Legend: H x W pixels, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from unmask.core.spec import Size
from unmask.data.annotated import only_in_validation
from unmask.data.images import Images
from unmask.errors import AnnotationError, DataError

IGNORE_INDEX = 255
"""The label of pixels that are neither learnt nor counted."""
MOST_CLASSES = 255


class MapReader(Protocol):
    """The label maps of a data set, in the order of its images."""

    def __call__(self, index: int) -> np.ndarray:
        """int64 [H, W]: 0 to K - 1, or the ignore index; DataError if it is bad."""
        ...

    def name(self, index: int) -> str:
        """The file that holds it."""
        ...

    def meaning(self) -> str:
        """Changes when the same files mean other labels: what they hold is not looked at."""
        ...

    def subset(self, indices: np.ndarray) -> "MapReader":
        """Some of the maps, in the order given."""
        ...

    def relabelled(self, indices: np.ndarray) -> "MapReader":
        """The same maps with `indices[label]` in place of each label."""
        ...


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """Images with a label map each."""

    images: Images
    maps: MapReader
    classes: tuple[str, ...]
    palette: np.ndarray | None = None
    """uint8 [K, 3]: the colours of the classes, if the data have them."""
    ignore_index: int = IGNORE_INDEX

    def __post_init__(self) -> None:
        if len(self.classes) > MOST_CLASSES:
            raise DataError(
                f"there are {len(self.classes)} classes of pixels and {MOST_CLASSES} are the most: give "
                f"maps, or a list of classes, with fewer"
            )

    def __len__(self) -> int:
        return len(self.images)

    def labels(self, index: int) -> np.ndarray:
        """int64 [H, W], as its reader gives it; DataError, with the file's name, if it is bad."""
        return self.maps(index)

    def fingerprint(self) -> str:
        """Changes when an image does, or the meaning of the maps."""
        return f"{self.images.fingerprint()}, maps {self.maps.meaning()}"

    def subset(self, indices: np.ndarray) -> "LabelMaps":
        """Some of the images, in the order given."""
        return replace(self, images=self.images.subset(indices), maps=self.maps.subset(indices))

    def with_classes(self, classes: tuple[str, ...]) -> "LabelMaps":
        """The same maps with the labels of other classes, by name.

        Raises DataError if one of the classes is not among them.
        """
        if unknown := [name for name in self.classes if name not in classes]:
            raise only_in_validation(unknown)
        indices = np.array([classes.index(name) for name in self.classes], dtype=np.int64)
        palette = self.palette if classes == self.classes else None
        return replace(self, maps=self.maps.relabelled(indices), classes=classes, palette=palette)


def pixel_counts(maps: LabelMaps, indices: Sequence[int] | range | None = None) -> np.ndarray:
    """int64 [K + 1]: the pixels of each class, and at the end those that are ignored; for `check`.

    Reads each map, and the header of its image. Raises DataError, with the name of the file, if a map
    cannot be read, holds a value that is no class, or is of another size than its image.
    """
    counts = np.zeros(len(maps.classes) + 1, dtype=np.int64)
    for index in range(len(maps)) if indices is None else indices:
        labels = maps.labels(index)
        refuse_wrong_size(maps, index, labels)
        labels = np.where(labels == maps.ignore_index, len(maps.classes), labels)
        counts += np.bincount(labels.reshape(-1), minlength=len(counts))
    return counts


def refuse_wrong_size(maps: LabelMaps, index: int, labels: np.ndarray) -> None:
    """Raises DataError if a map is not of its image's size; an image that cannot be read is skipped."""
    try:
        with maps.images.open(index) as picture:
            size = picture.size
    except Exception:  # broken files raise almost anything; training skips and lists them
        return
    _refuse_other_size(maps, index, labels, size)


def labels_for(maps: LabelMaps, index: int, size: Size) -> np.ndarray:
    """int64 [H, W]: the label map of an opened image of that size.

    Raises AnnotationError, with the name of the file, if `pixel_counts` raises DataError.
    """
    try:
        labels = maps.labels(index)
        _refuse_other_size(maps, index, labels, size)
    except DataError as error:
        raise AnnotationError(str(error)) from error
    return labels


def _refuse_other_size(maps: LabelMaps, index: int, labels: np.ndarray, size: Size) -> None:
    if labels.shape != tuple(size):
        raise DataError(
            f"{maps.maps.name(index)} has {labels.shape[0]} x {labels.shape[1]} pixels and its image "
            f"{maps.images.paths[index]} {size[0]} x {size[1]}: make the map again for this image"
        )
