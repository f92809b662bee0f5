"""Shapes of labelme's files drawn as label maps: a later one over an earlier one, as labelme does."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unmask.config.annotations import MapOptions
from unmask.data.annotated import AnnotatedParts
from unmask.data.findings import found
from unmask.data.images import Images, checksum
from unmask.data.maps import IGNORE_INDEX, LabelMaps
from unmask.data.paths import PathList
from unmask.data.records import TEST, TRAINING, VALIDATION, in_order
from unmask.data.sources.class_lists import ClassList, class_list, class_list_in, with_background
from unmask.data.sources.labelme import (
    IGNORED,
    covered,
    has_shapes,
    labelme_files,
    part_of,
    shapes_of,
    sheet_of,
    stranger,
    unreadable_files,
)
from unmask.data.sources.sizes import most_pixels
from unmask.data.sources.source import MapSource


@dataclass(frozen=True, kw_only=True)
class LabelmeMaps:
    """Draws label maps from files of shapes."""

    paths: PathList
    """The JSON files."""
    labels: dict[str, int]
    """Value of each class; shapes of others are left out."""
    background: int
    sizes: np.ndarray
    """int32 [images, 2]"""

    def __call__(self, index: int) -> np.ndarray:
        """int64 [H, W]; DataError if the file is no longer what it was."""
        height, width = self.sizes[index].tolist()
        drawn = np.full((height, width), self.background, dtype=np.int64)
        for shape in shapes_of(self.paths[index]):
            label = IGNORE_INDEX if shape["label"] == IGNORED else self.labels[shape["label"]]
            drawn[covered(self.paths[index], shape, (height, width))] = label
        return drawn

    def name(self, index: int) -> str:
        """The file that holds it."""
        return self.paths[index]

    def meaning(self) -> str:
        """Changes when a name means another label."""
        return checksum(str(sorted(self.labels.items())).encode())

    def subset(self, indices: np.ndarray) -> "LabelmeMaps":
        """Some of the maps, in the order given."""
        return replace(self, paths=self.paths.take(indices), sizes=self.sizes[indices])

    def relabelled(self, indices: np.ndarray) -> "LabelmeMaps":
        """The same maps with `indices[label]` in place of each label."""
        labels = {name: int(indices[label]) for name, label in self.labels.items()}
        return replace(self, labels=labels, background=int(indices[self.background]))


def _read(word: str, options: MapOptions) -> AnnotatedParts[LabelMaps]:
    """The classes are those of labels.txt, or else all that occur; the background is one of them."""
    sheets = [sheet_of(file, most_pixels(options)) for file in labelme_files(word)]
    present = {label for sheet in sheets for label in sheet.labels} - {IGNORED}
    known = class_list(options.classes) if options.classes else class_list_in(word)
    known = ClassList(names=in_order(present)) if known is None else known
    classes, background = with_background(known.names)
    if strangers := sorted(present - set(classes)):
        raise stranger(strangers[0], sheets)
    without_area = [sheet.file for sheet in sheets for _ in range(sheet.without_area)]
    findings = found("points and lines, which have no area", "left out", without_area)
    findings += unreadable_files(word)
    labels = {name: i for i, name in enumerate(classes)}
    name, palette = Path(word).resolve().stem, known.palette if classes == known.names else None

    def made(part: str) -> LabelMaps | None:
        chosen = [sheet for sheet in sheets if part_of(sheet.file, word) == part]
        if not chosen:
            return None
        sizes = np.array([sheet.size for sheet in chosen], dtype=np.int32)
        files = PathList(sheet.file for sheet in chosen)
        return LabelMaps(
            images=Images(name, PathList(sheet.image for sheet in chosen)),
            maps=LabelmeMaps(paths=files, labels=labels, background=background, sizes=sizes),
            classes=classes,
            palette=palette,
        )

    return AnnotatedParts(
        training=made(TRAINING),
        validation=made(VALIDATION),
        test=made(TEST),
        findings=tuple(findings),
        notes=(f"pixels without a shape are the class {classes[background]!r}",),
    )


SOURCE = MapSource(matches=has_shapes, read=_read)
