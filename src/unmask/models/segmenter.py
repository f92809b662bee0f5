"""A segmenter on the encoder: UperNet (paper, Table 5), or a linear layer (the dense linear probe).

Legend: B images, C channels, H x W pixels, h x w patches, N = h w, R class tokens, T = R + N, D width,
K classes, d width of an attention head, U channels of UperNet's heads.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from unmask.core import VisionTransformer
from unmask.core.blocks import BiasFunction, Block, LayerScale
from unmask.core.spec import Size
from unmask.models.pyramid import MultiScale
from unmask.models.relative_position import shared_bias
from unmask.models.segmenter_spec import SegmenterSpec
from unmask.models.upernet import FCNHead, LinearHead, UperNetHead, resized_to

IGNORE_INDEX = 255
AUXILIARY_WEIGHT = 0.4
AUXILIARY_LEVEL = 2
"""The third map."""


class SegmenterOutput(NamedTuple):
    """Logits of every pixel."""

    logits: Float[Tensor, "B K H W"]
    auxiliary: Float[Tensor, "B K H W"] | None
    """Logits of UperNet's auxiliary head, in training only."""


class PixelLoss(NamedTuple):
    """A loss before it is averaged, so that processes can average by labelled pixels."""

    total: Float[Tensor, ""]
    """Cross-entropy in nats, summed over labelled pixels."""
    pixels: Integer[Tensor, ""]
    """The labelled pixels."""


class Segmenter(nn.Module):
    """An encoder and a head that gives every pixel's class.

    The encoder becomes part of the model. UperNet leaves out its final norm (as the settings of Table 5
    do) and the blocks behind the last one asked for; the linear head keeps both. Layer scale and
    relative positions, if the spec asks for them, start as the pre-trained encoder without them.
    """

    def __init__(self, encoder: VisionTransformer, spec: SegmenterSpec):
        super().__init__()
        D, K = encoder.cls_token.shape[-1], len(spec.classes)
        self.encoder, self.spec, self.layers = encoder, spec, spec.blocks
        if spec.layer_scale is not None:
            add_layer_scale(encoder, spec.layer_scale)
        encoder.blocks = encoder.blocks[: self.layers[-1]]
        self.relative_position = _relative_position(encoder) if spec.relative_position else None
        self.multi_scale = self.auxiliary_head = None
        self.decode_head: nn.Module
        self.dropped_channels: tuple[int, ...] = ()
        if spec.head == "linear":
            self.decode_head = LinearHead(D, K)
            return
        encoder.norm = nn.Identity()  # type: ignore[assignment]  # no weights that nothing trains
        self.multi_scale = MultiScale(D, norm="batch")
        width = spec.width or D
        self.dropped_channels = width, spec.auxiliary_width
        self.decode_head = UperNetHead((D,) * 4, width, K, spec.pool_scales)
        self.auxiliary_head = FCNHead(D, spec.auxiliary_width, K)

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        *,
        keep: Float[Tensor, "depth 2 B"] | None = None,
        channel_keep: Float[Tensor, "B U"] | None = None,
    ) -> SegmenterOutput:
        """Logits for normalised images of any size; positions are interpolated to it.

        Args:
            keep: drop path, as `drop_path_keep` draws it.
            channel_keep: dropout of UperNet's `dropped_channels`, as `channel_keep` draws it.

        Raises ValueError in training if UperNet is given a single image, whose pooled map of one place
        has no variance.
        """
        maps = self.maps(images, keep=keep)
        if self.multi_scale is None:
            return SegmenterOutput(self._of_pixels(self.decode_head(maps[-1]), images), None)
        if self.training and len(images) < 2 and not _is_shared():
            raise ValueError(
                "UperNet's batch norm cannot be trained on one image at a time: give it micro-batches "
                "of two or more images, or use the linear head"
            )
        levels = self.multi_scale(maps)
        keeps = [None] * 2 if channel_keep is None else channel_keep.split(self.dropped_channels, 1)
        logits = self._of_pixels(self.decode_head(levels, keeps[0]), images)
        if not self.training:
            return SegmenterOutput(logits, None)
        assert self.auxiliary_head is not None
        auxiliary = self.auxiliary_head(levels[AUXILIARY_LEVEL], keeps[1])
        return SegmenterOutput(logits, self._of_pixels(auxiliary, images))

    def maps(
        self, images: Float[Tensor, "B C H W"], *, keep: Float[Tensor, "depth 2 B"] | None = None
    ) -> list[Float[Tensor, "B D h w"]]:
        """The encoder's maps that the head is given, at the patches' stride."""
        grid = _grid(images, self.encoder.patch_size)
        bias = None if self.relative_position is None else self.relative_position(grid)
        maps = self.encoder.maps(images, self.layers, bias=bias, keep=keep)
        if self.multi_scale is not None:
            return maps
        return [self.encoder.norm(x.movedim(1, -1)).movedim(-1, 1) for x in maps]

    def _of_pixels(self, logits: Tensor, images: Tensor) -> Tensor:
        """Enlarged to whole patches, of which the image is the upper left part."""
        (h, w), (p, q) = _grid(images, self.encoder.patch_size), self.encoder.patch_size
        return resized_to(logits, (h * p, w * q))[..., : images.shape[2], : images.shape[3]]


