"""A model in use: its tokens as features, many images in batches, without gradients.

Legend: B images, N patches, R class tokens, T tokens (R + N), D width.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

BATCH = 64
POOLS = {"class": "class", "cls": "class", "mean": "mean", "patches": "patches"}
"""Kinds of features, and the other word for one of them."""


def check_pool(pool: str, class_tokens: int) -> None:
    """Raises ValueError if there are no such features."""
    if pool not in POOLS:
        raise ValueError(f"pool is {pool!r}: choose class (or cls), mean or patches")
    if POOLS[pool] == "class" and not class_tokens:
        raise ValueError("the encoder has no class token: choose the mean over patches")


def pooled(tokens: Float[Tensor, "B T D"], class_tokens: int, pool: str) -> Float[Tensor, "B *N D"]:
    """The (first) class token, the mean over patches (both [B, D]), or the patches [B, N, D].

    Raises ValueError as `check_pool`.
    """
    check_pool(pool, class_tokens)
    if POOLS[pool] == "class":
        return tokens[:, 0]
    patches = tokens[:, class_tokens:]
    return patches.mean(dim=1) if pool == "mean" else patches


def in_batches(
    model: nn.Module, function: Callable[[Tensor], Tensor], images: Tensor, batch: int
) -> Tensor:
    """Rows of a model's function of images, `batch` images at a time on the model's device.

    They lie where the images do, and are ordinary tensors: what is trained on them may keep them for
    its backward pass. Raises ValueError if `batch` is below 1.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}: give 1 image or more")
    device, rows = next(model.parameters()).device, None
    for start in range(0, max(1, len(images)), batch):
        with torch.inference_mode():
            some = function(images[start : start + batch].to(device))
        with torch.no_grad():
            if rows is None:
                size = (len(images), *some.shape[1:])
                rows = torch.empty(size, dtype=some.dtype, device=images.device)
            rows[start : start + batch] = some
    assert rows is not None
    return rows
