"""Images and a picture of labels for each, beside each other.

What is read, with train, val and test, or none of them, at either depth: DATA/images/training/a.jpg with
DATA/annotations/training/a.png (ADE20K), DATA/train/images/a.jpg with DATA/train/masks/a.png; or
DATA/train/a.jpg beside DATA/train/a_mask.png (Roboflow). PASCAL VOC's DATA/JPEGImages with
DATA/SegmentationClass is divided as DATA/ImageSets/Segmentation says. `cityscapes` names its files.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unmask.config.annotations import MapOptions
from unmask.data.annotated import AnnotatedParts
from unmask.data.decode.files import SUFFIXES
from unmask.data.findings import Finding, found
from unmask.data.images import Images
from unmask.data.maps import IGNORE_INDEX, LabelMaps
from unmask.data.paths import PathList
from unmask.data.records import PART_NAMES, TEST, TRAINING, VALIDATION, some
from unmask.data.sources import cityscapes, voc
from unmask.data.sources.class_lists import ClassList, class_list, class_list_in
from unmask.data.sources.folder import images_below
from unmask.data.sources.map_folders import ENDINGS, is_called_a_map, pairs_of_folders, part_folders
from unmask.data.sources.map_pictures import NO_CLASS, MapFiles, palette_of, values_of
from unmask.data.sources.sizes import most_pixels
from unmask.data.sources.source import MapSource
from unmask.errors import DataError

VOC_FOLDER = "SegmentationClass"
"""PASCAL VOC's, which holds maps for a few of its images."""
SOFT_VALUES = 16
"""From so many values between 0 and 255 on, maps may be masks with soft edges."""
VALUES = 65_536


def _matches(word: str) -> bool:
    return os.path.isdir(word) and bool(pairs_of_folders(Path(word)))


class _Gathered(NamedTuple):
    """Images with their maps, by part."""

    parts: dict[str, list[tuple[str, str]]]
    findings: list[Finding]
    is_ade: bool
    """Whether this is ADE20K's layout, in which 0 is no class."""

    @property
    def maps(self) -> list[str]:
        return [label_map for pairs in self.parts.values() for _, label_map in pairs]


def _gathered(word: str) -> _Gathered:
    """Raises DataError if images of a part that has maps have none."""
    parts: dict[str, list[tuple[str, str]]] = {TRAINING: [], VALIDATION: [], TEST: []}
    lone, unlabelled, unlisted, is_ade = list[str](), list[str](), list[str](), False
    listed = voc.listed_parts(word, "Segmentation")
    for images, maps in pairs_of_folders(Path(word)):
        is_ade |= images.name == "images" and maps.name == "annotations" and (maps / "training").is_dir()
        is_inside = Path(word) not in (images, images.parent)
        above = PART_NAMES.get(images.parent.name.lower()) if is_inside else None
        pairs, without_map, without_image = _pairs(str(images), str(maps))
        labelled = {part for part, _, _ in pairs}
        missing = [image for part, image in without_map if part in labelled or not labelled]
        if missing and not maps.name.startswith(VOC_FOLDER):
            raise _missing_maps(missing, len(pairs), str(images), str(maps))
        unlabelled += [image for _, image in without_map]
        lone += without_image
        for part, image, label_map in pairs:
            part = listed.get(Path(image).stem, "") if listed else above or part
            if part:
                parts[part].append((image, label_map))
            else:
                unlisted.append(label_map)
    findings = found("label maps without an image", "left out", lone)
    findings += found("images without a label map", "left out", unlabelled)
    findings += found("label maps that ImageSets/Segmentation does not list", "left out", unlisted)
    return _Gathered(parts, findings, is_ade)


def _read(word: str, options: MapOptions) -> AnnotatedParts[LabelMaps]:
    gathered = _gathered(word)
    all_maps, parts = gathered.maps, gathered.parts
    if not all_maps:
        raise DataError(f"no images in {word}: sought {' '.join(SUFFIXES)} in its folders of images")
    known = class_list(options.classes) if options.classes else class_list_in(word, *part_folders(word))
    if known is None and options.label_offset is None:
        known = cityscapes.known_classes(os.path.splitext(all_maps[0])[0])
    elif known and options.label_offset is not None:
        known = replace(known, values=None)
    usual = min(known.values) if known and known.values else int(gathered.is_ade)
    first = usual if options.label_offset is None else options.label_offset
    counts = _counts(all_maps, most_pixels(options)) if known is None else Counter[int]()
    reader, classes = _reader(word, counts, known, first, options)
    palette = _palette(known, reader.table, all_maps, reader.most)
    name = Path(word).resolve().stem

    def made(part: str) -> LabelMaps | None:
        if not parts[part]:
            return None
        images, maps = zip(*parts[part], strict=True)
        return LabelMaps(
            images=Images(name, PathList(images)),
            maps=replace(reader, paths=PathList(maps)),
            classes=classes,
            palette=palette,
        )

    return AnnotatedParts(
        training=made(TRAINING),
        validation=made(VALIDATION),
        test=made(TEST),
        findings=(*gathered.findings, *_soft_edges(counts, options)),
        notes=tuple(_notes(known, first, options)),
    )