def channel_keep(
    channels: Sequence[int], rate: float, batch: int, rng: np.random.Generator
) -> Float[Tensor, "B U"]:
    """Draws dropout of channels (Tompson et al. 2015): factors 0 at this rate, else 1 / (1 - rate).

    The settings of Table 5 drop a tenth of both heads' channels: `Segmenter.dropped_channels`.

    Raises ValueError if the rate is not in [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a dropout rate of {rate} is not in [0, 1): Table 5's settings have 0.1")
    uniform = torch.from_numpy(rng.random((batch, sum(channels)), dtype=np.float32))
    return (uniform >= rate) / (1 - rate)


class BlockRelativePosition(nn.Module):
    """A value per head and offset for each block, and values for pairs with a class token (BEiT).

    All start at zero. For another grid tables are cut or interpolated as in `relative_position.py`.
    """

    def __init__(self, *, heads: int, depth: int, grid: Size, class_tokens: int):
        super().__init__()
        self.class_tokens = class_tokens
        shape = heads, 2 * grid[0] - 1, 2 * grid[1] - 1
        self.tables = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for _ in range(depth))
        pairs = [nn.Parameter(torch.zeros(3, heads)) for _ in range(depth if class_tokens else 0)]
        self.class_pairs = nn.ParameterList(pairs)
        """From class tokens to patches, from patches to class tokens, among class tokens."""

    def forward(self, grid: Size) -> Sequence[BiasFunction]:
        """For each block, its bias on images of `grid` patches behind the class tokens."""
        if not self.class_tokens:
            return [partial(shared_bias, table, grid) for table in self.tables]
        return [
            partial(_bias_with_class_tokens, table, pairs, grid, self.class_tokens)
            for table, pairs in zip(self.tables, self.class_pairs, strict=True)
        ]


def _bias_with_class_tokens(
    table: Float[Tensor, "heads _ _"],
    pairs: Float[Tensor, "3 heads"],
    grid: Size,
    R: int,
    queries: Float[Tensor, "B heads T d"],
) -> Float[Tensor, "1 heads T T"]:
    patches = shared_bias(table, grid, queries[:, :, R:])
    N, (to_patch, to_class, between) = patches.shape[-1], pairs.to(queries.dtype)[:, None, :, None, None]
    above = torch.cat([between.expand(1, -1, R, R), to_patch.expand(1, -1, R, N)], dim=3)
    return torch.cat([above, torch.cat([to_class.expand(1, -1, N, R), patches], dim=3)], dim=2)


def add_layer_scale(encoder: VisionTransformer, initial: float) -> None:
    """Gives layer scale (Touvron et al. 2021) to the blocks that have none; at 1 it changes nothing."""
    D = encoder.cls_token.shape[-1]
    for block in encoder.blocks:
        assert isinstance(block, Block)
        block.ls1 = LayerScale(D, initial) if isinstance(block.ls1, nn.Identity) else block.ls1
        block.ls2 = LayerScale(D, initial) if isinstance(block.ls2, nn.Identity) else block.ls2


def freeze_encoder(model: Segmenter) -> list[str]:
    """Leaves the head alone to be trained, and returns the names of its parameters."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(("encoder.", "relative_position.")))
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def segmentation_loss(
    output: SegmenterOutput,
    labels: Integer[Tensor, "B H W"],
    *,
    ignore_index: int = IGNORE_INDEX,
    auxiliary_weight: float = AUXILIARY_WEIGHT,
) -> PixelLoss:
    """Cross-entropy of both heads, the auxiliary one weighted; what is ignored counts nowhere.

    The loss is total / pixels; over processes and micro-batches, the sum of totals over that of pixels.
    """
    total = _cross_entropy(output.logits, labels, ignore_index)
    if output.auxiliary is not None:
        total = total + auxiliary_weight * _cross_entropy(output.auxiliary, labels, ignore_index)
    return PixelLoss(total, (labels != ignore_index).sum())


def _cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    return F.cross_entropy(logits.float(), labels.long(), ignore_index=ignore_index, reduction="sum")


def _relative_position(encoder: VisionTransformer) -> BlockRelativePosition:
    first = encoder.blocks[0]
    assert isinstance(first, Block)
    return BlockRelativePosition(
        heads=first.attn.heads,
        depth=len(encoder.blocks),
        grid=encoder.grid,
        class_tokens=encoder.class_tokens,
    )


def _grid(images: Tensor, patch_size: Size) -> Size:
    """Patches that cover the images, the last ones padded."""
    return -(-images.shape[2] // patch_size[0]), -(-images.shape[3] // patch_size[1])


def _is_shared() -> bool:
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
