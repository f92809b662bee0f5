"""What `unmask check` says of images that have annotations beside them.

A kind of annotation is a function in `KINDS`: from the settings of the data to what it found, or None if
the data have no such annotations.
"""

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL.Image import Image

from unmask.config.commands import CheckData
from unmask.data.annotations import refuse_wrong_sizes
from unmask.data.detections import find_boxes, find_detections, has_boxes
from unmask.data.images import Images
from unmask.data.instances import InstanceTable
from unmask.data.label_maps import SOURCES, find_label_maps
from unmask.data.maps import LabelMaps, pixel_counts
from unmask.data.paths import PathList
from unmask.data.sources import map_files
from unmask.errors import DataError
from unmask.tasks.detections import statistics_figure
from unmask.viz.words import one_line

NAMED_CLASSES = 40
SMALL, LARGE = 32, 96
"""Sides of objects in pixels at which COCO divides them."""


@dataclass(frozen=True, kw_only=True)
class AnnotationCheck:
    """Annotations of one kind, looked at."""

    images: Images
    """Those that are annotated, of training and validation."""
    rows: tuple[tuple[str, str], ...]
    """Names and values to show."""
    problems: tuple[str, ...] = ()
    """Sentences on what would stop a run."""
    folders: tuple[str, ...]
    """That hold the images, without what is annotated: to pre-train on."""
    are_among_images: bool = False
    """Whether label maps lie there too, which are no images to pre-train on."""
    command: str
    """What to type next."""
    picture: Image | None = None
    """Statistics of what is annotated."""


def check_annotations(d: CheckData) -> list[AnnotationCheck]:
    """What is found of each kind of annotation; empty if the data are images alone."""
    return [found for kind in KINDS if (found := kind(d)) is not None]


def check_objects(d: CheckData) -> AnnotationCheck | None:
    """Objects of each class, how large they are, and what is odd; reads the header of every image.

    Raises DataError if the annotations cannot be used.
    """
    if len(d.source) != 1 or not has_boxes(d.source[0]):
        return None
    split = find_detections(d.source, single_class=d.single_class, max_megapixels=d.max_megapixels)
    parts, problems = (split.training, split.validation), list[str]()
    for part in parts:
        try:
            refuse_wrong_sizes(part)
        except DataError as error:
            problems.append(str(error))
    every = split.training.joined([split.validation])
    table, total = every.instances, len(every)
    empty = int((table.counts() == 0).sum())
    labels = table.labels[~table.crowd]
    counts = np.bincount(labels, minlength=len(every.classes))
    rows = [
        ("objects", f"{len(labels)} in {total} images, of which {empty} have none"),
        ("classes", named_shares(every.classes, counts, str)),
        ("sizes of objects", _sizes(table)),
        ("masks", "of objects" if table.has_masks else "none: detect learns boxes alone"),
        *(("annotations", str(finding)) for finding in split.findings),
        ("annotations", split.counts),
        *(("annotations", note) for note in split.notes if "classes: " not in note),
    ]
    images = (split.training.images, split.validation.images)
    return AnnotationCheck(
        images=every.images,
        rows=tuple(rows),
        problems=tuple(problems),
        folders=_folders(*images),
        command=shlex.join(["unmask", "detect", *d.source, "--init", "RUN"]),
        picture=statistics_figure(every),
    )


def _sizes(table: InstanceTable) -> str:
    """The square roots of the boxes' areas, and COCO's three kinds."""
    boxes = table.boxes[~table.crowd]
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    if not len(sides):
        return "no objects"
    small, medium = (sides < SMALL).mean(), ((sides >= SMALL) & (sides < LARGE)).mean()
    return (
        f"{sides.min():.0f} to {sides.max():.0f} pixels (root of the box's area), median "
        f"{np.median(sides):.0f}; {small:.0%} below {SMALL}, {medium:.0%} up to {LARGE}, "
        f"{1 - small - medium:.0%} above"
    )


def check_label_maps(d: CheckData) -> AnnotationCheck | None:
    """Pixels of each class, and label maps that do not fit their images; reads all of them.

    Raises DataError if they cannot be matched with the images.
    """
    if len(d.source) != 1 or not any(source.matches(d.source[0]) for source in SOURCES):
        return None
    are_drawn = not map_files.SOURCE.matches(d.source[0])
    if are_drawn and has_boxes(d.source[0]) and not _has_masks(d):
        return None
    split = find_label_maps(d.source, options=d)
    counts, problems = np.zeros(len(split.training.classes) + 1, dtype=np.int64), list[str]()
    for part in (split.training, split.validation):
        for index in range(len(part)):
            try:
                counts += pixel_counts(part, [index])
            except DataError as error:
                problems.append(str(error))
    total = len(split.training) + len(split.validation)
    folders = _folders(split.training.images, split.validation.images)
    maps = (part.maps.name(i) for part in (split.training, split.validation) for i in range(len(part)))
    rows = [
        ("label maps", f"{total}, of which {len(problems)} are bad"),
        ("classes", _classes(split.training, counts)),
        ("unlabelled pixels", f"{counts[-1] / max(1, counts.sum()):.1%}"),
        *(("label maps", str(finding)) for finding in split.findings),
        ("label maps", split.counts),
        *(("label maps", note) for note in split.notes[:-1]),  # the last one names the classes
    ]
    return AnnotationCheck(
        images=_joined(split.training.images, split.validation.images),
        rows=tuple(rows),
        problems=tuple(problems),
        folders=folders,
        are_among_images=not are_drawn and any(_lies_in(folders, name) for name in maps),
        command=shlex.join(["unmask", "segment", *d.source, "--init", "RUN"]),
    )


def _has_masks(d: CheckData) -> bool:
    """Whether objects have masks, from which label maps could be made."""
    training = find_boxes(d.source, max_megapixels=d.max_megapixels).training
    return training is not None and training.instances.has_masks


def _classes(maps: LabelMaps, counts: np.ndarray) -> str:
    """Each class with its share of the labelled pixels, the largest first."""
    labelled = max(1, int(counts[:-1].sum()))
    return named_shares(maps.classes, counts[:-1], lambda count: f"{count / labelled:.2%}")


def named_shares(names: Sequence[str], counts: np.ndarray, shown: Callable[[int], str]) -> str:
    """Each class with what is shown of its count, the largest first."""
    order = np.argsort(-counts, kind="stable")[:NAMED_CLASSES]
    words = [f"{one_line(names[i], 40)} {shown(int(counts[i]))}" for i in order]
    rest = len(names) - len(words)
    return f"{len(names)}: {', '.join(words)}" + (f" and {rest} more" if rest else "")


def _folders(*parts: Images) -> tuple[str, ...]:
    """The innermost folder of each part, but none that lies in another."""
    shared = (os.fsdecode(part.paths.shared()) for part in parts)
    found = sorted({one.rpartition(os.sep)[0] or os.curdir for one in shared})
    return tuple(one for one in found if not any(one.startswith(f"{other}{os.sep}") for other in found))


def _lies_in(folders: Sequence[str], path: str) -> bool:
    return any(path.startswith(os.path.join(folder, "")) for folder in folders)


def _joined(first: Images, second: Images) -> Images:
    return replace(first, paths=PathList([*first.paths, *second.paths]))


KINDS: tuple[Callable[[CheckData], AnnotationCheck | None], ...] = (check_objects, check_label_maps)