def _notes(known: ClassList | None, first: int, options: MapOptions) -> Iterator[str]:
    if known and known.source:
        yield f"the {len(known.names)} classes are those of {known.source}, and other values are ignored"
    elif first:
        note = f"the first class has the value {first} in the label maps, and lower ones are ignored"
        is_said = options.label_offset is not None or (known is not None and known.values)
        yield note if is_said else f"{note} as in ADE20K; say --data.label-offset 0 if 0 is a class"


def _counts(maps: Sequence[str], most: int) -> Counter[int]:
    """How many pixels of all maps have each value."""
    counts = Counter[int]()
    for path in maps:
        values, pixels = np.unique(values_of(path, None, (), most), return_counts=True)
        counts.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
    return counts


def _soft_edges(counts: Counter[int], options: MapOptions) -> list[Finding]:
    """What looks like masks in black and white that were resized or smoothed."""
    between = sorted(value for value in counts if 0 < value < IGNORE_INDEX)
    are_few = sum(counts[value] for value in between) < 2 * counts[IGNORE_INDEX]
    if len(between) < SOFT_VALUES or not are_few or IGNORE_INDEX not in options.ignore_values:
        return []
    return found(
        "values between black and white on few pixels, as soft edges have",
        "each is a class, and white is ignored; if these are masks of one class, store two values",
        map(str, between),
        len(between),
    )


def _reader(
    word: str, counts: Counter[int], known: ClassList | None, first: int, options: MapOptions
) -> tuple[MapFiles, tuple[str, ...]]:
    """Reads maps of the listed classes, or else of all values that occur in the maps."""
    ignored, values = options.ignore_values, list[int]()
    if known is not None:
        classes = known.names
        values = list(known.values or range(first, first + len(classes)))
        expected = f"there are {len(classes)} classes, from {values[0]} to {values[-1]}"
    else:
        present = sorted(counts)
        # Masks of one class are black and white: 255 is the class then.
        ignored = () if present == [0, IGNORE_INDEX] else ignored
        values = [value for value in present if value >= first and value not in ignored]
        classes = tuple(map(str, values))
        expected = f"values are {some(classes)}"
    if not values or not 0 <= first <= values[-1] < VALUES:
        raise DataError(
            f"the label maps of {word} hold no class from {first} on that is below {VALUES}: check "
            f"--data.label-offset"
        )
    table = np.full(VALUES, NO_CLASS, dtype=np.int16)
    table[: values[-1] if known and known.source else first] = IGNORE_INDEX
    table[[value for value in ignored if 0 <= value < VALUES]] = IGNORE_INDEX
    table[values] = np.arange(len(values))
    return MapFiles(
        paths=PathList(),
        table=table,
        colours=None if known is None else known.palette,
        values=tuple(values),
        expected=expected,
        most=most_pixels(options),
    ), classes


def _palette(
    known: ClassList | None, table: np.ndarray, maps: Sequence[str], most: int
) -> np.ndarray | None:
    """uint8 [K, 3]: the listed colours, or else those of the first map's own palette.

    A palette that gives each value its own grey is a file format's, and no choice of colours.
    """
    if known is not None and known.palette is not None:
        return known.palette
    colours = palette_of(maps[0], most)
    classes = np.flatnonzero((table != NO_CLASS) & (table != IGNORE_INDEX))
    if colours is None or len(colours) < 3 * (classes[-1] + 1):
        return None
    chosen = np.array(colours, dtype=np.uint8).reshape(-1, 3)[classes]
    return None if (chosen == classes[:, None]).all() else chosen


def _pairs(
    images: str, maps: str
) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]], list[str]]:
    """Part, image and map by their paths without suffix.

    Then part and image of images without a map, and maps without an image.
    """
    pictures = {_stem(path, maps): path for path in images_below(maps)}
    if images == maps:
        pictures = {stem: path for stem, path in pictures.items() if is_called_a_map(stem)}
    of_maps = cityscapes.label_maps_among(pictures)
    short = {ENDINGS.sub("", stem): path for stem, path in of_maps.items()}
    pairs, missing, used = [], [], set()
    for image in images_below(images):
        stem = _stem(image, images)
        if images == maps and is_called_a_map(stem):
            continue
        label_map = of_maps.get(stem) or short.get(cityscapes.IMAGE_ENDING.sub("", stem))
        top = stem.partition(os.sep)[0].lower() if os.sep in stem else ""
        part = PART_NAMES.get(top, TRAINING)
        if label_map is None:
            missing.append((part, image))
            continue
        used.add(label_map)
        pairs.append((part, image, label_map))
    return pairs, missing, sorted(set(of_maps.values()) - used)


def _missing_maps(missing: list[str], others: int, images: str, maps: str) -> DataError:
    wanted = f"{_stem(missing[0], images)}{'_mask' if images == maps else ''}.png"
    return DataError(
        f"{len(missing)} of {len(missing) + others} images have no label map in {maps}, the first is "
        f"{missing[0]}: add {wanted} there, or remove the image"
    )


def _stem(path: str, folder: str) -> str:
    return os.path.splitext(path[len(os.path.join(folder, "")) :])[0]


SOURCE = MapSource(matches=_matches, read=_read)
