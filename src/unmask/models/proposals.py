"""Anchors and the region proposal network (Faster R-CNN, Ren et al. 2015), one image at a time.

Legend: C channels, h x w places of a level, A anchors of a place, N anchors of an image, G its objects.
Boxes are left, top, right, bottom in pixels. An image sees the part of each level that it covers, so
neither padding nor its neighbours in a batch change its anchors, draws or loss.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from unmask.core.spec import Size
from unmask.models.detector_spec import DetectorSpec
from unmask.models.matching import match, sample
from unmask.models.pyramid import within

POSITIVE_IOU, NEGATIVE_IOU, POSITIVE_SHARE = 0.7, 0.3, 0.5
NMS_IOU = 0.7
SMOOTH_L1_BETA = 1 / 9
CANDIDATES = 2
"""Proposals of each level before non-maximum suppression, as a multiple of those of an image."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """What one image has of a level: objectness, changes of the anchors, the anchors."""

    objectness: Float[Tensor, "n"]
    deltas: Float[Tensor, "n 4"]
    anchors: Float[Tensor, "n 4"]


class ProposalNetwork(nn.Module):
    """Scores and shifts anchors on all levels, by two convolutions shared between them."""

    def __init__(self, spec: DetectorSpec, strides: list[tuple[float, float]]):
        super().__init__()
        self.strides, self.spec = strides, spec
        self.head = RPNHead(spec.channels, len(spec.anchor_ratios), conv_depth=2)
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def forward(
        self,
        levels: list[Float[Tensor, "B C _ _"]],
        masks: list[Tensor | None],
        extents: list[list[Size]],
    ) -> list[list[Level]]:
        """For each image, its levels. `extents` says how many places of each level an image covers."""
        scored = []
        for x, mask in zip(levels, masks, strict=True):
            for layer in self.head.conv:
                x = within(layer(x), mask)
            scored.append((self.head.cls_logits(x).float(), self.head.bbox_pred(x).float()))
        return [
            [
                self._level(objectness[i], deltas[i], extent, stride)
                for (objectness, deltas), extent, stride in zip(
                    scored, places, self.strides, strict=True
                )
            ]
            for i, places in enumerate(extents)
        ]

    def propose(self, image: list[Level], size: Size) -> Float[Tensor, "_ 4"]:
        """The boxes of one image that most likely hold an object, best first; without gradient."""
        best = []
        for number, level in enumerate(image):
            most = min(CANDIDATES * self.spec.proposals, len(level.objectness))
            score, index = level.objectness.detach().topk(most)
            group = torch.full_like(index, number)
            best.append((score, group, level.deltas.detach()[index], level.anchors[index]))
        score, group, deltas, anchors = (torch.cat(parts) for parts in zip(*best, strict=True))
        found = clip_boxes_to_image(self.coder.decode_single(deltas, anchors), size)
        large = remove_small_boxes(found, 1e-3)
        kept = large[batched_nms(found[large], score[large], group[large], NMS_IOU)]
        return found[kept[: self.spec.proposals]]

    def losses(
        self, image: list[Level], target: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """One image's loss of objectness and of boxes, both per sampled anchor."""
        truth = target["boxes"].float()
        anchors = torch.cat([level.anchors for level in image])
        objectness = torch.cat([level.objectness for level in image])
        deltas = torch.cat([level.deltas for level in image])
        matched = match(
            truth,
            anchors,
            positive=POSITIVE_IOU,
            negative=NEGATIVE_IOU,
            each_object=True,
            ignored=target.get("ignored"),
        )
        positive, negative = sample(matched, self.spec.sampled_anchors, POSITIVE_SHARE, rng)
        drawn = torch.cat([positive, negative])
        wanted = (matched[drawn] >= 0).float()
        count = max(1, len(drawn))
        score_loss = F.binary_cross_entropy_with_logits(objectness[drawn], wanted, reduction="sum")
        targets = self.coder.encode_single(truth[matched[positive]], anchors[positive])
        return score_loss / count, box_loss(deltas[positive], targets) / count

    def _level(
        self, objectness: Tensor, deltas: Tensor, extent: Size, stride: tuple[float, float]
    ) -> Level:
        h, w = extent
        shapes = anchor_shapes(stride, self.spec.anchor_scale, self.spec.anchor_ratios)
        return Level(
            objectness=objectness[:, :h, :w].permute(1, 2, 0).flatten(),
            deltas=deltas[:, :h, :w].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).flatten(0, 2),
            anchors=anchors_of(extent, stride, shapes.to(deltas.device)),
        )


def anchor_shapes(
    stride: tuple[float, float], scale: float, ratios: tuple[float, ...]
) -> Float[Tensor, "A 2"]:
    """Widths and heights of one area, a square of `scale` strides, for these heights over widths."""
    side = scale * math.sqrt(stride[0] * stride[1])
    return torch.tensor([[side / math.sqrt(ratio), side * math.sqrt(ratio)] for ratio in ratios])


def anchors_of(
    extent: Size, stride: tuple[float, float], shapes: Float[Tensor, "A 2"]
) -> Float[Tensor, "_ 4"]:
    """Anchors around the middles of all places, row by row, those of one place together."""
    rows, columns = (
        (torch.arange(n, device=shapes.device) + 0.5) * step
        for n, step in zip(extent, stride, strict=True)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    middles = torch.stack([x, y], dim=-1)[:, :, None]
    return torch.cat([middles - shapes / 2, middles + shapes / 2], dim=-1).flatten(0, 2)


def box_loss(deltas: Float[Tensor, "n 4"], targets: Float[Tensor, "n 4"]) -> Float[Tensor, ""]:
    """The sum of smoothed absolute differences."""
    return F.smooth_l1_loss(deltas, targets, beta=SMOOTH_L1_BETA, reduction="sum")
