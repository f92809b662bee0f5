"""COCO's masks of objects drawn as label maps: small ones over large ones, the rest background."""

from dataclasses import dataclass, replace

import numpy as np

from unmask.config.annotations import MapOptions
from unmask.data.annotated import AnnotatedParts
from unmask.data.findings import Finding
from unmask.data.images import checksum
from unmask.data.instances import Detections
from unmask.data.maps import IGNORE_INDEX, LabelMaps
from unmask.data.sources import coco
from unmask.data.sources.class_lists import ClassList, class_list, with_background
from unmask.data.sources.sizes import most_pixels, refuse_large
from unmask.data.sources.source import MapSource, Options
from unmask.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ObjectMaps:
    """Draws label maps from the masks of objects."""

    detections: Detections
    labels: np.ndarray
    """int64 [classes of objects]: the label of each."""
    background: int

    def __call__(self, index: int) -> np.ndarray:
        """int64 [H, W]; of an object without a mask, the pixels of its box are ignored."""
        height, width = self.detections.sizes[index].tolist()
        objects = self.detections.instances[index]
        try:
            areas = [objects.pixels(i, (height, width)).sum() for i in range(len(objects))]
        except ValueError as error:
            raise DataError(f"{self.name(index)}: {error}: get a fresh copy of its masks") from error
        drawn = np.full((height, width), self.background, dtype=np.int64)
        for i in np.flatnonzero(np.equal(areas, 0)):
            left, top, right, bottom = objects.boxes[i].round().astype(int).tolist()
            drawn[top:bottom, left:right] = IGNORE_INDEX
        for i in np.argsort(-np.array(areas), kind="stable")[: np.count_nonzero(areas)].tolist():
            drawn[objects.pixels(i, (height, width))] = self.labels[objects.labels[i]]
        return drawn

    def name(self, index: int) -> str:
        """The image that it is of: one file holds all annotations."""
        return f"the annotation of {self.detections.images.paths[index]}"

    def meaning(self) -> str:
        """Changes when an object does, or the label of a class."""
        return checksum(self.detections.instances.checksum().encode(), self.labels)

    def subset(self, indices: np.ndarray) -> "ObjectMaps":
        """Some of the maps, in the order given."""
        return replace(self, detections=self.detections.subset(indices))

    def relabelled(self, indices: np.ndarray) -> "ObjectMaps":
        """The same maps with `indices[label]` in place of each label."""
        return replace(self, labels=indices[self.labels], background=int(indices[self.background]))


def _read(word: str, options: MapOptions) -> AnnotatedParts[LabelMaps]:
    parts = coco.SOURCE.read(word, Options(root=""))
    background = ""

    def made(data: Detections | None) -> LabelMaps | None:
        nonlocal background
        if data is None:
            return None
        if not data.instances.has_masks:
            raise DataError(
                f"the objects in {word} have boxes and no masks: give annotations with polygons or run "
                f"lengths"
            )
        if not data.sizes.all():
            raise DataError(
                f"{data.images.paths[int(data.sizes.min(axis=1).argmin())]} cannot be read, and its "
                f"size is not annotated: get a fresh copy"
            )
        largest = int(data.sizes.astype(np.int64).prod(axis=1).argmax())
        height, width = data.sizes[largest].tolist()
        refuse_large(data.images.paths[largest], (height, width), most_pixels(options))
        known = class_list(options.classes) if options.classes else ClassList(names=data.classes)
        classes, place = with_background(known.names)
        if unknown := [name for name in data.classes if name not in classes]:
            raise DataError(f"{word} has the class {unknown[0]!r}, which is not in {options.classes}")
        background = classes[place]
        labels = np.array([classes.index(name) for name in data.classes], dtype=np.int64)
        maps = ObjectMaps(detections=data, labels=labels, background=place)
        palette = known.palette if classes == known.names else None
        return LabelMaps(images=data.images, maps=maps, classes=classes, palette=palette)

    return AnnotatedParts(
        training=made(parts.training),
        validation=made(parts.validation),
        test=made(parts.test),
        findings=tuple(map(_of_pixels, parts.findings)),
        notes=(f"pixels without an object are the class {background!r}",),
    )


def _of_pixels(finding: Finding) -> Finding:
    """What happens to odd objects when they are drawn."""
    if "boxes are learnt" in finding.then:
        return replace(finding, then="the pixels of their boxes are ignored")
    if finding.what == "regions of crowds":
        return replace(finding, then="drawn like objects")
    return finding


def _matches(word: str) -> bool:
    return coco.SOURCE.matches(word)


SOURCE = MapSource(matches=_matches, read=_read)
