"""The lightweight decoder (paper, Approach: MAE decoder).

Legend: B images, N patches, K visible, Q predicted, R class tokens, D encoder width,
V numbers predicted per patch.
Parameters carry the official MAE code's names.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmask.core.blocks import LAYER_NORM_EPS, Block
from unmask.core.initialize import initialize
from unmask.core.masking import Mask, take
from unmask.core.position import sincos_positions
from unmask.core.spec import Size


class Decoder(nn.Module):
    """Predicts patches from the encoded visible ones and one shared mask token.

    With `mask_tokens=False` it adds none: the encoder has seen them, and `latent` holds them behind the
    visible ones.
    """

    def __init__(
        self,
        *,
        grid: Size,
        encoder_width: int,
        outputs: int,
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
        self.decoder_pred = nn.Linear(width, outputs)
        initialize(self)

    def forward(
        self, latent: Float[Tensor, "B T D"], mask: Mask, last: int | None = None
    ) -> Float[Tensor, "B last V"]:
        """Predicts the `last` patches of `mask.decoded`, by default those that `mask.predicted` lists.

        The last block and the head compute nothing else: other tokens are only attended to.
        """
        x = self._full_set(latent, mask)
        for block in self.decoder_blocks[:-1]:
            x = block(x)
        count = mask.predicted.shape[1] if last is None else last
        x = self.decoder_blocks[-1](x, queries=slice(-count, None))
        return self.decoder_pred(self.decoder_norm(x))

    def predict_all(self, latent: Float[Tensor, "B T D"], mask: Mask) -> Float[Tensor, "B N V"]:
        """Predicts every patch, un-shuffled into the order of the image."""
        order = mask.decoded
        return take(self(latent, mask, order.shape[1]), order.argsort(dim=1))

    def _full_set(self, latent: Tensor, mask: Mask) -> Tensor:
        """Encoded visible patches, then a mask token per predicted patch, positions added to all.

        The paper un-shuffles this list. Attention treats its tokens as a set, so we take the
        positions in the list's own order instead: the same result without moving tokens.
        """
        B, Q = mask.predicted.shape
        x = self.decoder_embed(latent)
        if self.mask_token is not None:
            x = torch.cat([x, self.mask_token.to(x.dtype).expand(B, Q, -1)], dim=1)
        prefix, positions = self.decoder_pos_embed[0].tensor_split([self.class_tokens])
        shuffled = positions[mask.decoded]
        return x + torch.cat([prefix.expand(B, -1, -1), shuffled], dim=1)
