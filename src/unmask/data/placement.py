"""Moves an image, its label map, boxes and masks onto a canvas, all by the same numbers.

An image is resized, a box of it is cut out and possibly mirrored, and the cut stands in the upper left
corner of the canvas; the rest is padding. Images are resampled bilinearly with antialiasing (enlarging
equals OpenCV's bilinear), label maps and masks by the nearest pixel centre, so that all of them agree
where a pixel lies. How the numbers are drawn stands in `dense.py`.

Legend: C channels, H x W pixels of the image, h x w of the canvas, M objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from unmask.core.spec import Size
from unmask.data.cropped_masks import NO_MASK, CroppedMask, cropped
from unmask.data.transforms import Box


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How an image comes onto a canvas."""

    source: Size
    """Height and width of the image, to which label maps, boxes and masks refer."""
    resized: Size
    """Height and width of the whole image once it is resized."""
    crop: Box
    """What is cut out of the resized image, no larger than the canvas."""
    canvas: Size
    flip: bool = False
    """Whether the cut is mirrored left to right."""


class Objects(NamedTuple):
    """What is left of an image's objects."""

    boxes: Float[Tensor, "M 4"]
    masks: list[CroppedMask]
    """Empty for an object of which none is known."""
    kept: list[int]
    """Which of the given objects these are."""


def placed_image(pixels: Tensor, placement: Placement, fill: Sequence[float]) -> Tensor:
    """The image on the canvas: `cut_image` and then `padded`, for which see there."""
    return padded(cut_image(pixels, placement), placement.canvas, fill)


def cut_image(pixels: Tensor, placement: Placement) -> Tensor:
    """What is cut out of the resized image, [C, h, w] of the crop; uint8 or float32, of the same type.

    Args:
        pixels: the whole image [C, H, W]; a JPEG may be decoded smaller than `source`.
    """
    box, size = _box_in(pixels, placement), placement.crop[2:]
    if len(pixels) == 3 and pixels.dtype == torch.uint8:
        cut = _resampled(pixels.permute(1, 2, 0), size, box).transpose(2, 0, 1)
    else:
        cut = np.stack([_resampled(layer, size, box) for layer in pixels])
    return torch.from_numpy(np.array(cut[..., :: -1 if placement.flip else 1], order="C"))


def padded(cut: Tensor, canvas: Size, fill: Sequence[float]) -> Tensor:
    """[C, *canvas] with the cut in the upper left. Change colours before: the padding keeps its own.

    Args:
        fill: the value of the padding in each channel, in the units of the image.
    """
    C, h, w = cut.shape
    values = torch.tensor(fill, dtype=torch.float32).view(C, 1, 1)
    whole = (values if cut.is_floating_point() else values.round()).to(cut.dtype).repeat(1, *canvas)
    whole[:, :h, :w] = cut
    return whole


def placed_labels(
    labels: Int[Tensor, "H W"], placement: Placement, ignore_index: int
) -> Int[Tensor, "h w"]:
    """The label map on the canvas, of the same type; the padding is the ignore index."""
    assert labels.shape == placement.source, "a map is as large as its image"
    h, w = placement.crop[2:]
    canvas = labels.new_full(placement.canvas, ignore_index)
    canvas[:h, :w] = _taken(labels, *_pixels_of(placement))
    return canvas


def placed_mask(mask: CroppedMask, placement: Placement) -> CroppedMask:
    """An object's mask on the canvas, for the time that its pixels take; the padding belongs to none."""
    rows, columns = _pixels_of(placement)
    rows, columns = rows - mask.top, columns - mask.left
    height, width = mask.pixels.shape
    down = ((rows >= 0) & (rows < height)).nonzero()[:, 0]
    across = ((columns >= 0) & (columns < width)).nonzero()[:, 0]
    if not len(down) or not len(across):
        return NO_MASK
    there = cropped(_taken(mask.pixels, rows[down], columns[across]))
    return there._replace(top=there.top + int(down[0]), left=there.left + int(across[0]))


