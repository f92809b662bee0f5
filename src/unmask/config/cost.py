"""What a model costs, by arithmetic alone: parameters, computation, memory. No weights, no clock.

Legend: N patches, K visible, M masked, P values per patch, R class tokens, T tokens, Q of them computed,
D width, H hidden width of an MLP.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from unmask.core.mae import Architecture
from unmask.core.masking import kept_patches
from unmask.core.patches import grid_of

FLOAT, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16."""

BACKWARD_FACTOR = 3
"""Training costs three forwards: each product of the forward has two in the backward."""


class Product(NamedTuple):
    """Matrix multiplications of one image: `copies` of [rows, inner] x [inner, columns], `times` over.

    One copy means a linear layer, whose rows of a whole batch are one matrix; several are the heads.
    """

    name: str
    copies: int
    rows: int
    inner: int
    columns: int
    times: int = 1
    inputs_need_gradient: bool = True

    @property
    def flops(self) -> int:
        """Two for each multiply-add."""
        return 2 * self.copies * self.rows * self.inner * self.columns * self.times


class Stack(NamedTuple):
    """The blocks of an encoder or a decoder; the last computes only `queries` of the tokens."""

    tokens: int
    queries: int
    width: int
    hidden: int
    depth: int
    heads: int


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers of parameters; `fixed` are the position tables among them, which are never trained."""

    encoder: int
    decoder: int
    fixed: int

    @property
    def total(self) -> int:
        return self.encoder + self.decoder

    @property
    def trained(self) -> int:
        return self.total - self.fixed


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations of one image's forward pass, in matrix multiplications only."""

    encoder: int
    decoder: int

    @property
    def forward(self) -> int:
        return self.encoder + self.decoder

    @property
    def training(self) -> int:
        return BACKWARD_FACTOR * self.forward


@dataclass(frozen=True, kw_only=True)
class StateBytes:
    """What a training process holds, whatever its batch."""

    weights: int
    gradients: int
    moments: int
    """AdamW's two averages."""
    average: int = 0
    """The running average of the weights, where there is one."""
    half_weights: int = 0
    """The weights in bf16, which autocast makes and the backward needs."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.average + self.half_weights


class BlockBytes(NamedTuple):
    """What one block keeps of an image for its backward, its `input` included."""

    kept: int
    input: int


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What the forward pass of one image keeps for the backward."""

    blocks: tuple[BlockBytes, ...]
    others: int

    @property
    def total(self) -> int:
        return sum(block.kept for block in self.blocks) + self.others

    @property
    def checkpointed(self) -> int:
        """With activation checkpointing: blocks keep their input, and one at a time all the rest."""
        kept = sum(block.input for block in self.blocks) + self.others
        return kept + max(block.kept - block.input for block in self.blocks)


def patch_counts(a: Architecture) -> tuple[int, int]:
    """Visible and masked patches of an image, K and M."""
    grid = grid_of(a.image_size, a.patch_size)
    visible = kept_patches(grid, a.mask_ratio, a.mask_unit)
    return visible, grid[0] * grid[1] - visible


def stacks(a: Architecture) -> tuple[Stack, Stack]:
    """Encoder and decoder as they run in pre-training."""
    K, M = patch_counts(a)
    everything = a.class_tokens + K + M
    seen = everything if a.mask_tokens_in_encoder else a.class_tokens + K
    asked = M if a.loss_on == "masked" else everything
    return (
        Stack(seen, seen, a.width, int(a.width * a.mlp_ratio), a.depth, a.heads),
        Stack(
            everything,
            asked,
            a.decoder_width,
            int(a.decoder_width * a.mlp_ratio),
            a.decoder_depth,
            a.decoder_heads,
        ),
    )


def products(a: Architecture) -> tuple[list[Product], list[Product]]:
    """The matrix multiplications of an image's forward pass, in encoder and decoder."""
    K, M = patch_counts(a)
    encoder, decoder = stacks(a)
    predicted = M if a.loss_on == "masked" else K + M
    first = Product("patch_embed", 1, K, a.values_per_patch, a.width, inputs_need_gradient=False)
    return (
        [first, *_block_products(encoder)],
        [
            Product("decoder_embed", 1, encoder.tokens, a.width, a.decoder_width),
            *_block_products(decoder),
            Product("decoder_pred", 1, predicted, a.decoder_width, a.values_per_patch),
        ],
    )


def count_flops(a: Architecture) -> Flops:
    """Of one image in pre-training."""
    encoder, decoder = products(a)
    return Flops(encoder=sum(p.flops for p in encoder), decoder=sum(p.flops for p in decoder))


def decoder_share_per_token(a: Architecture) -> float:
    """The decoder's operations per token over the encoder's, both on whole images.

    The paper names 9 % for its default decoder against ViT-L.
    """
    whole = sum(patch_counts(a))
    encoder, decoder = (s._replace(tokens=whole, queries=whole) for s in stacks(a))
    ends = 2 * a.decoder_width * (a.width + a.values_per_patch)
    first = 2 * a.values_per_patch * a.width
    per_token = [sum(p.flops for p in _block_products(s)) / whole for s in (encoder, decoder)]
    return (per_token[1] + ends) / (per_token[0] + first)


