"""From what a user names to images: folders, files, lists, containers, data sets of other libraries."""

import os
from collections import Counter
from dataclasses import replace

from unmask.config.settings import Source as SourceSettings
from unmask.data.decode.files import SUFFIXES
from unmask.data.images import Images
from unmask.data.paths import PathList, together
from unmask.data.records import Named, Parts, refuse_contradictions
from unmask.data.sources import class_folders
from unmask.data.sources.folder import FOLDER, walk
from unmask.data.sources.index import Ignored
from unmask.data.sources.registry import BUILT_IN, kinds_of
from unmask.data.sources.source import Options
from unmask.errors import DataError


def find_images(
    sources: tuple[str, ...], *, root: str = SourceSettings().root, download: bool = False
) -> Images:
    """All images of the sources; `config.settings.Source` says what a source may be.

    Raises DataError, which says how to correct it, if there are none.
    """
    if not sources:
        raise DataError(
            "no images were named: give a folder, or the name of a built-in data set "
            f"({', '.join(BUILT_IN)})"
        )
    kinds, options = kinds_of(sources), Options(root=root, download=download)
    found = [kind.images(word, options) for kind, word in zip(kinds, sources, strict=True)]
    images = _joined_images(found)
    if not len(images) and not kinds[0].alone:
        others = "; ".join(sums(passed_over(sources))) or "nothing at all"
        raise DataError(
            f"no images in {', '.join(sources)}: sought {' '.join(SUFFIXES)} at any depth, and found "
            f"{others}; give a folder that holds images"
        )
    return images


def passed_over(sources: tuple[str, ...]) -> Counter[Ignored]:
    """What is in or below the folders among the sources and is no image, by suffix and reason."""
    folders = [w for w in sources if os.path.isdir(w) and kinds_of((w,))[0] is class_folders.SOURCE]
    return sum((walk(folder).ignored for folder in folders), Counter[Ignored]())


def sums(ignored: Counter[Ignored]) -> list[str]:
    """How many of each suffix, with the reason they share: '3 .heic, 1 .gif: no image of ...'."""
    reasons: dict[str, list[str]] = {}
    for (suffix, reason), count in sorted(ignored.items(), key=lambda item: (-item[1], item[0])):
        what = {"": "without a suffix", FOLDER: "folders"}.get(suffix, suffix)
        reasons.setdefault(reason, []).append(f"{count} {what}")
    return [f"{', '.join(counts)}: {reason}" for reason, counts in reasons.items()]


def find_parts(sources: tuple[str, ...], options: Options) -> Parts:
    """The labelled images of the sources, divided as the sources divide themselves.

    A test part validates if nothing else does. Raises DataError if labels are missing or wrong.
    """
    if not sources:
        raise DataError(
            "no images were named: give a folder with a folder per class, a .csv with the columns path "
            "and label, or the name of a data set"
        )
    kinds = kinds_of(sources)
    found = [kind.labelled(word, options) for kind, word in zip(kinds, sources, strict=True)]
    parts = found[0] if len(found) == 1 else _joined(found)
    if parts.test is None:
        return parts
    what = "are for validation" if parts.validation is None else "are left out"
    note = f"{len(parts.test)} images of the test part {what}"
    validation = parts.test if parts.validation is None else parts.validation
    return replace(parts, validation=validation, test=None, notes=(*parts.notes, note))


def _joined_images(several: list[Images]) -> Images:
    if len(several) == 1:
        return several[0]
    paths = PathList.joined([images.paths for images in several])
    return Images(together([images.name for images in several]), paths)


def _joined(several: list[Parts]) -> Parts:
    """Folders and lists together; raises DataError if an image is in two classes or two parts."""
    name = together([parts.training.images.name for parts in several])

    def part(which: str) -> Named | None:
        members = [named for parts in several if (named := getattr(parts, which)) is not None]
        return _joined_named(members, name) if members else None

    training, validation, test = part("training"), part("validation"), part("test")
    assert training is not None
    refuse_contradictions({"train": training, "val": validation, "test": test})
    notes = tuple(note for parts in several for note in parts.notes)
    return Parts(training=training, validation=validation, test=test, notes=notes)


def _joined_named(several: list[Named], name: str) -> Named:
    return Named(
        images=replace(_joined_images([named.images for named in several]), name=name),
        names=[label for named in several for label in named.names],
        keys=[key for named in several for key in named.keys],
    )
