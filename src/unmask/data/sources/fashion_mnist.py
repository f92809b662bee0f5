"""Fashion-MNIST from the IDX files of torchvision or of Debian's package."""

import os
from dataclasses import replace

from unmask.data.images import Images
from unmask.data.records import Parts
from unmask.data.sources.idx import idx_file_in, idx_images, labelled_idx
from unmask.data.sources.source import Options, Source
from unmask.errors import DataError

NAME = "fashion-mnist"
PLACES = ("FashionMNIST/raw", "fashion-mnist", "/usr/share/datasets/fashion-mnist")
"""Where its files may lie below --data.root: torchvision's place, ours, and Debian's package."""
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def _images(word: str, options: Options) -> Images:
    places = [os.path.join(options.root, place) for place in PLACES]
    for place in places:
        if os.path.isdir(place) and (file := idx_file_in(place)):
            return replace(idx_images(file), name=NAME, licence_note="Fashion-MNIST, MIT")
    raise DataError(
        f"Fashion-MNIST is not in {' or '.join(places)}: install Debian's package "
        f"dataset-fashion-mnist, or give the folder of its IDX files"
    )


def _labelled(word: str, options: Options) -> Parts:
    return labelled_idx(_images(word, options), CLASSES)


SOURCE = Source(matches=NAME.__eq__, images=_images, labelled=_labelled, built_in=(NAME,))
