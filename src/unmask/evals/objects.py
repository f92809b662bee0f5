"""Objects of an image as plain records: what is there, and what a detector found.

Legend: G objects, n detections, H x W pixels of an image.
Boxes are left, top, right, bottom in pixels. Masks are COCO's run-length codes of the whole image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unmask.core.spec import Size
from unmask.errors import DataError
from unmask.models.regions import paste_masks

Code = dict[str, Any]
"""COCO's run-length code of a mask: {"size": [H, W], "counts": str}."""


@dataclass(frozen=True, kw_only=True)
class TrueObjects:
    """What is in an image of `size`. Detections within a crowd count as neither right nor wrong.

    `areas` decide whether an object is small, medium or large: of the mask, or else of the box.
    """

    size: Size
    boxes: Float[Tensor, "G 4"]
    labels: Int[Tensor, "G"]
    crowd: Bool[Tensor, "G"]
    areas: Float[Tensor, "G"]
    masks: tuple[Code, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class FoundObjects:
    """What a detector says is in an image of `size`."""

    size: Size
    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, "n"]
    scores: Float[Tensor, "n"]
    masks: tuple[Code, ...] | None = None

    def select(self, index: Int[Tensor, "k"]) -> "FoundObjects":
        """Some of the detections, in this order."""
        return replace(
            self,
            boxes=self.boxes[index],
            labels=self.labels[index],
            scores=self.scores[index],
            masks=None if self.masks is None else tuple(self.masks[i] for i in index.tolist()),
        )


def coco_masks() -> Any:
    """The library's functions of run-length codes; DataError says how to install it."""
    try:
        from faster_coco_eval.core import mask
    except ImportError:
        raise DataError(
            "average precision and masks need faster-coco-eval: pip install 'unmask[detection]'"
        ) from None
    return mask


def encode(masks: Bool[Tensor, "n H W"]) -> tuple[Code, ...]:
    """Run-length codes of masks."""
    pixels = np.asfortranarray(masks.cpu().numpy().astype(np.uint8).transpose(1, 2, 0))
    codes = coco_masks().encode(pixels) if len(masks) else []
    return tuple({"size": list(code["size"]), "counts": _text(code["counts"])} for code in codes)


def decode(codes: Sequence[Code], size: Size) -> Bool[Tensor, "n H W"]:
    """Masks of run-length codes."""
    if not codes:
        return torch.zeros(0, *size, dtype=torch.bool)
    pixels = coco_masks().decode([{**code, "counts": _bytes(code["counts"])} for code in codes])
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).bool()


def found_objects(
    detection: dict[str, Tensor], *, seen: tuple[float, float], size: Size
) -> FoundObjects:
    """A detector's output for one image, on the image's own pixels.

    Args:
        detection: "boxes", "labels", "scores" and optionally "masks", as `Detector` gives them.
        seen: height and width that the whole image had when the detector saw it.
        size: the image's own.
    """
    down, across = size[0] / seen[0], size[1] / seen[1]
    boxes = detection["boxes"].float().cpu() * torch.tensor([across, down, across, down])
    masks = detection.get("masks")
    return FoundObjects(
        size=size,
        boxes=boxes,
        labels=detection["labels"].cpu(),
        scores=detection["scores"].float().cpu(),
        masks=None if masks is None else _pasted(masks.cpu(), boxes, size),
    )


