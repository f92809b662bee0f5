"""A plain Vision Transformer whose encoder can run on any subset of an image's patches.

Legend: B images, C channels, H x W pixels, N patches, K patches given, M mask tokens, A = K + M,
P values per patch, R class tokens, T tokens (R + A), D width.
Parameters carry timm's names.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unmask.core.attention_mask import without_padding
from unmask.core.blocks import LAYER_NORM_EPS, BiasFunction, Block
from unmask.core.features import BATCH, check_pool, in_batches, pooled
from unmask.core.grid import Size, grid_of
from unmask.core.initialize import initialize
from unmask.core.masking import take
from unmask.core.patches import PatchEmbed, pad_to_patches, patchify
from unmask.core.position import place_positions, sincos_positions


class VisionTransformer(nn.Module):
    """The encoder (paper, Approach: MAE encoder; Dosovitskiy et al. 2020).

    Fixed sine-cosine positions; `pos_embed.requires_grad_()` makes them trainable.
    """

    def __init__(
        self,
        *,
        image_size: Size,
        patch_size: Size,
        channels: int = 3,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        class_tokens: int = 1,
        layer_scale: float | None = None,
    ):
        super().__init__()
        self.image_size, self.patch_size, self.channels = image_size, patch_size, channels
        self.grid = grid_of(image_size, patch_size)
        self.class_tokens = class_tokens
        self.patch_embed = PatchEmbed(patch_size, channels, width)
        self.cls_token = nn.Parameter(torch.zeros(1, class_tokens, width))
        self.pos_embed = nn.Parameter(
            sincos_positions(self.grid, width, class_tokens), requires_grad=False
        )
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=mlp_ratio, layer_scale=layer_scale) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        initialize(self)

    def forward(
        self, images: Float[Tensor, "B C H W"], *, keep: Float[Tensor, "depth 2 B"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Features of whole images: class tokens first, then all patches, after the final norm."""
        return self.encode(self.patchify(images), keep=keep)

    def features(
        self,
        images: Float[Tensor, "B C H W"],
        *,
        pool: str = "mean",
        layer: int | None = None,
        batch: int = BATCH,
    ) -> Float[Tensor, "B *N D"]:
        """Features of whole images, nothing masked, without gradients.

        What is to be trained through takes `pool(forward(images), ...)`.

        Args:
            images: normalised images, on any device.
            pool: the class token ("class" or "cls"), the mean over patches ("mean"; both [B, D]), or
                all "patches" [B, N, D].
            layer: the block whose output is taken, counted from 1; the last one, followed by the
                final norm, if None.
            batch: images at a time.

        Raises ValueError for another pool, and if the encoder has no such layer, or no class token.
        """
        depth = len(self.blocks)
        if layer is not None and not 1 <= layer <= depth:
            raise ValueError(f"the encoder has blocks 1 to {depth} and no block {layer}: choose one")
        check_pool(pool, self.class_tokens)

        def of_some(images: Tensor) -> Tensor:
            x = self.embed(self.patchify(images))
            for block in self.blocks[:layer]:
                x = block(x)
            return self.pool(self.norm(x) if layer is None else x, pool)

        return in_batches(self, of_some, images, batch)

    def maps(
        self,
        images: Float[Tensor, "B C H W"],
        layers: Sequence[int],
        *,
        class_tokens: bool = True,
        windows: Sequence[int | None] | None = None,
        bias: Sequence[Tensor | BiasFunction | None] | None = None,
        valid: Bool[Tensor, "B h w"] | None = None,
        canvas: Size | None = None,
        keep: Float[Tensor, "depth 2 B"] | None = None,
    ) -> list[Float[Tensor, "B D h w"]]:
        """Blocks' outputs as maps, for images of any size, padded with zeros to whole patches.

        Args:
            layers: the blocks, counted from 1; those behind the last are not computed.
            class_tokens: False leaves them out from the first block on.
            windows: the side of each block's windows in patches, None for global attention. Windows
                and `bias` take no class tokens.
            bias: for each block, as `Block` takes it.
            valid: the patches that belong to an image: no other is attended to.
            canvas: the size that the positions are interpolated to, if larger than the images, which
                then stand in its upper left corner; by default the images'.
            keep: drop path.
        """
        padded = pad_to_patches(images, self.patch_size)
        grid = grid_of((padded.shape[2], padded.shape[3]), self.patch_size)
        spread = grid if canvas is None else grid_of(canvas, self.patch_size)
        positions = place_positions(self.pos_embed, self.grid, spread, grid)
        x = self.embed(patchify(padded, self.patch_size), positions=positions)
        x, found = x if class_tokens else x[:, self.class_tokens :], {}
        for i, block in enumerate(self.blocks[: max(layers)]):
            window = (grid, side) if windows and (side := windows[i]) else None
            scores = without_padding(bias[i] if bias else None, valid, window, x)
            x = block(x, bias=scores, window=window, keep=None if keep is None else keep[i])
            found[i + 1] = x[:, -(grid[0] * grid[1]) :].mT.unflatten(2, grid)
        return [found[layer] for layer in layers]

    def pool(self, tokens: Float[Tensor, "B T D"], pool: str) -> Float[Tensor, "B *N D"]:
        """The class token, the mean over patches, or the patches themselves; see `features`."""
        return pooled(tokens, self.class_tokens, pool)

    def patchify(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N P"]:
        """Cuts images into this model's patches, or raises ValueError if they do not fit it."""
        expected = (self.channels, *self.image_size)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"the model takes images of {_shape(expected)} and got {_shape(images.shape[1:])} "
                f"(channels x height x width): resize the images, or build the model for them"
            )
        return patchify(images, self.patch_size)

    def encode(
        self,
        patches: Float[Tensor, "B K P"],
        index: Int[Tensor, "B A"] | None = None,
        *,
        mask_tokens: Float[Tensor, "B M D"] | None = None,
        keep: Float[Tensor, "depth 2 B"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Features of the given patches, and of mask tokens after them, which stand at `index`.

        Without `index` they are all patches of the image, in order.
        """
        x = self.embed(patches, index, mask_tokens)
        for i, block in enumerate(self.blocks):
            x = block(x, keep=None if keep is None else keep[i])
        return self.norm(x)

    def embed(
        self,
        patches: Float[Tensor, "B K P"],
        index: Int[Tensor, "B A"] | None = None,
        mask_tokens: Float[Tensor, "B M D"] | None = None,
        positions: Float[Tensor, "1 _ D"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Projected patches and mask tokens, behind the class tokens, each with its position.

        `positions` replace the encoder's own.
        """
        table = self.pos_embed if positions is None else positions
        prefix_positions, positions = table[:, : self.class_tokens], table[:, self.class_tokens :]
        if index is not None:
            positions = take(positions.expand(len(index), -1, -1), index)
        prefix = (self.cls_token + prefix_positions).expand(len(patches), -1, -1)
        x = self.patch_embed(patches)
        if mask_tokens is not None:
            x = torch.cat([x, mask_tokens.to(x.dtype)], dim=1)
        x = x + positions
        return torch.cat([prefix.to(x.dtype), x], dim=1)


def _shape(dimensions: Iterable[int]) -> str:
    return " x ".join(map(str, dimensions))
