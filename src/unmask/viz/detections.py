"""Images with their objects, true and found, and how well they were found.

Legend: H x W pixels of an image, G objects, n detections.
Pictures are uint8 arrays [H, W, 3] of any sizes, as `displayable` makes them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
import torch
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from unmask.evals.detection import COCO_OVERLAPS, Matches, Precision, matches
from unmask.evals.objects import FoundObjects, TrueObjects, decode
from unmask.viz.tiles import GAP, TEXT_SIZE, Sheet, Tile, draw, font
from unmask.viz.words import one_line, percent

Picture = UInt8[np.ndarray, "H W 3"]

SIDE = 320
"""Pixels of a tile's side; pictures are resized to fit."""

NAME_LENGTH = 24
MOST_NAMED = 40
"""Objects of a picture that have their names on it."""
SHOWN_SCORE = 0.5
"""Detections below are not drawn, nor called invented."""

TINT = 0.45
CONTEXT = 0.5
"""What is shown around a missed or invented object, in its longer side."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One picture with what is there and what was found."""

    picture: Picture
    truth: TrueObjects
    found: FoundObjects

    def shown(self, score: float) -> "Case":
        """Without the detections below this score."""
        index = torch.nonzero(self.found.scores >= score)[:, 0]
        return replace(self, found=self.found.select(index))


def objects_figure(
    picture: Picture,
    objects: TrueObjects | FoundObjects,
    names: Sequence[str],
    *,
    side: int | None = None,
) -> Image.Image:
    """The picture with a box, a mask and a name for each object, and a score if it has one.

    Where there is only one class, what was found has its score alone; many objects have no words, which
    would cover them.

    Args:
        side: pixels of the longer side that the picture is resized to; its own size if None.
    """
    factor = 1.0 if side is None else side / max(picture.shape[:2])
    canvas = Image.fromarray(picture).resize(_scaled(picture, factor), Image.Resampling.BICUBIC)
    if objects.masks is not None:
        masks = (decode([code], objects.size)[0] for code in objects.masks)  # not all at once
        canvas = _tinted(canvas, masks, [_colour(int(label)) for label in objects.labels])
    pen = ImageDraw.Draw(canvas)
    crowded = len(objects.boxes) > MOST_NAMED
    for i in range(len(objects.boxes)):
        box = [factor * edge for edge in objects.boxes[i].tolist()]
        label = int(objects.labels[i])
        if crowded:
            pen.rectangle(box, outline=_colour(label))
            continue
        text = one_line(names[label], NAME_LENGTH)
        if isinstance(objects, FoundObjects):
            score = percent(float(objects.scores[i]))
            text = f"{score} {text}" if len(names) > 1 else score
        elif objects.crowd[i]:
            alike = (objects.boxes[objects.crowd] == objects.boxes[i]).all(dim=1).sum()
            text = f"crowd of {text}" if alike == 1 else "ignored"  # of more than one class
        _framed(pen, box, _colour(label), text, canvas.size)
    return canvas


