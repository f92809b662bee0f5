"""Records of objects in images: a box, a class and optionally a mask for each.

Boxes are left, top, right, bottom in pixels of the upright image, the right and bottom edges excluded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unmask.core.spec import Size
from unmask.data.annotated import only_in_validation
from unmask.data.images import Images, checksum
from unmask.data.masks import Mask, pixels_of, unpacked
from unmask.data.paths import PathList


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The objects of one image."""

    boxes: np.ndarray
    """float32 [n, 4]"""
    labels: np.ndarray
    """int64 [n]"""
    crowd: np.ndarray
    """bool [n]: a region of many objects, or one too hard to judge. Neither an object to be learnt nor
    background; what is predicted there counts neither way."""
    masks: tuple[Mask | None, ...] | None = None
    """As they are stored, None for an object that has none; None: no object of the data set has one."""

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: int, size: Size) -> np.ndarray:
        """bool [h, w] of one object, none without a mask: a large image has no room for those of all."""
        mask = None if self.masks is None else self.masks[index]
        return np.zeros(size, dtype=bool) if mask is None else pixels_of(mask, size)


@dataclass(frozen=True, kw_only=True)
class InstanceTable(Sequence[Instances]):
    """The objects of all images in a few arrays, which loader workers share without copies."""

    starts: np.ndarray
    """int64 [images + 1]: where the objects of each image start, and where the last ones end."""
    boxes: np.ndarray
    """float32 [objects, 4]"""
    labels: np.ndarray
    """int64 [objects]"""
    crowd: np.ndarray
    """bool [objects]"""
    spans: np.ndarray
    """int64 [objects, 2]: where each mask starts and ends in `masks`; equal if it has none."""
    masks: bytes = field(repr=False)
    has_masks: bool

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # slices make lists
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        part = slice(self.starts[index], self.starts[index + 1])
        masks = tuple(unpacked(self.masks[start:end]) for start, end in self.spans[part].tolist())
        return Instances(
            boxes=self.boxes[part],
            labels=self.labels[part],
            crowd=self.crowd[part],
            masks=masks if self.has_masks else None,
        )

    def counts(self) -> np.ndarray:
        """int64 [images]: how many objects each has."""
        return np.diff(self.starts)

    def subset(self, indices: np.ndarray) -> "InstanceTable":
        """The objects of some of the images, in the order given; the masks' bytes stay shared."""
        counts = self.counts()[indices]
        starts = np.append(0, np.cumsum(counts)).astype(np.int64)
        chosen = np.repeat(self.starts[indices] - starts[:-1], counts) + np.arange(starts[-1])
        return replace(
            self,
            starts=starts,
            boxes=self.boxes[chosen],
            labels=self.labels[chosen],
            crowd=self.crowd[chosen],
            spans=self.spans[chosen],
        )

    def checksum(self) -> str:
        """Changes when an object does."""
        return checksum(self.starts, self.boxes, self.labels, self.crowd, self.masks)


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Images and the objects in them."""

    images: Images
    instances: InstanceTable
    classes: tuple[str, ...]
    sizes: np.ndarray
    """int32 [images, 2]: height and width as the annotations say, 0 if nothing says them."""
    image_ids: np.ndarray
    """int64 [images]: what the annotation file calls them, for results in COCO's format."""
    category_ids: tuple[int, ...]
    """What the annotation file calls the classes."""

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: np.ndarray) -> "Detections":
        """Some of the images, in the order given."""
        return replace(
            self,
            images=self.images.subset(indices),
            instances=self.instances.subset(indices),
            sizes=self.sizes[indices],
            image_ids=self.image_ids[indices],
        )

    def of_one_class(self, name: str) -> "Detections":
        """The same objects, all of one class of this name."""
        labels = np.zeros_like(self.instances.labels)
        return replace(
            self,
            instances=replace(self.instances, labels=labels),
            classes=(name,),
            category_ids=(1,),
        )

    def fingerprint(self) -> str:
        """Changes when an image or an object does."""
        return f"{self.images.fingerprint()}, objects {self.instances.checksum()}"

    def joined(self, others: Sequence["Detections"]) -> "Detections":
        """With the images and objects of others, which have the same classes and kind of images."""
        if not others:
            return self
        every = [self, *others]
        tables = [part.instances for part in every]
        starts = np.cumsum([0, *(t.starts[-1] for t in tables[:-1])])
        offsets = np.cumsum([0, *(len(t.masks) for t in tables[:-1])])
        instances = InstanceTable(
            starts=np.concatenate(
                [[0], *(t.starts[1:] + start for t, start in zip(tables, starts, strict=True))]
            ),
            boxes=np.concatenate([t.boxes for t in tables]),
            labels=np.concatenate([t.labels for t in tables]),
            crowd=np.concatenate([t.crowd for t in tables]),
            spans=np.concatenate([t.spans + offset for t, offset in zip(tables, offsets, strict=True)]),
            masks=b"".join(t.masks for t in tables),
            has_masks=any(t.has_masks for t in tables),
        )
        return replace(
            self,
            images=replace(
                self.images, paths=PathList([path for part in every for path in part.images.paths])
            ),
            instances=instances,
            sizes=np.concatenate([part.sizes for part in every]),
            image_ids=np.concatenate([part.image_ids for part in every]),
        )

    def with_classes(self, classes: tuple[str, ...]) -> "Detections":
        """The same objects with the labels of other classes, by name.

        Raises DataError if there is an object of a class that is not among them.
        """
        places = {name: i for i, name in enumerate(classes)}
        indices = np.array([places.get(name, -1) for name in self.classes], dtype=np.int64)
        ids = dict(zip(self.classes, self.category_ids, strict=True))
        labels = indices[self.instances.labels]
        if (labels < 0).any():
            unknown = np.unique(self.instances.labels[labels < 0]).tolist()
            raise only_in_validation([self.classes[i] for i in unknown])
        free = max(self.category_ids, default=0) + 1
        return replace(
            self,
            instances=replace(self.instances, labels=labels),
            classes=classes,
            category_ids=tuple(ids.get(name, free + i) for i, name in enumerate(classes)),
        )
