"""What Cityscapes calls its files and classes.

Source: cityscapes-dataset.com. DATA/leftImg8bit/train/CITY/a_leftImg8bit.png has the label map
DATA/gtFine/train/CITY/a_gtFine_labelIds.png; other pictures of labels lie beside it.
"""

import re
from collections.abc import Mapping

import numpy as np

from unmask.data.sources.class_lists import ClassList

IMAGE_ENDING = re.compile(r"_leftImg8bit$")
MAP_ENDING = r"_gt(?:Fine|Coarse)_label(?:Train)?Ids"
IDS, TRAIN_IDS = (
    re.compile(r"_gt(Fine|Coarse)_labelIds$"),
    re.compile(r"_gt(Fine|Coarse)_labelTrainIds$"),
)
OTHER_PICTURES = re.compile(r"_gt(Fine|Coarse)_(instanceIds|instanceTrainIds|color)$")

CLASSES = {
    7: ("road", (128, 64, 128)),
    8: ("sidewalk", (244, 35, 232)),
    11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)),
    13: ("fence", (190, 153, 153)),
    17: ("pole", (153, 153, 153)),
    19: ("traffic light", (250, 170, 30)),
    20: ("traffic sign", (220, 220, 0)),
    21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)),
    23: ("sky", (70, 130, 180)),
    24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)),
    26: ("car", (0, 0, 142)),
    27: ("truck", (0, 0, 70)),
    28: ("bus", (0, 60, 100)),
    31: ("train", (0, 80, 100)),
    32: ("motorcycle", (0, 0, 230)),
    33: ("bicycle", (119, 11, 32)),
}
"""Name and colour of each class that counts, by its value in labelIds; labelTrainIds number them
from 0 in this order."""


def label_maps_among(pictures: Mapping[str, str]) -> dict[str, str]:
    """The label maps among pictures, by their names without suffix: labelTrainIds if there are any."""
    maps = {name: path for name, path in pictures.items() if not OTHER_PICTURES.search(name)}
    if any(TRAIN_IDS.search(name) for name in maps):
        maps = {name: path for name, path in maps.items() if not IDS.search(name)}
    return maps


def known_classes(name: str) -> ClassList | None:
    """The classes of a label map by its name without suffix; None if it is not called like theirs."""
    if not (IDS.search(name) or TRAIN_IDS.search(name)):
        return None
    names, colours = zip(*CLASSES.values(), strict=True)
    values = tuple(CLASSES) if IDS.search(name) else tuple(range(len(CLASSES)))
    palette = np.array(colours, dtype=np.uint8)
    return ClassList(names=names, palette=palette, values=values, source="Cityscapes")
