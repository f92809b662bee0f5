"""The Transformer block, with what later users of it need.

Legend: B images, T tokens, Q queried tokens, D width, N patches in a grid, W windows.
Parameters carry timm's names.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unmask.core.patches import patchify
from unmask.core.spec import Size

LAYER_NORM_EPS = 1e-6

BiasFunction = Callable[[Tensor], Tensor]
"""What to add to attention scores, given the queries [B, heads, Q, D / heads] before their scaling."""


def attention_kernel(device: str, dtype: torch.dtype, tokens: int) -> Literal["fused", "plain"]:
    """Which attention to run: a static rule, so that a run never depends on a timing.

    In bfloat16 on a CPU the backward of torch's fused attention is slow for short sequences,
    and plain matrix multiplications win; everywhere else the fused kernel does.
    """
    return "plain" if device == "cpu" and dtype == torch.bfloat16 and tokens <= 256 else "fused"


class Attention(nn.Module):
    """Multi-head self-attention, optionally for a subset of the queries."""

    planned_device: str | None = None
    """Whose kernel to run, such as "cuda", if not the input's own device's: what it would cost there."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(
                f"{heads} heads do not divide a width of {width}: change the one or the other"
            )
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        queries: slice | None = None,
        bias: Float[Tensor, "#B #heads #Q T"] | BiasFunction | None = None,
    ) -> Float[Tensor, "B Q D"]:
        q, k, v = self._project(x, queries)
        if callable(bias):
            bias = bias(q)
        if attention_kernel(self.planned_device or x.device.type, q.dtype, k.shape[2]) == "fused":
            bias = None if bias is None else bias.to(q.dtype)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            mixed = (scores if bias is None else scores + bias).softmax(dim=-1).to(v.dtype) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _project(self, x: Tensor, queries: slice | None) -> tuple[Tensor, Tensor, Tensor]:
        if queries is None:
            q, k, v = self._split_heads(self.qkv(x), parts=3)
            return q, k, v
        D = x.shape[-1]
        asked = F.linear(x[:, queries], self.qkv.weight[:D], self.qkv.bias[:D])
        context = F.linear(x, self.qkv.weight[D:], self.qkv.bias[D:])
        k, v = self._split_heads(context, parts=2)
        return self._split_heads(asked, parts=1)[0], k, v

    def _split_heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, width: int, initial: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return x * self.gamma


class Block(nn.Module):
    """A pre-norm Transformer block."""

    recomputes = False
    """Activation checkpointing: keep only the input, and compute the rest again in the backward."""

    def __init__(
        self, width: int, heads: int, *, mlp_ratio: float = 4.0, layer_scale: float | None = None
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        queries: slice | None = None,
        bias: Float[Tensor, "#W #heads #A #S"] | BiasFunction | None = None,
        window: tuple[Size, int] | None = None,
        keep: Float[Tensor, "2 B"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Returns the queried tokens; all of them unless `queries` says which.

        Args:
            queries: the tokens to compute; the others are only attended to.
            bias: added to the attention scores; or a function of the queries that computes it, as
                decomposed relative positions need (and which keeps it out of a checkpointed graph).
            window: (grid, side): attention stays within windows of side x side patches. Takes
                patches without class tokens, and no `queries`.
            keep: drop path, drawn by the caller: a factor per image for the attention branch and
                for the MLP branch, 0 to drop it and 1 / (1 - rate) to keep it.
        """
        if self.recomputes and torch.is_grad_enabled():
            return checkpoint(
                self._compute,
                *(x, queries, bias, window, keep),
                use_reentrant=False,
                preserve_rng_state=False,  # nothing is drawn inside
            )
        return self._compute(x, queries, bias, window, keep)

    def _compute(
        self,
        x: Tensor,
        queries: slice | None,
        bias: Tensor | BiasFunction | None,
        window: tuple[Size, int] | None,
        keep: Tensor | None,
    ) -> Tensor:
        attended = self.norm1(x)
        if window is None:
            attended = self.attn(attended, queries=queries, bias=bias)
        else:
            assert queries is None, "windowed attention computes all tokens"
            attended = to_windows(attended, *window)
            attended = from_windows(self.attn(attended, bias=bias), *window)
        x = x if queries is None else x[:, queries]
        x = x + _drop_path(self.ls1(attended), keep, 0)
        return x + _drop_path(self.ls2(self.mlp(self.norm2(x))), keep, 1)


def checkpoint_activations(model: nn.Module) -> None:
    """Trades time for memory in all blocks (Chen et al. 2016): a third more computation."""
    for module in model.modules():
        if isinstance(module, Block):
            module.recomputes = True


def _drop_path(branch: Tensor, keep: Tensor | None, which: int) -> Tensor:
    return branch if keep is None else branch * keep[which][:, None, None].to(branch.dtype)


def to_windows(x: Float[Tensor, "B N D"], grid: Size, side: int) -> Float[Tensor, "W {side*side} D"]:
    """Cuts a grid of tokens into windows; the lower and right edges are padded with zeros."""
    h, w = grid
    x = F.pad(x.unflatten(1, (h, w)), (0, 0, 0, -w % side, 0, -h % side))
    return patchify(x.permute(0, 3, 1, 2), (side, side)).reshape(-1, side * side, x.shape[-1])


def from_windows(x: Float[Tensor, "W {side*side} D"], grid: Size, side: int) -> Float[Tensor, "B N D"]:
    """Puts windows back together and removes the padding: the inverse of `to_windows`."""
    h, w = grid
    down, across = -(-h // side), -(-w // side)
    x = x.unflatten(0, (-1, down, across)).unflatten(3, (side, side)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, :h, :w].flatten(1, 2)
