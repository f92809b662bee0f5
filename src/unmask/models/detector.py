"""Mask R-CNN on a plain Transformer (paper, Table 4; ViTDet, Li et al. 2022).

Legend: B images, C channels, H x W pixels, h x w patches, G objects of an image, n detections.

Images come normalised, on one canvas, their own sizes beside them. What an image gives depends neither
on its padding nor on the others in the batch, but for the BatchNorm of the heads in training.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unmask.core import VisionTransformer
from unmask.core.blocks import Block
from unmask.core.spec import Size
from unmask.models.detector_spec import PYRAMID_GROUPS, DetectorSpec, group_ends
from unmask.models.proposals import ProposalNetwork
from unmask.models.pyramid import (
    LEVEL_STRIDES,
    FeaturePyramid,
    MultiScale,
    SimplePyramid,
    level_masks,
)
from unmask.models.regions import LEVELS, RegionHeads
from unmask.models.relative_position import DecomposedRelativePosition, SharedRelativePosition


class Detector(nn.Module):
    """An encoder with windows and relative positions, a pyramid, proposals, and heads.

    The encoder becomes part of the model: it loses its final norm, and its class token is neither used
    nor trained. Its positions reach over its own image size, the canvas; images that are smaller
    stand in the canvas's upper left corner. The rest is drawn from torch's global generator.

    Raises ValueError if the encoder has too few blocks for the spec.
    """

    def __init__(self, encoder: VisionTransformer, spec: DetectorSpec):
        super().__init__()
        width, depth = encoder.cls_token.shape[-1], len(encoder.blocks)
        self.encoder, self.spec = encoder, spec
        encoder.norm = nn.Identity()  # type: ignore[assignment]  # no map passes it
        encoder.cls_token.requires_grad_(False)
        self.windows = spec.windows(depth)
        self.relative_position = _relative_position(encoder, spec.relative_position, self.windows)
        self.simple = SimplePyramid(width, spec.channels) if spec.pyramid == "simple" else None
        self.scales, self.fpn = None, None
        self.layers = [depth]
        if spec.pyramid == "fpn":
            self.layers = group_ends(depth, PYRAMID_GROUPS)
            self.scales, self.fpn = MultiScale(width), FeaturePyramid(width, spec.channels)
        p, q = encoder.patch_size
        strides = [(p * s, q * s) for s in (*LEVEL_STRIDES, 2 * LEVEL_STRIDES[-1])]
        self.proposals = ProposalNetwork(spec, strides)
        self.heads = RegionHeads(spec, strides)

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        sizes: Sequence[Size],
        targets: Sequence[dict[str, Any]] | None = None,
        rngs: Sequence[np.random.Generator] | None = None,
        *,
        keep: Float[Tensor, "depth 2 B"] | None = None,
    ) -> dict[str, Float[Tensor, "B"]] | list[dict[str, Tensor]]:
        """Each image's losses if there are targets, else its detections.

        Args:
            images: normalised, padded with zeros below and to the right to one canvas.
            sizes: the height and width in pixels of each image.
            targets: for each image "boxes" [G, 4] (left, top, right, bottom in pixels; not empty),
                "labels" [G] (indices of the classes) and, if the spec has masks, "masks"
                [G, height, width], empty for an object whose mask is not known, as a tensor or as
                `data.cropped_masks.CroppedMasks`; and optionally "ignored" [I, 4], regions, such as
                crowds, that are no background.
            rngs: for each image, what draws its anchors and proposals.
            keep: drop path.

        Returns:
            Losses named "objectness", "proposals", "classes", "boxes" and, with a mask head, "masks",
            each [B] and by the image's own counts: the loss to minimise is the mean over images of
            their sum.
            Or, for each image, "boxes" [n, 4], "labels" [n], "scores" [n], best first, and with a mask
            head "masks" [n, 28, 28], which `paste_masks` puts into place.
        """
        levels, valid = self.levels(images, sizes, keep=keep)
        extents = [level_sizes(_patches(size, self.encoder.patch_size)) for size in sizes]
        scored = self.proposals(levels, _masks(valid), extents)
        found = [self.proposals.propose(*given) for given in zip(scored, sizes, strict=True)]
        own = _parts(levels, extents)
        if targets is None:
            return self.heads.detect(own, found, sizes)
        assert rngs is not None, "what is drawn for a loss is drawn from generators of the caller"
        first = [
            self.proposals.losses(image, target, rng)
            for image, target, rng in zip(scored, targets, rngs, strict=True)
        ]
        objectness, boxes = (torch.stack(term) for term in zip(*first, strict=True))
        second = self.heads.losses(own, found, targets, rngs)
        return {"objectness": objectness, "proposals": boxes, **second}

    def levels(
        self,
        images: Float[Tensor, "B C H W"],
        sizes: Sequence[Size],
        *,
        keep: Float[Tensor, "depth 2 B"] | None = None,
    ) -> tuple[list[Float[Tensor, "B channels _ _"]], Bool[Tensor, "B h w"] | None]:
        """Five levels of strides p/4 to 4p for patches of p pixels, and which patches are no padding."""
        patch = self.encoder.patch_size
        grid = _patches((images.shape[2], images.shape[3]), patch)
        valid = valid_patches([_patches(size, patch) for size in sizes], grid, images.device)
        bias = None if self.relative_position is None else self.relative_position(grid)
        maps = self.encoder.maps(
            images,
            self.layers,
            class_tokens=False,
            windows=self.windows,
            bias=bias,
            valid=valid,
            canvas=self.encoder.image_size,
            keep=keep,
        )
        if self.simple is not None:
            return self.simple(maps[-1], valid), valid
        assert self.scales is not None
        assert self.fpn is not None
        return self.fpn(self.scales(maps, valid), valid), valid


def valid_patches(
    grids: Sequence[Size], canvas: Size, device: torch.device
) -> Bool[Tensor, "B h w"] | None:
    """Which patches of the canvas belong to each image; None if all do."""
    if all(grid == canvas for grid in grids):
        return None
    h, w = torch.tensor(grids, device=device).unbind(1)
    rows, columns = (torch.arange(n, device=device) for n in canvas)
    return (rows[:, None] < h[:, None, None]) & (columns < w[:, None, None])


def level_sizes(grid: Size) -> list[Size]:
    """Places down and across each of five levels that an image of `grid` patches covers."""
    h, w = grid
    half = (-(-h // 2), -(-w // 2))
    return [(4 * h, 4 * w), (2 * h, 2 * w), (h, w), half, (-(-half[0] // 2), -(-half[1] // 2))]


def _masks(valid: Tensor | None) -> list[Tensor | None]:
    """Which places of five levels belong to their images."""
    masks = level_masks(valid)
    return [*masks, None if masks[-1] is None else masks[-1][..., ::2, ::2]]


def _parts(levels: list[Tensor], extents: list[list[Size]]) -> list[list[Tensor]]:
    """Each image's own part of the levels that regions are pooled from, as float32.

    A level is divided once: so the gradient of a part is as large as the part, not as the batch.
    """
    images: list[list[Tensor]] = [[] for _ in extents]
    for number, level in enumerate(levels[:LEVELS]):
        for own, extent, x in zip(images, extents, level.float().split(1), strict=True):
            h, w = extent[number]
            own.append(x[..., :h, :w])
    return images


def _patches(size: Size, patch: Size) -> Size:
    """Patches, whole or in part, down and across an image."""
    return -(-size[0] // patch[0]), -(-size[1] // patch[1])


def _relative_position(
    encoder: VisionTransformer, kind: str, windows: Sequence[int | None]
) -> SharedRelativePosition | DecomposedRelativePosition | None:
    heads = cast(Block, encoder.blocks[0]).attn.heads
    if kind == "shared":
        return SharedRelativePosition(heads=heads, windows=windows, grid=encoder.grid)
    if kind == "decomposed":
        head_width = encoder.cls_token.shape[-1] // heads
        return DecomposedRelativePosition(head_width=head_width, windows=windows, grid=encoder.grid)
    return None