def placed_boxes(boxes: Float[Tensor, "M 4"], placement: Placement) -> Float[Tensor, "M 4"]:
    """Boxes (left, top, right, bottom; edges of pixels) on the canvas, clipped to what was cut out.

    A box outside of the cut has no width or no height left.
    """
    (top, left, h, w), factors = placement.crop, _factors(placement)
    moved = boxes * boxes.new_tensor(factors) - boxes.new_tensor((left, top, left, top))
    return _mirrored(_clipped(moved, (h, w)), placement)


def original_boxes(boxes: Float[Tensor, "M 4"], placement: Placement) -> Float[Tensor, "M 4"]:
    """Boxes found on the canvas, in the image's own pixels and clipped to it."""
    top, left = placement.crop[:2]
    moved = _mirrored(boxes, placement) + boxes.new_tensor((left, top, left, top))
    return _clipped(moved / boxes.new_tensor(_factors(placement)), placement.source)


def placed_objects(
    boxes: Float[Tensor, "M 4"],
    mask_of: Callable[[int], CroppedMask | None],
    placement: Placement,
    *,
    least: float = 1.0,
) -> Objects:
    """The objects of which something is left on the canvas.

    Args:
        mask_of: the mask of an object, asked for one by one; None if it is not known. One without a
            pixel left is dropped.
        least: pixels of the canvas that a box has to be wide and high.
    """
    boxes = placed_boxes(boxes, placement)
    large = (boxes[:, 2:] - boxes[:, :2] >= least).all(dim=1)
    masks, kept = list[CroppedMask](), list[int]()
    for i in large.nonzero()[:, 0].tolist():
        mask = mask_of(i)
        left = NO_MASK if mask is None else placed_mask(mask, placement)
        if mask is None or left.pixels.numel():
            masks.append(left)
            kept.append(i)
    return Objects(boxes[kept], masks, kept)


def _box_in(pixels: Tensor, placement: Placement) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the cut in an image that may be decoded smaller."""
    (H, W), (top, left, h, w) = pixels.shape[1:], placement.crop
    down, across = H / placement.resized[0], W / placement.resized[1]
    return left * across, top * down, min((left + w) * across, W), min((top + h) * down, H)


def _resampled(layer: Tensor, size: Size, box: tuple[float, float, float, float]) -> np.ndarray:
    """Pillow resamples a box as if it had resized the whole image, without doing so."""
    image = Image.fromarray(layer.numpy())
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box=box))


@lru_cache(maxsize=1)  # for the objects of one image
def _pixels_of(placement: Placement) -> tuple[Int[Tensor, "h"], Int[Tensor, "w"]]:
    """The image's row and column of each row and column of the cut."""
    top, left, h, w = placement.crop
    rows = _nearest(top, h, placement.resized[0], placement.source[0])
    columns = _nearest(left, w, placement.resized[1], placement.source[1])
    return rows, columns.flip(0) if placement.flip else columns


def _taken(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """NumPy takes rows and then columns four times as fast as torch takes both."""
    return torch.from_numpy(maps.numpy().take(rows, axis=-2).take(columns, axis=-1))


def _nearest(first: int, count: int, resized: int, source: int) -> Tensor:
    """The source's pixel in which the centre of each resized pixel lies, in whole numbers: exact."""
    return ((2 * torch.arange(first, first + count) + 1) * source) // (2 * resized)


def _clipped(boxes: Tensor, size: Size) -> Tensor:
    return boxes.clamp(min=0).minimum(boxes.new_tensor((*size[::-1], *size[::-1])))


def _mirrored(boxes: Tensor, placement: Placement) -> Tensor:
    if not placement.flip:
        return boxes
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([placement.crop[3] - right, top, placement.crop[3] - left, bottom], dim=1)


def _factors(placement: Placement) -> tuple[float, float, float, float]:
    down, across = (
        resized / source for resized, source in zip(placement.resized, placement.source, strict=True)
    )
    return across, down, across, down