def coco_results(
    found: FoundObjects, *, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """One image's entries of COCO's file of results, boxes as left, top, width, height."""
    rows = []
    for i, (left, top, right, bottom) in enumerate(found.boxes.tolist()):
        row = {
            "image_id": image_id,
            "category_id": category_ids[int(found.labels[i])],
            "bbox": [left, top, right - left, bottom - top],
            "score": float(found.scores[i]),
        }
        rows.append(row if found.masks is None else {**row, "segmentation": found.masks[i]})
    return rows


def tile_corners(size: Size, tile: Size, overlap: int) -> list[tuple[int, int]]:
    """Top and left of tiles that cover an image, row by row, and share at least `overlap` pixels.

    The last of a row or column ends with the image; one that is smaller than a tile has one corner.
    Raises ValueError if tiles share all of their pixels.
    """
    if not 0 <= overlap < min(tile):
        raise ValueError(
            f"tiles of {tile[0]} x {tile[1]} pixels cannot overlap by {overlap}: "
            f"give less than {min(tile)}"
        )
    rows, columns = (
        [*range(0, max(0, whole - part), part - overlap), max(0, whole - part)]
        for whole, part in zip(size, tile, strict=True)
    )
    return [(top, left) for top in rows for left in columns]


def merge_tiles(
    tiles: Sequence[FoundObjects],
    corners: Sequence[tuple[int, int]],
    size: Size,
    *,
    overlap: float = 0.5,
) -> FoundObjects:
    """Detections in overlapping tiles as those of the whole image, best first.

    Of two of one class in different tiles the better one stays if they share more than `overlap`: of
    their union, or of the smaller one if an inner edge of its tile cuts one of them. One that is cut
    gives way to one that is not.

    Args:
        corners: top and left of each tile in the image.
        size: of the image.
    """
    moved = [_moved(tile, corner, size) for tile, corner in zip(tiles, corners, strict=True)]
    cut = torch.cat([_cut(tile, corner, size) for tile, corner in zip(tiles, corners, strict=True)])
    boxes, labels, scores = (
        torch.cat([getattr(m, name) for m in moved]) for name in ("boxes", "labels", "scores")
    )
    tile = torch.cat([torch.full((len(t.boxes),), i) for i, t in enumerate(tiles)])
    masks = (
        None if any(m.masks is None for m in moved) else tuple(c for m in moved for c in m.masks or ())
    )
    together = FoundObjects(size=size, boxes=boxes, labels=labels, scores=scores, masks=masks)
    shared = _shared(boxes, cut)
    rivals = (shared > overlap) & (labels[:, None] == labels) & (tile[:, None] != tile)
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (bool(cut[i]), -float(scores[i]))):
        if not rivals[i, kept].any():
            kept.append(i)
    return together.select(torch.tensor(sorted(kept, key=lambda i: -float(scores[i])), dtype=torch.long))


def _pasted(masks: Tensor, boxes: Tensor, size: Size) -> tuple[Code, ...]:
    """One by one, since all masks of a large image together may not fit into memory."""
    pairs = zip(masks.split(1), boxes.split(1), strict=True)
    return tuple(code for mask, box in pairs for code in encode(paste_masks(mask, box, size)))


def _moved(tile: FoundObjects, corner: tuple[int, int], size: Size) -> FoundObjects:
    top, left = corner
    masks = tile.masks
    if masks is not None:
        masks = tuple(code for given in masks for code in encode(_placed(given, corner, size)))
    return replace(tile, boxes=tile.boxes + torch.tensor([left, top, left, top]), masks=masks, size=size)


def _placed(code: Code, corner: tuple[int, int], size: Size) -> Bool[Tensor, "1 H W"]:
    h, w = code["size"]
    whole = torch.zeros(1, *size, dtype=torch.bool)
    whole[:, corner[0] : corner[0] + h, corner[1] : corner[1] + w] = decode([code], (h, w))
    return whole


def _cut(tile: FoundObjects, corner: tuple[int, int], size: Size) -> Bool[Tensor, "n"]:
    """Which detections touch an edge of their tile that is not one of the image."""
    (top, left), (h, w) = corner, tile.size
    edges = torch.tensor([0.0, 0.0, w, h])
    inner = torch.tensor([left > 0, top > 0, left + w < size[1], top + h < size[0]])
    return (((tile.boxes - edges).abs() < 1) & inner).any(dim=1)


def _shared(boxes: Float[Tensor, "n 4"], cut: Bool[Tensor, "n"]) -> Float[Tensor, "n n"]:
    """Intersection of each two over their union, or over the smaller one if one of them is cut."""
    low = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
    union = area[:, None] + area - common
    smaller = torch.minimum(area[:, None], area)
    return common / torch.where(cut[:, None] | cut, smaller, union).clamp(min=1e-9)


def _text(counts: bytes | str) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts


def _bytes(counts: bytes | str) -> bytes:
    return counts.encode() if isinstance(counts, str) else counts
