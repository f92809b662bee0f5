"""Patches that attention must not see: those that pad an image, or fill a window up.

Legend: B images, h x w patches, W windows of S patches, T tokens.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from unmask.core.blocks import BiasFunction, to_windows
from unmask.core.spec import Size

MASKED_SCORE = -1e4
"""Added to a score: its weight becomes 0. Not minus infinity, since all of a window may be padding."""


def without_padding(
    bias: Tensor | BiasFunction | None,
    valid: Bool[Tensor, "B h w"] | None,
    window: tuple[Size, int] | None,
    tokens: Float[Tensor, "B T D"],
) -> Tensor | BiasFunction | None:
    """A block's bias, with what hides the patches that are not `valid` from its attention.

    The patches are the last of the tokens; those before them are seen by all.
    """
    if window and valid is None and any(side % window[1] for side in window[0]):
        valid = torch.ones(len(tokens), *window[0], dtype=torch.bool, device=tokens.device)
    if valid is None:
        return bias
    hidden = padding_scores(valid, window, tokens.shape[1] - valid[0].numel())
    if bias is None:
        return hidden
    if isinstance(bias, Tensor):
        return bias + hidden
    given = bias
    return lambda queries: given(queries) + hidden


def padding_scores(
    valid: Bool[Tensor, "B h w"], window: tuple[Size, int] | None, prefix: int
) -> Float[Tensor, "_ 1 1 _"]:
    """0 for what is seen and MASKED_SCORE for the rest: [B, 1, 1, prefix + h w], or [W, 1, 1, S]."""
    seen = valid.flatten(1).float()
    if window is None:
        scores = F.pad(seen, (prefix, 0), value=1.0)[:, None, None]
    else:
        scores = to_windows(seen[..., None], *window).mT[:, None]
    return (1 - scores) * MASKED_SCORE
