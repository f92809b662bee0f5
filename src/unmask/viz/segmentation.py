"""Images with what a segmenter says of every pixel: overlays, errors, and label maps as files.

Legend: H x W pixels, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from unmask.models.segmenter_spec import SegmenterSpec
from unmask.viz.palette import UNLABELLED, WRONG, palette, with_legend
from unmask.viz.tiles import MARGIN, Sheet, Tile, draw
from unmask.viz.words import percent

SIDE = 256
"""Pixels of the longer side of a picture on a sheet."""
FEW, A_ROW = 4, 3
"""Scenes without a truth that get a row each, and how many stand in a row if there are more."""
STRENGTH = 0.65
"""How much of a class's colour, over the photograph in grey."""
MOST_NAMES = 40
"""Classes that the legend names; the rest is counted."""
BACKGROUND = "background"
WHITE = (255, 255, 255)


class ClassColours(NamedTuple):
    """How the classes are shown."""

    values: UInt8[np.ndarray, "K 3"]
    untinted: int | None = None
    """The class that overlays leave in grey: the background, where the colours are ours."""


def colours_of(spec: SegmenterSpec) -> ClassColours:
    """The colours that the data give the classes, or ours if they give none or one of them twice."""
    own = np.array(spec.colours or (), np.uint8).reshape(-1, 3)
    if len(np.unique(own, axis=0)) == len(spec.classes):
        return ClassColours(own)
    ours, names = palette(len(spec.classes)).copy(), [name.strip("_").lower() for name in spec.classes]
    if BACKGROUND not in names:
        return ClassColours(ours)
    ours[names.index(BACKGROUND)] = WHITE
    return ClassColours(ours, names.index(BACKGROUND))


class Scene(NamedTuple):
    """One image, its label map if it has one, and what was predicted."""

    image: UInt8[np.ndarray, "H W 3"]
    predicted: Int[np.ndarray, "H W"]
    truth: Int[np.ndarray, "H W"] | None = None


def segmentation_sheet(
    scenes: Sequence[Scene],
    names: Sequence[str],
    colours: ClassColours,
    *,
    title: str = "",
    ignore_index: int = 255,
) -> Image.Image:
    """One row per scene: the image, the truth, the prediction and the errors, over a legend.

    Where no scene has a truth: the image and the prediction, of several scenes in a row. The legend
    names the classes on the sheet, the one with the most pixels first. `colours_of` gives the colours.
    """
    assert scenes, "a sheet shows at least one scene"
    has_truth = any(scene.truth is not None for scene in scenes)
    rows = [_row(_fitted(scene), colours, ignore_index, has_truth) for scene in scenes]
    width = max(tile.shape[1] for row in rows for tile in row if tile is not None)
    columns = ["image", "truth", "prediction", "errors"] if has_truth else ["image", "prediction"]
    a_row = 1 if has_truth or len(scenes) <= FEW else A_ROW
    headings, parts = columns * a_row, []
    for first in range(0, len(rows), a_row):
        tiles = [tile for row in rows[first : first + a_row] for tile in row]
        height = max(tile.shape[0] for tile in tiles if tile is not None)
        tiles = [None if tile is None else _padded(tile, height, width) for tile in tiles]
        tiles += [None] * (len(headings) - len(tiles))
        captions = [["", "", "", _caption(scenes[first], ignore_index)]] if has_truth else ()
        row = Sheet(
            rows=[tiles],
            headings=headings,
            captions=captions,
            title=title,
            columns_per_group=len(columns),
        )
        parts.append(draw(row))
        headings, title = [""] * len(headings), ""
    picture = _stacked(parts)
    shown, rest = _classes_on(scenes, len(names))
    swatches = colours.values[shown]
    labels = [names[i] + (" (not tinted)" if i == colours.untinted else "") for i in shown]
    if has_truth:
        swatches = np.concatenate([swatches, np.array([WRONG, UNLABELLED], np.uint8)])
        labels += ["wrong (in errors)", "no label (in errors)"]
    return with_legend(picture, labels, swatches, f"and {rest} more classes" if rest else "")


