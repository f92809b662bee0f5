"""The lightweight decoder (paper, Approach: MAE decoder).

Legend: B images, N patches, K visible, M masked, R class tokens, D encoder width, P values per patch.
Parameters carry the reference's names.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmask.core.blocks import LAYER_NORM_EPS, Block
from unmask.core.masking import Mask, take
from unmask.core.patches import Size
from unmask.core.position import sincos_positions
from unmask.core.vit import initialize


class Decoder(nn.Module):
    """Predicts patches from the encoded visible ones and one shared mask token.

    With `mask_tokens=False` it adds none: the encoder has seen them, and `latent` holds all patches,
    the visible ones first.
    """

    def __init__(
        self,
        *,
        grid: Size,
        encoder_width: int,
        values_per_patch: int,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        class_tokens: int = 1,
        mask_tokens: bool = True,
    ):
        super().__init__()
        if depth < 1:
            raise ValueError(
                "the decoder needs at least one block, or nothing would travel from visible to "
                "masked patches: choose a decoder depth of 1 or more"
            )
        self.class_tokens = class_tokens
        self.decoder_embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width)) if mask_tokens else None
        self.decoder_pos_embed = nn.Parameter(
            sincos_positions(grid, width, class_tokens), requires_grad=False
        )
        self.decoder_blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        self.decoder_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.decoder_pred = nn.Linear(width, values_per_patch)
        initialize(self)

    def forward(self, latent: Float[Tensor, "B T D"], mask: Mask) -> Float[Tensor, "B M P"]:
        """Predicts the masked patches, in ascending order.

        The last block and the head compute nothing else: visible tokens are only attended to.
        """
        x = self._full_set(latent, mask)
        for block in self.decoder_blocks[:-1]:
            x = block(x)
        x = self.decoder_blocks[-1](x, queries=slice(-mask.masked.shape[1], None))
        return self.decoder_pred(self.decoder_norm(x))

    def predict_all(self, latent: Float[Tensor, "B T D"], mask: Mask) -> Float[Tensor, "B N P"]:
        """Predicts every patch, un-shuffled into the order of the image."""
        x = self._full_set(latent, mask)
        for block in self.decoder_blocks:
            x = block(x)
        shuffled = self.decoder_pred(self.decoder_norm(x[:, self.class_tokens :]))
        return take(shuffled, torch.cat(mask, dim=1).argsort(dim=1))

    def _full_set(self, latent: Tensor, mask: Mask) -> Tensor:
        """Encoded visible patches, then a mask token per masked patch, positions added to all.

        The paper un-shuffles this list. Attention treats its tokens as a set, so we take the
        positions in the list's own order instead: the same result without moving tokens.
        """
        B, M = mask.masked.shape
        x = self.decoder_embed(latent)
        if self.mask_token is not None:
            x = torch.cat([x, self.mask_token.to(x.dtype).expand(B, M, -1)], dim=1)
        prefix, positions = self.decoder_pos_embed[0].tensor_split([self.class_tokens])
        shuffled = positions[torch.cat(mask, dim=1)]
        return x + torch.cat([prefix.expand(B, -1, -1), shuffled], dim=1)
