"""What Mask R-CNN's heads say of regions (He et al. 2017), and what they should have said.

Legend: B images, C channels, n regions, G objects of an image, K classes, s side of a pooled region.
Boxes are left, top, right, bottom in pixels. An image sees the part of each level that it covers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes, roi_align

from unmask.core.spec import Size
from unmask.models.detector_spec import DetectorSpec
from unmask.models.feature_norm import FeatureNorm
from unmask.models.matching import match, sample
from unmask.models.proposals import box_loss
from unmask.models.pyramid import MapLayerNorm

BOX_SIDE, MASK_SIDE = 7, 14
MATCH_IOU, POSITIVE_SHARE, NMS_IOU = 0.5, 0.25, 0.5
CANONICAL = 14
"""A region with a side of so many patches is pooled from the level of the patches' stride (FPN: 224)."""

LEVELS = 4
"""That regions are pooled from; proposals have one more."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Regions of one image that count in its loss: the first `positives` are matched to objects."""

    boxes: Float[Tensor, "n 4"]
    objects: Int[Tensor, "positives"]
    labels: Int[Tensor, "n"]
    deltas: Float[Tensor, "positives 4"]


class RegionHeads(nn.Module):
    """Four convolutions and a linear layer for classes and boxes, four convolutions for masks."""

    def __init__(self, spec: DetectorSpec, strides: list[tuple[float, float]]):
        super().__init__()
        self.spec, self.strides = spec, strides[:LEVELS]
        classes, channels = len(spec.classes) + 1, spec.channels
        convolutions, norm = [channels] * 4, NORMS[spec.head_norm]
        shape = (channels, BOX_SIDE, BOX_SIDE)
        self.box_head = FastRCNNConvFCHead(shape, convolutions, [spec.head_width], norm)
        self.box_predictor = FastRCNNPredictor(spec.head_width, classes)
        _initialize(self.box_predictor)
        self.mask_head: nn.Module | None = None
        if spec.masks:
            head = MaskRCNNHeads(channels, convolutions, 1, norm)
            self.mask_head = nn.Sequential(head, MaskRCNNPredictor(channels, channels, classes))
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))

    def losses(
        self,
        levels: list[list[Float[Tensor, "1 C _ _"]]],
        proposals: list[Float[Tensor, "_ 4"]],
        targets: Sequence[dict[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> dict[str, Float[Tensor, "B"]]:
        """Each image's losses: of classes and boxes per sampled region, of masks per positive one."""
        drawn = [
            self._draw(boxes, target, rng)
            for boxes, target, rng in zip(proposals, targets, rngs, strict=True)
        ]
        logits, deltas = self._boxes(levels, [d.boxes for d in drawn])
        terms = [_region_losses(*given) for given in zip(logits, deltas, drawn, strict=True)]
        classes, boxes = (torch.stack(term) for term in zip(*terms, strict=True))
        losses = {"classes": classes, "boxes": boxes}
        if self.spec.masks:
            positive = [d.boxes[: len(d.objects)] for d in drawn]
            masks = self._masks(levels, positive)
            losses["masks"] = torch.stack(
                [_mask_loss(*given) for given in zip(masks, drawn, targets, strict=True)]
            )
        return losses

    def detect(
        self,
        levels: list[list[Float[Tensor, "1 C _ _"]]],
        proposals: list[Float[Tensor, "_ 4"]],
        sizes: Sequence[Size],
    ) -> list[dict[str, Tensor]]:
        """Each image's boxes, labels, scores (best first) and masks [n, 28, 28], as logits."""
        logits, deltas = self._boxes(levels, proposals)
        found = [self._choose(*given) for given in zip(logits, deltas, proposals, sizes, strict=True)]
        if self.spec.masks:
            masks = self._masks(levels, [image["boxes"] for image in found])
            for image, of_classes in zip(found, masks, strict=True):
                index = torch.arange(len(of_classes), device=of_classes.device)
                image["masks"] = of_classes[index, image["labels"] + 1]
        return found

    def _boxes(
        self, levels: list[list[Tensor]], boxes: list[Tensor]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        pooled = self._pool(levels, boxes, BOX_SIDE)
        logits, deltas = self.box_predictor(self.box_head(pooled))
        counts = [len(b) for b in boxes]
        return logits.float().split(counts), deltas.float().unflatten(1, (-1, 4)).split(counts)

    def _masks(self, levels: list[list[Tensor]], boxes: list[Tensor]) -> tuple[Tensor, ...]:
        assert self.mask_head is not None
        masks = self.mask_head(self._pool(levels, boxes, MASK_SIDE))
        return masks.float().split([len(b) for b in boxes])

    def _pool(self, levels: list[list[Tensor]], boxes: list[Tensor], side: int) -> Tensor:
        pooled = [pool(image, b, self.strides, side) for image, b in zip(levels, boxes, strict=True)]
        return torch.cat(pooled)

    def _draw(self, proposals: Tensor, target: dict[str, Any], rng: np.random.Generator) -> Drawn:
        truth = target["boxes"].float()
        boxes = torch.cat([proposals, truth])
        ignored = target.get("ignored")
        matched = match(truth, boxes, positive=MATCH_IOU, negative=MATCH_IOU, ignored=ignored)
        positive, negative = sample(matched, self.spec.sampled_proposals, POSITIVE_SHARE, rng)
        objects, drawn = matched[positive], boxes[torch.cat([positive, negative])]
        labels = F.pad(target["labels"][objects] + 1, (0, len(negative)))
        deltas = self.coder.encode_single(truth[objects], boxes[positive])
        return Drawn(boxes=drawn, objects=objects, labels=labels, deltas=deltas)

    def _choose(self, logits: Tensor, deltas: Tensor, regions: Tensor, size: Size) -> dict[str, Tensor]:
        """Detections of one image, after non-maximum suppression within each class."""
        scores = logits.softmax(dim=1)[:, 1:]
        region, label = torch.nonzero(scores > self.spec.score_threshold, as_tuple=True)
        score = scores[region, label]
        boxes = self.coder.decode_single(deltas[region, label + 1], regions[region])
        boxes = clip_boxes_to_image(boxes, size)
        large = remove_small_boxes(boxes, 1e-2)
        kept = large[batched_nms(boxes[large], score[large], label[large], NMS_IOU)]
        kept = kept[: self.spec.detections]
        return {"boxes": boxes[kept], "labels": label[kept], "scores": score[kept]}


def pool(
    levels: list[Float[Tensor, "1 C _ _"]],
    boxes: Float[Tensor, "n 4"],
    strides: list[tuple[float, float]],
    side: int,
) -> Float[Tensor, "n C {side} {side}"]:
    """RoIAlign of each box from the level that suits its size (FPN, Lin et al. 2017, eq. 1)."""
    level = level_of(boxes, strides)
    parts, order = [], []
    for number, (x, (down, across)) in enumerate(zip(levels, strides, strict=True)):
        index = torch.nonzero(level == number)[:, 0]
        scaled = boxes[index] / boxes.new_tensor([across, down, across, down])
        with torch.autocast(x.device.type, enabled=False):  # there is no kernel for bfloat16 on CPUs
            parts.append(roi_align(x, [scaled], side, sampling_ratio=2, aligned=True))
        order.append(index)
    return torch.cat(parts)[torch.cat(order).argsort()]


def level_of(boxes: Float[Tensor, "n 4"], strides: list[tuple[float, float]]) -> Int[Tensor, "n"]:
    """The level that each box is pooled from: one coarser for twice the side."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    down, across = strides[2]
    sides = (width * height / (down * across)).sqrt() / CANONICAL
    return (2 + torch.log2(sides) + 1e-6).floor().clamp(0, len(strides) - 1).long()


def paste_masks(
    masks: Float[Tensor, "n m m"], boxes: Float[Tensor, "n 4"], size: Size
) -> Bool[Tensor, "n H W"]:
    """Masks of logits within their boxes as masks of an image of `size`, which are false outside."""
    whole = torch.zeros(len(masks), *size, dtype=torch.bool, device=masks.device)
    for mask, box, target in zip(masks.float().sigmoid(), boxes.tolist(), whole, strict=True):
        left, top, right, bottom = box
        rows = torch.arange(max(0, int(top)), min(size[0], int(np.ceil(bottom))), device=masks.device)
        columns = torch.arange(max(0, int(left)), min(size[1], int(np.ceil(right))), device=masks.device)
        if not len(rows) or not len(columns):
            continue
        y = (rows + 0.5 - top) / max(bottom - top, 1e-6) * 2 - 1
        x = (columns + 0.5 - left) / max(right - left, 1e-6) * 2 - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
        values = F.grid_sample(mask[None, None], grid, padding_mode="border", align_corners=False)
        inside = (grid.abs() <= 1).all(dim=-1)[0]
        target[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = (values[0, 0] > 0.5) & inside
    return whole


def _region_losses(logits: Tensor, deltas: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
    count, positives = max(1, len(drawn.labels)), len(drawn.objects)
    classes = F.cross_entropy(logits, drawn.labels, reduction="sum") / count
    index = torch.arange(positives, device=deltas.device)
    return classes, box_loss(deltas[index, drawn.labels[:positives]], drawn.deltas) / count


def _mask_loss(masks: Tensor, drawn: Drawn, target: dict[str, Any]) -> Tensor:
    """Mean over the pixels of the positive regions' own class; 0 without any.

    An object whose mask is empty has none that is known: only its box and class are learnt.
    """
    positives = len(drawn.objects)
    index = torch.arange(positives, device=masks.device)
    predicted = masks[index, drawn.labels[:positives]]
    used, position = drawn.objects.unique(return_inverse=True)
    whole = target["masks"][used]
    known = whole.flatten(1).any(dim=1)[position]
    wanted = cut_masks(whole, position, drawn.boxes[:positives], masks.shape[-1])
    loss = F.binary_cross_entropy_with_logits(predicted, wanted, reduction="none").flatten(1)
    return (loss * known[:, None]).sum() / (known.sum() * loss.shape[1]).clamp(min=1)


def cut_masks(
    masks: Bool[Tensor, "G H W"], objects: Int[Tensor, "n"], boxes: Float[Tensor, "n 4"], side: int
) -> Float[Tensor, "n {side} {side}"]:
    """The part of each object's mask within its box, resized and thresholded."""
    regions = torch.cat([objects[:, None].to(boxes.dtype), boxes], dim=1)
    cut = roi_align(masks[:, None].to(boxes.dtype), regions, side, aligned=True)
    return (cut[:, 0] >= 0.5).to(boxes.dtype)


def _batch_norm(channels: int) -> nn.Module:
    return FeatureNorm(channels, affine=True, eps=1e-5)


NORMS: dict[str, Callable[[int], nn.Module] | None] = {
    "batch": _batch_norm,
    "layer": MapLayerNorm,
    "none": None,
}


def _initialize(predictor: FastRCNNPredictor) -> None:
    """As in Fast R-CNN (Girshick 2015)."""
    nn.init.normal_(predictor.cls_score.weight, std=0.01)
    nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
    nn.init.zeros_(predictor.cls_score.bias)
    nn.init.zeros_(predictor.bbox_pred.bias)
