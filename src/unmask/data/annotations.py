"""Collects what a source says of images and objects, checks it, and packs it into arrays."""

import os
from array import array
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unmask.core.spec import Size
from unmask.data.decode.files import open_file
from unmask.data.findings import SHOWN, Finding, Tally, found
from unmask.data.images import Images
from unmask.data.instances import Detections, InstanceTable
from unmask.data.masks import Mask, packed
from unmask.data.paths import PathList
from unmask.errors import DataError

LEFT_OUT = "left out"
LEAST_SIDE = 1e-3
"""Pixels: a box that is narrower or lower has no area."""
LARGEST_SIDE = 2**20
"""Pixels: no image has more on a side, and no corner of an object lies farther away."""
ROUNDING = 1.0
"""Pixels by which a box may reach beyond its image without a word; it is cut in any case."""


class _Image(NamedTuple):
    path: str
    size: Size | None
    id: int


class Annotations:
    """Images and objects in the order in which a source names them, which may be any."""

    def __init__(self, where: str):
        """`where` the annotations stand, for messages: a file or a folder."""
        self.where = where
        self.findings: list[Finding] = []
        self._images: list[_Image] = []
        self._indices: dict[Hashable, int] = {}
        self._twice = Tally()
        self._of_no_size = Tally()
        self._numbers: dict[Hashable, int] = {}
        self._images_of, self._labels = array("q"), array("q")
        self._boxes, self._crowd, self._ends = array("f"), array("b"), array("q", [0])
        self._masks = bytearray()

    def __len__(self) -> int:
        return len(self._images)

    def add_image(self, key: Hashable, path: str, size: Size | None, image_id: int) -> None:
        """An image; `key` is what its objects call it. A second one of a key or a path is the first.

        A size that no image has is not believed.
        """
        other = self._indices.get(("path", path))
        if other is not None or ("key", key) in self._indices:
            self._twice.add(path)
        if ("key", key) in self._indices:
            return
        if size is not None and not is_size(size):
            self._of_no_size.add(path)
            size = None
        index = len(self._images) if other is None else other
        if other is None:
            self._images.append(_Image(path, size, image_id))
            self._indices["path", path] = index
        self._indices["key", key] = index

    def add_object(
        self, key: Hashable, box: Sequence[float], label: int, *, crowd: bool, mask: Mask | None
    ) -> None:
        """An object of the image of that key, which may be added later."""
        self._images_of.append(self._numbers.setdefault(key, len(self._numbers)))
        self._boxes.extend(box)
        self._labels.append(label)
        self._crowd.append(crowd)
        self._masks += packed(mask)
        self._ends.append(len(self._masks))

    def renumber(self, numbers: Mapping[int, int]) -> list[int]:
        """Renumbers the labels of all objects; gives those for which there is no number."""
        known = np.unique(np.array(self._labels, dtype=np.int64)).tolist()
        unknown = [label for label in known if label not in numbers]
        if not unknown:
            self._labels = array("q", map(numbers.__getitem__, self._labels))
        return unknown

    def finished(self, name: str, classes: Sequence[str], category_ids: Sequence[int]) -> Detections:
        """The images that exist, in the order of their paths, with the objects that have an area.

        What is left out or odd is in `findings` afterwards. Raises DataError if no image is left.
        """
        self.findings += self._twice.findings("images listed twice", "taken once")
        self.findings += self._of_no_size.findings(
            "images for which the annotations give a size that none has", "their own size counts"
        )
        images, places = self._present_images()
        sizes = np.array([image.size or (0, 0) for image in images], dtype=np.int32).reshape(-1, 2)
        owner, boxes, kept = self._placed_objects(places)
        kept = self._with_area(kept, owner, boxes, images, sizes)
        kept = self._once(kept, owner, boxes, images)
        kept = kept[np.argsort(owner[kept], kind="stable")]
        counts = np.bincount(owner[kept], minlength=len(images))
        spans = self._spans(kept, sizes, images, owner[kept])
        has_masks = bool((spans[:, 1] > spans[:, 0]).any())
        labels = np.array(self._labels, dtype=np.int64)[kept]
        crowd = np.array(self._crowd, dtype=np.int8)[kept] != 0
        self._note_odd(images, owner[kept], counts, spans, crowd)
        return Detections(
            images=Images(name, PathList(image.path for image in images)),
            instances=InstanceTable(
                starts=np.append(0, np.cumsum(counts)).astype(np.int64),
                boxes=boxes[kept],
                labels=labels,
                crowd=crowd,
                spans=spans,
                masks=bytes(self._masks),
                has_masks=has_masks,
            ),
            classes=tuple(classes),
            sizes=sizes,
            image_ids=np.array([image.id for image in images], dtype=np.int64),
            category_ids=tuple(category_ids),
        )

    def _present_images(self) -> tuple[list[_Image], np.ndarray]:
        """Images whose file exists, sorted, and the place of each key's image among them, or -1, -2.

        -1: its file is missing. -2: no image has that key.
        """
        present = [os.path.isfile(image.path) for image in self._images]
        order = sorted(
            (i for i, there in enumerate(present) if there), key=lambda i: self._images[i].path
        )
        missing = [image.path for image, there in zip(self._images, present, strict=True) if not there]
        if not order:
            first = f", the first is {missing[0]}" if missing else ""
            raise DataError(
                f"none of the {len(missing)} images that {self.where} lists are there{first}: put the "
                f"images beside it or into a folder images beside it"
            )
        self.findings += found("images whose files are missing", LEFT_OUT, missing)
        place = dict(zip(order, range(len(order)), strict=True))
        places = np.full(len(self._numbers), -2, dtype=np.int64)
        for key, number in self._numbers.items():
            index = self._indices.get(("key", key))
            if index is not None:
                places[number] = place.get(index, -1)
        return [_with_size(self._images[i]) for i in order], places

    def _placed_objects(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The image of each object, its box, and the indices of those that have an image."""
        numbers = np.array(self._images_of, dtype=np.int64)
        owner = places[numbers]
        boxes = np.array(self._boxes, dtype=np.float32).reshape(-1, 4)
        keys = list(self._numbers)
        strangers = np.flatnonzero(owner == -2)
        self.findings += found(
            "objects of images that are not listed",
            LEFT_OUT,
            [f"image {keys[numbers[i]]} in {self.where}" for i in strangers[:SHOWN]],
            len(strangers),
        )
        return owner, boxes, np.flatnonzero(owner >= 0)

    def _with_area(
        self,
        kept: np.ndarray,
        owner: np.ndarray,
        boxes: np.ndarray,
        images: Sequence[_Image],
        sizes: np.ndarray,
    ) -> np.ndarray:
        """The objects whose boxes have an area within their image; `boxes` are cut to the images."""

        def report(what: str, then: str, chosen: np.ndarray) -> None:
            examples = [_example(images, owner, boxes, i) for i in kept[chosen][:SHOWN]]
            self.findings.extend(found(what, then, examples, int(chosen.sum())))

        finite = np.isfinite(boxes[kept]).all(axis=1)
        sides = boxes[kept][:, 2:] - boxes[kept][:, :2]
        flat = ~finite | (np.nan_to_num(sides) < LEAST_SIDE).any(axis=1)
        report("boxes without area", LEFT_OUT, flat)
        kept = kept[~flat]
        limits = np.tile(sizes[owner[kept]][:, ::-1], 2).astype(np.float32)
        limits[limits == 0] = np.inf  # an image that cannot be read is skipped in training
        inside = np.clip(boxes[kept], 0, limits)
        outside = ((inside[:, 2:] - inside[:, :2]) < LEAST_SIDE).any(axis=1)
        beyond = (np.abs(inside - boxes[kept]) > ROUNDING).any(axis=1) & ~outside
        report("boxes outside their image", LEFT_OUT, outside)
        report("boxes that reach beyond their image", "cut at its edge", beyond)
        boxes[kept] = inside
        return kept[~outside]

    def _once(
        self, kept: np.ndarray, owner: np.ndarray, boxes: np.ndarray, images: Sequence[_Image]
    ) -> np.ndarray:
        """The first of objects that are the same."""
        labels = np.array(self._labels, dtype=np.int64)
        facts = np.column_stack([owner[kept], labels[kept], boxes[kept].astype(np.float64)])
        _, first = np.unique(facts, axis=0, return_index=True)
        again = np.ones(len(kept), dtype=bool)
        again[first] = False
        examples = [_example(images, owner, boxes, i) for i in kept[again][:SHOWN]]
        self.findings += found("objects listed twice", "taken once", examples, int(again.sum()))
        return kept[~again]

    def _spans(
        self, kept: np.ndarray, sizes: np.ndarray, images: Sequence[_Image], owner: np.ndarray
    ) -> np.ndarray:
        """int64 [objects, 2]: where the masks stand in the buffer; nothing of those of wrong sizes."""
        ends = np.array(self._ends, dtype=np.int64)
        spans = np.stack([ends[:-1][kept], ends[1:][kept]], axis=1)
        words = np.frombuffer(bytes(self._masks), dtype=np.uint32)
        stored = np.flatnonzero(spans[:, 1] > spans[:, 0])
        start = spans[stored, 0] // words.itemsize
        lengths = stored[words[start] == 0]  # masks that are run lengths, whose size follows
        start = spans[lengths, 0] // words.itemsize
        of_mask = np.stack([words[start + 1], words[start + 2]], axis=1).astype(np.int64)
        wrong = lengths[(of_mask != sizes[owner[lengths]]).any(axis=1)]
        spans[wrong, 1] = spans[wrong, 0]
        self.findings += found(
            "masks of another size than their image",
            "left out, their boxes are learnt",
            [images[i].path for i in owner[wrong[:SHOWN]]],
            len(wrong),
        )
        return spans

    def _note_odd(
        self,
        images: Sequence[_Image],
        owner: np.ndarray,
        counts: np.ndarray,
        spans: np.ndarray,
        crowd: np.ndarray,
    ) -> None:
        def of_images(chosen: np.ndarray) -> list[str]:
            return [images[i].path for i in owner[chosen][:SHOWN]]

        empty = np.flatnonzero(counts == 0)
        self.findings += found(
            "images without objects",
            "kept, as background",
            [images[i].path for i in empty[:SHOWN]],
            len(empty),
        )
        then = "neither learnt nor counted as background"
        self.findings += found("regions of crowds", then, of_images(crowd), int(crowd.sum()))
        bare = spans[:, 0] == spans[:, 1]
        if not bare.all():
            self.findings += found(
                "objects without a mask", "their boxes are learnt", of_images(bare), int(bare.sum())
            )


def is_size(size: Size) -> bool:
    """Whether an image may have so many pixels."""
    return min(size) > 0 and max(size) <= LARGEST_SIDE


def _with_size(image: _Image) -> _Image:
    """The size as its header says if the annotations do not."""
    return image if image.size is not None else image._replace(size=size_of(image.path))


def size_of(path: str) -> Size | None:
    """Height and width of an image as its header says; None if it cannot be read."""
    try:
        with open_file(path) as picture:
            return picture.size
    except Exception:  # broken files raise almost anything; training skips and lists them
        return None


def _example(images: Sequence[_Image], owner: np.ndarray, boxes: np.ndarray, index: int) -> str:
    return f"{images[owner[index]].path} {boxes[index].round(1).tolist()}"


def refuse_wrong_sizes(detections: Detections, report: Callable[[int], None] = lambda _: None) -> None:
    """Raises DataError if an image is not of the size that its annotations say: boxes would be off.

    Reads the header of each image; one that cannot be read is left to training. `report` is told the
    index of each.
    """
    for index, (height, width) in enumerate(detections.sizes.tolist()):
        report(index)
        size = size_of(detections.images.paths[index])
        if height and size is not None and size != (height, width):
            path = detections.images.paths[index]
            raise DataError(
                f"{path} has {size[0]} x {size[1]} pixels (height x width) and "
                f"its annotations are for {height} x {width}: give the images that were annotated"
            )