def overlaid(
    image: UInt8[np.ndarray, "H W 3"], labels: Int[np.ndarray, "H W"], colours: ClassColours
) -> UInt8[np.ndarray, "H W 3"]:
    """The photograph in grey under its classes' colours, dark lines between them.

    A label that is no class leaves the photograph as it is.
    """
    known = (labels >= 0) & (labels < len(colours.values))
    strength = np.where(labels == colours.untinted, 0, STRENGTH)[..., None]
    mixed = (1 - strength) * _grey(image) + strength * colours.values[np.where(known, labels, 0)]
    mixed[_edges(labels)] *= 0.5
    return np.where(known[..., None], mixed, image).round().astype(np.uint8)


def errors_of(
    image: UInt8[np.ndarray, "H W 3"],
    predicted: Int[np.ndarray, "H W"],
    truth: Int[np.ndarray, "H W"],
    ignore_index: int = 255,
) -> UInt8[np.ndarray, "H W 3"]:
    """The photograph in pale grey with wrong pixels in red and those without a label dark."""
    pale = 0.35 * _grey(image) + 0.65 * 255
    wrong = 0.25 * _grey(image) + 0.75 * np.array(WRONG)
    picture = np.where((predicted != truth)[..., None], wrong, pale)
    picture = np.where((truth == ignore_index)[..., None], np.array(UNLABELLED), picture)
    return picture.round().astype(np.uint8)


def label_image(labels: Int[np.ndarray, "H W"], colours: UInt8[np.ndarray, "K 3"]) -> Image.Image:
    """A label map as a PNG's pixels: indices with a palette, 16 bits without one above 256 classes."""
    if len(colours) > 256:
        return Image.fromarray(labels.astype(np.uint16))
    picture = Image.fromarray(labels.astype(np.uint8), mode="P")
    picture.putpalette(colours.tobytes())
    return picture


def _row(scene: Scene, colours: ClassColours, ignore_index: int, has_truth: bool) -> list[Tile | None]:
    image, predicted, truth = scene
    prediction = overlaid(image, predicted, colours)
    if not has_truth:
        return [image, prediction]
    if truth is None:
        return [image, None, prediction, None]
    errors = errors_of(image, predicted, truth, ignore_index)
    return [image, overlaid(image, truth, colours), prediction, errors]


def _caption(scene: Scene, ignore_index: int) -> str:
    if scene.truth is None:
        return ""
    labelled = scene.truth != ignore_index
    if not labelled.any():
        return "no labelled pixels"
    wrong = (scene.predicted != scene.truth)[labelled].mean()
    return f"{percent(float(wrong))} of labelled pixels wrong"


def _classes_on(scenes: Sequence[Scene], classes: int) -> tuple[list[int], int]:
    """Classes by their pixels in truth and prediction, and how many are left out."""
    maps = [labels for _, *pair in scenes for labels in pair if labels is not None]
    values = np.concatenate([labels[(labels >= 0) & (labels < classes)].ravel() for labels in maps])
    counts = np.bincount(values, minlength=classes)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    return order[:MOST_NAMES], max(0, len(order) - MOST_NAMES)


def _grey(image: np.ndarray) -> np.ndarray:
    return (image @ np.array([0.299, 0.587, 0.114]))[..., None]


def _edges(labels: np.ndarray) -> Bool[np.ndarray, "H W"]:
    edges = np.zeros(labels.shape, bool)
    edges[1:] |= labels[1:] != labels[:-1]
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return edges


def _fitted(scene: Scene) -> Scene:
    """At the sheet's size; label maps by the nearest pixel."""
    height, width = scene.image.shape[:2]
    factor = SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    smooth = Image.Resampling.BILINEAR if factor < 1 else Image.Resampling.NEAREST
    image = np.asarray(Image.fromarray(scene.image).resize(size, smooth))
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size[::-1], (height, width), strict=True)
    )
    place = rows[:, None], columns
    truth = None if scene.truth is None else scene.truth[place]
    return Scene(image, scene.predicted[place], truth)


def _padded(tile: np.ndarray, height: int, width: int) -> np.ndarray:
    missing = (0, height - tile.shape[0]), (0, width - tile.shape[1]), (0, 0)
    return np.pad(tile, missing, constant_values=255)


def _stacked(parts: list[Image.Image]) -> Image.Image:
    """One sheet of rows that are as high as their own pictures."""
    height = sum(part.height - MARGIN for part in parts) + MARGIN
    sheet, top = Image.new("RGB", (max(part.width for part in parts), height), "white"), 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height - MARGIN
    return sheet