def count_parameters(a: Architecture) -> Parameters:
    """Exactly those of the model."""
    encoder, decoder = stacks(a)
    rows = a.class_tokens + sum(patch_counts(a))
    P, D, d = a.values_per_patch, a.width, a.decoder_width
    in_encoder = P * D + D + a.class_tokens * D + rows * D + a.depth * _block_parameters(encoder) + 2 * D
    in_decoder = D * d + d + rows * d + a.decoder_depth * _block_parameters(decoder) + 2 * d + d * P + P
    return Parameters(
        encoder=in_encoder + (D if a.mask_tokens_in_encoder else 0),
        decoder=in_decoder + (0 if a.mask_tokens_in_encoder else d),
        fixed=rows * (D + d),
    )


def largest_block(a: Architecture) -> int:
    """Parameters of the largest block, which fully sharded training gathers as one."""
    return max(map(_block_parameters, stacks(a)))


def count_state(a: Architecture, precision: Literal["bf16", "fp32"], *, average: bool) -> StateBytes:
    """Float32 weights, gradients and moments of AdamW; autocast's copies under bf16."""
    parameters = count_parameters(a)
    listed = [p for part in products(a) for p in part if p.copies == 1 and p.inputs_need_gradient]
    multiplied = sum(p.inner * p.columns * p.times for p in listed)
    return StateBytes(
        weights=FLOAT * parameters.total,
        gradients=FLOAT * parameters.trained,
        moments=2 * FLOAT * parameters.trained,
        average=FLOAT * parameters.total if average else 0,
        half_weights=HALF * multiplied if precision == "bf16" else 0,
    )


def count_activations(
    a: Architecture,
    precision: Literal["bf16", "fp32"],
    attention: tuple[str, str] = ("fused", "fused"),
) -> Activations:
    """Of one image; `attention` names the kernels of encoder and decoder, as `attention_kernel` does.

    Counted are the tensors that torch keeps, but no indices: on a CPU exactly these, while GPU
    kernels pad a few.
    """
    size = HALF if precision == "bf16" else FLOAT
    K, M = patch_counts(a)
    encoder, decoder = stacks(a)
    predicted = M if a.loss_on == "masked" else K + M
    others = size * K * a.values_per_patch  # visible patches, before their projection
    others += _norm_bytes(encoder.tokens, encoder.width, size)
    others += FLOAT * (decoder.queries * a.decoder_width + 2 * predicted)  # the last norm's input
    others += size * predicted * a.decoder_width
    others += FLOAT * predicted * a.values_per_patch  # differences to the target
    blocks = [
        block
        for stack, kernel in zip((encoder, decoder), attention, strict=True)
        for block in _stack_bytes(stack, size, kernel)
    ]
    return Activations(blocks=tuple(blocks), others=others)


def _block_products(s: Stack) -> list[Product]:
    """All blocks but the last compute every token."""
    whole = s.depth if s.queries == s.tokens else s.depth - 1
    listed = _products_of(s._replace(queries=s.tokens), whole) if whole else []
    return listed if whole == s.depth else listed + _products_of(s, 1)


def _products_of(s: Stack, times: int) -> list[Product]:
    T, Q, D, per_head = s.tokens, s.queries, s.width, s.width // s.heads
    if T == Q:
        projections = [Product("qkv", 1, T, D, 3 * D, times)]
    else:
        projections = [Product("q", 1, Q, D, D, times), Product("kv", 1, T, D, 2 * D, times)]
    return [
        *projections,
        Product("scores", s.heads, Q, per_head, T, times),
        Product("mix", s.heads, Q, T, per_head, times),
        Product("proj", 1, Q, D, D, times),
        Product("fc1", 1, Q, D, s.hidden, times),
        Product("fc2", 1, Q, s.hidden, D, times),
    ]


def _block_parameters(s: Stack) -> int:
    D, H = s.width, s.hidden
    return 4 * D + (3 * D * D + 3 * D) + (D * D + D) + (D * H + H) + (H * D + D)


def _stack_bytes(s: Stack, size: int, kernel: str) -> list[BlockBytes]:
    whole = [_block_bytes(s._replace(queries=s.tokens), size, kernel)] * (s.depth - 1)
    return [*whole, _block_bytes(s, size, kernel)]


def _block_bytes(s: Stack, size: int, kernel: str) -> BlockBytes:
    """The residual stream and the norms' statistics stay float32; inputs of products have `size`."""
    T, Q, D = s.tokens, s.queries, s.width
    attended = size * (Q + 2 * T) * D + size * Q * D  # q, k, v, and what they were mixed to
    attended += size * Q * D if Q < T else 0  # the queried tokens, copied for their projection
    attended += FLOAT * s.heads * Q if kernel == "fused" else size * s.heads * Q * T
    mlp = 2 * size * Q * s.hidden  # before and after the activation function
    kept = _norm_bytes(T, D, size) + attended + _norm_bytes(Q, D, size) + mlp
    return BlockBytes(kept, FLOAT * T * D)


def _norm_bytes(tokens: int, width: int, size: int) -> int:
    """A layer norm's input, mean and deviation, and its output as the next product takes it."""
    return FLOAT * tokens * (width + 2) + size * tokens * width