def beside_truth_sheet(
    cases: Sequence[Case], names: Sequence[str], *, score: float = SHOWN_SCORE, title: str = ""
) -> Image.Image:
    """Draws what is there beside what was found with at least this score, two pairs in a row."""
    tiles: list[Tile | None] = []
    captions = []
    for case in (case.shown(score) for case in cases):
        matched = matches(case.truth, case.found)
        drawn = [objects_figure(case.picture, o, names, side=SIDE) for o in (case.truth, case.found)]
        tiles += [_tile(picture) for picture in drawn]
        captions += [
            f"{(G := int((~case.truth.crowd).sum()))} object{'s' * (G != 1)}",
            _counted(matched),
        ]
    if not tiles:
        return _nothing("No images")
    columns = min(4, len(tiles))
    return draw(
        Sheet.in_rows(
            tiles,
            captions,
            ["true", "found"] * (columns // 2),
            title=title or f"Ground truth beside detections with a score of at least {percent(score)}",
            columns_per_group=2,
        )
    )


def worst_cases_sheet(
    cases: Sequence[Case],
    names: Sequence[str],
    *,
    count: int = 8,
    score: float = SHOWN_SCORE,
    counts: tuple[int, int] | None = None,
) -> Image.Image:
    """Draws the largest objects that were missed over the most confident that are not there.

    Args:
        counts: how many were missed and invented in all, if `cases` are only those with the worst.
    """
    missed, invented = _missed(cases, score), _invented(cases, score)
    rows = [
        [_closeup(*given, names) for given in sorted(found, key=lambda g: -g[2])[:count]]
        for found in (missed, invented)
    ]
    columns = max(map(len, rows))
    if not columns:
        return _nothing("No object missed, no false positive")
    empty: tuple[Tile | None, str] = (None, "")
    filled = [[*row, *[empty] * (columns - len(row))] for row in rows]
    in_all = counts or (len(missed), len(invented))
    labels = [f"{in_all[0]} missed", f"{in_all[1]} invented"]
    pairs = [(row, label) for row, label in zip(filled, labels, strict=True) if row[0][0] is not None]
    return draw(
        Sheet(
            rows=[[tile for tile, _ in row] for row, _ in pairs],
            headings=[""] * columns,
            captions=[[caption for _, caption in row] for row, _ in pairs],
            row_labels=[label for _, label in pairs],
            title=f"Largest missed, most confident invented, at a score of {percent(score)} or more",
        )
    )


def precision_recall_figure(precision: Precision, names: Sequence[str]) -> Image.Image:
    """Draws precision by recall: of each class at an overlap of 0.5, and the mean at three overlaps."""
    figure = Figure(figsize=(9.6, 4.4), dpi=110, layout="constrained")
    by_class, mean = figure.subplots(1, 2, sharey=True)
    recall = np.linspace(0, 1, precision.curves.shape[1])
    for k, name in enumerate(names):
        curve = precision.curves[0, :, k]
        if curve.isnan().any():
            continue
        label = f"{one_line(name, NAME_LENGTH)}  {100 * precision.per_class50[name]:.1f}"
        by_class.plot(recall, curve, color=np.divide(_colour(k), 255), label=label)
    _finish(by_class, "classes at an overlap of 0.5", "AP50")
    for overlap, style in ((0.5, "-"), (0.75, "--"), (0.9, ":")):
        curves = precision.curves[COCO_OVERLAPS.index(_nearest(overlap))]
        curve = curves[:, ~curves.isnan().any(dim=0)].mean(dim=1)
        if not curve.isnan().any():
            label = f"{overlap:g}  {100 * float(curve.mean()):.1f}"
            mean.plot(recall, curve, style, color="black", label=label)
    _finish(mean, "mean over classes", "overlap, AP")
    by_class.set_ylabel("precision")
    return _rendered(figure)


def objects_statistics_figure(truth: Sequence[TrueObjects], names: Sequence[str]) -> Image.Image:
    """Draws how many objects each class has, how large they are, and how many an image holds.

    Crowds are no objects.
    """
    labels = torch.cat([t.labels[~t.crowd] for t in truth]).numpy()
    sides = torch.cat([t.areas[~t.crowd] for t in truth]).clamp(min=1).sqrt().numpy()
    figure = Figure(figsize=(10.8, 3.2 + 0.22 * max(0, len(names) - 8)), dpi=110, layout="constrained")
    by_class, by_size, by_image = figure.subplots(1, 3)
    counts = np.bincount(labels, minlength=len(names))
    shown = [one_line(name, NAME_LENGTH) for name in names]
    colours = [np.divide(_colour(k), 255) for k in range(len(names))]
    bars = by_class.barh(range(len(names)), counts, color=colours)
    by_class.bar_label(bars, padding=3)
    by_class.set_yticks(range(len(names)), shown)
    by_class.invert_yaxis()
    by_class.margins(x=0.15)
    by_class.set_title("objects of each class", fontsize=11)
    if len(sides):
        by_size.hist(sides, bins=np.geomspace(sides.min() * 0.99, sides.max() * 1.01, 25), color="0.5")
    for side in (32, 96):
        by_size.axvline(side, color="black", linestyle=":")
    by_size.set_xscale("log", base=2)
    by_size.xaxis.set_major_formatter("{x:g}")
    by_size.set_title("square root of area, pixels", fontsize=11)
    per_image = np.array([int((~t.crowd).sum()) for t in truth])
    by_image.hist(per_image, bins=np.arange(per_image.max(initial=0) + 2) - 0.5, color="0.5")
    by_image.set_title(f"objects of an image ({(per_image == 0).sum()} have none)", fontsize=11)
    for axis in (by_class.xaxis, by_size.yaxis, by_image.xaxis, by_image.yaxis):
        axis.get_major_locator().set_params(integer=True)
    for axes in (by_class, by_size, by_image):
        axes.spines[["top", "right"]].set_visible(False)
    return _rendered(figure)


def _missed(cases: Sequence[Case], score: float) -> list[tuple[Case, list[float], float, str, int]]:
    """Case, box, rank, words and class of each object without a detection."""
    return [
        (case, case.truth.boxes[i].tolist(), float(case.truth.areas[i]), "", int(case.truth.labels[i]))
        for case, matched in _matched(cases, score)
        for i in torch.nonzero(matched.missed)[:, 0].tolist()
    ]


def _invented(cases: Sequence[Case], score: float) -> list[tuple[Case, list[float], float, str, int]]:
    """Case, box, rank, words and class of each detection without an object."""
    found = []
    for case, matched in _matched(cases, score):
        for i in torch.nonzero(matched.object_of == -1)[:, 0].tolist():
            certain = float(case.found.scores[i])
            words, label = f"{percent(certain)} ", int(case.found.labels[i])
            found.append((case, case.found.boxes[i].tolist(), certain, words, label))
    return found


def _matched(cases: Sequence[Case], score: float) -> Iterator[tuple[Case, Matches]]:
    for case in cases:
        shown = case.shown(score)
        yield shown, matches(shown.truth, shown.found)


def _closeup(
    case: Case, box: list[float], rank: float, words: str, label: int, names: Sequence[str]
) -> tuple[Tile, str]:
    """What is around a box, the box on it, and its caption."""
    left, top, right, bottom = box
    side = (1 + 2 * CONTEXT) * max(right - left, bottom - top, 8)
    corner = ((left + right - side) / 2, (top + bottom - side) / 2)
    place = (*corner, corner[0] + side, corner[1] + side)
    size = (SIDE // 2, SIDE // 2)
    part = Image.fromarray(case.picture).transform(
        size, Image.Transform.EXTENT, place, Image.Resampling.BILINEAR, fillcolor="white"
    )
    factor = size[0] / side
    frame = [(edge - corner[i % 2]) * factor for i, edge in enumerate(box)]
    ImageDraw.Draw(part).rectangle(frame, outline=_colour(label), width=2)
    return np.asarray(part), words + one_line(names[label], NAME_LENGTH)


def _tinted(canvas: Image.Image, masks: Iterable[Bool[Tensor, "H W"]], colours: list) -> Image.Image:
    pixels = np.asarray(canvas).astype(np.float32)
    for mask, colour in zip(masks, colours, strict=True):
        sized = Image.fromarray(mask.numpy()).resize(canvas.size, Image.Resampling.NEAREST)
        inside = np.asarray(sized)
        pixels[inside] = (1 - TINT) * pixels[inside] + TINT * np.asarray(colour)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _framed(
    pen: ImageDraw.ImageDraw,
    box: list[float],
    colour: tuple[int, int, int],
    text: str,
    size: tuple[int, int],
) -> None:
    """A box with its words on a plate above it, or within it at the upper edge of the picture."""
    pen.rectangle(box, outline=colour, width=2)
    letters = font(TEXT_SIZE - 3)
    width, height = letters.getlength(text) + 4, TEXT_SIZE
    left = max(0.0, min(box[0], size[0] - width))
    top = max(0.0, box[1] - height)
    pen.rectangle((left, top, left + width, top + height), fill=colour)
    pen.text((left + 2, top), text, "white", letters)


def _tile(picture: Image.Image) -> Tile:
    """The picture in the upper left corner of a white square."""
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(picture)
    return np.asarray(square)


def _scaled(picture: Picture, factor: float) -> tuple[int, int]:
    height, width = picture.shape[:2]
    return max(1, round(factor * width)), max(1, round(factor * height))


def _counted(matched: Matches) -> str:
    right, wrong = int((matched.object_of >= 0).sum()), int((matched.object_of == -1).sum())
    return f"{right} found, {int(matched.missed.sum())} missed, {wrong} invented"


def _colour(label: int) -> tuple[int, int, int]:
    red, green, blue = matplotlib.colormaps["tab10"](label % 10)[:3]
    return round(255 * red), round(255 * green), round(255 * blue)


def _nearest(overlap: float) -> float:
    return min(COCO_OVERLAPS, key=lambda known: abs(known - overlap))


def _finish(axes: Axes, title: str, legend: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall")
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(title=legend, fontsize=8, ncols=1 + len(axes.lines) // 14)


def _nothing(words: str) -> Image.Image:
    blank = np.full((GAP, SIDE, 3), 255, np.uint8)
    return draw(Sheet(rows=[[blank]], headings=[""], title=words))


def _rendered(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
