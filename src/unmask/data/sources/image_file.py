"""One image file."""

import os
from pathlib import Path

from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.records import Parts
from unmask.data.sources.lists import no_labels
from unmask.data.sources.source import Options, Source


def _images(word: str, options: Options) -> Images:
    return Images(Path(word).resolve().stem, PathList([word]))


def _labelled(word: str, options: Options) -> Parts:
    raise no_labels(word)


SOURCE = Source(matches=os.path.isfile, images=_images, labelled=_labelled, alone=False)
