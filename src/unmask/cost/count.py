"""What a model costs: parameters, computation, memory. No weights, no clock.

All is counted on the model that a spec builds, run without data: on torch's meta device, or on fake
tensors (the meta device under a processor's name), with which autocast and fused attention work, too.

Shapes: B images of C channels and H x W pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from unmask.core.blocks import Attention, Block
from unmask.core.spec import MAESpec, ModelSpec, Size
from unmask.cost.memory import Kept, saved_bytes, storage_of
from unmask.engine.machine import arithmetic
from unmask.models.classifier_spec import ClassifierSpec, EncoderSpec
from unmask.models.tokenizer import Tokenizer
from unmask.models.tokenizer_spec import TokenizerSpec

FLOAT = 4
"""Bytes of a float32."""

BACKWARD_FACTOR = 3
"""Training costs three forwards: each product of the forward has two in the backward."""

FEW_BLOCKS = 16
"""The most blocks that are all run. Of larger models two and three of each part are, and differences
are added up: the first and the last of a part may be unlike the others."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Parameters of a model, and floating-point operations of one image's forward pass.

    Operations are those of matrix products alone, two for each multiply-add.
    """

    parameters: int
    encoder_parameters: int
    trained: int
    """Parameters that are trained; fixed position tables are not."""
    largest_block: int
    """Parameters of the largest block, which fully sharded training gathers as one."""
    flops: int
    encoder_flops: int

    @property
    def training_flops(self) -> int:
        """Operations for one image in training."""
        return BACKWARD_FACTOR * self.flops


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes that the forward pass keeps for the backward."""

    total: int
    """Bytes of one image."""
    checkpointed: int
    """Bytes of one image with activation checkpointing: blocks keep their input, one the rest."""
    weight_copies: int
    """Whatever the batch: the weights in bf16, which autocast makes and the backward needs."""


@dataclass(frozen=True, kw_only=True)
class StateBytes:
    """What a training process holds, whatever its batch."""

    weights: int
    gradients: int
    moments: int
    """AdamW's two averages."""
    average: int = 0
    """The EMA of the weights, if there is one."""
    half_weights: int = 0
    """The weights in bf16, which autocast makes and the backward needs."""

    @property
    def total(self) -> int:
        """Sum of all these."""
        return self.weights + self.gradients + self.moments + self.average + self.half_weights


@cache
def count(spec: ModelSpec) -> Cost:
    """Parameters and operations of the model that a spec builds, on whole images of its size."""
    return Cost(**_of_all_blocks(spec, lambda some: vars(_count(some))))


def _count(spec: ModelSpec) -> Cost:
    model = _without_data(spec).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(_images(spec, 1, "meta"), **_given(spec, 1, "meta"))
    named = {name: p.numel() for name, p in model.named_parameters()}
    blocks = [m for m in model.modules() if isinstance(m, Block)]
    has_more = hasattr(model, "encoder")
    encoder = [n for name, n in named.items() if name.startswith("encoder") or not has_more]
    flops = counter.get_total_flops()
    return Cost(
        parameters=sum(named.values()),
        encoder_parameters=sum(encoder),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        largest_block=max((sum(p.numel() for p in b.parameters()) for b in blocks), default=0),
        flops=flops,
        encoder_flops=_encoder_flops(counter.get_flop_counts()) if has_more else flops,
    )


@cache
def count_activations(
    spec: ModelSpec, precision: Literal["bf16", "fp32"], device: str = "cpu"
) -> Activations:
    """What training of the model that a spec builds keeps; `device` decides on the kernels of attention.

    Exactly what torch keeps on a CPU, while kernels of GPUs pad a few tensors.
    """
    counted = _of_all_blocks(spec, lambda some: vars(_count_activations(some, precision, device)))
    return Activations(**counted)


def _count_activations(spec: ModelSpec, precision: Literal["bf16", "fp32"], device: str) -> Activations:
    model = _without_data(spec)
    with FakeTensorMode():
        for module in model.modules():
            _onto_cpu(module)
            if isinstance(module, Attention):
                module.planned_device = device
        # Of one image torch takes views, and copies more of them: two and three are compared.
        two, three = (_keep(model, spec, batch, precision) for batch in (2, 3))
    total = three.total - two.total
    blocks = [more - less for more, less in zip(three.blocks, two.blocks, strict=True)]
    return Activations(
        total=total,
        checkpointed=total - sum(blocks) + max(blocks, default=0),
        weight_copies=two.total - 2 * total,
    )


def count_state(
    spec: ModelSpec, precision: Literal["bf16", "fp32"], device: str = "cpu", *, average: bool
) -> StateBytes:
    """Float32 weights, gradients and moments of AdamW; autocast's copies under bf16."""
    cost = count(spec)
    return StateBytes(
        weights=FLOAT * cost.parameters,
        gradients=FLOAT * cost.trained,
        moments=2 * FLOAT * cost.trained,
        average=FLOAT * cost.parameters if average else 0,
        half_weights=count_activations(spec, precision, device).weight_copies,
    )


@dataclass(frozen=True, kw_only=True)
class TokenizerCost:
    """Parameters of a discrete VAE, and operations for one image."""

    parameters: int
    encoder_flops: int
    """That make tokens of an image."""
    flops: int
    """Also of the half that draws."""

    @property
    def training_flops(self) -> int:
        """Operations for one image in its own training."""
        return BACKWARD_FACTOR * self.flops


@cache
def count_tokenizer(spec: TokenizerSpec, grid: Size) -> TokenizerCost:
    """Cost of a tokenizer on images of so many tokens."""
    with torch.device("meta"):
        model = Tokenizer(spec)
        sides = [side * spec.downsampling for side in grid]
        images = torch.empty(1, spec.channels, *sides)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = model.logits(images)
        encoder_flops = counter.get_total_flops()
        model.decoder(model.embedding(logits))
    return TokenizerCost(
        parameters=sum(p.numel() for p in model.parameters()),
        encoder_flops=encoder_flops,
        flops=counter.get_total_flops(),
    )


@cache
def decoder_share_per_token(spec: MAESpec) -> float:
    """The decoder's operations per token over the encoder's, both on whole images without class tokens.

    The paper names 9 % for its default decoder against ViT-L.
    """
    encoder = replace(spec.encoder, class_tokens=0)
    # With mask tokens in the encoder, and the loss on all patches, the decoder computes every token.
    whole = replace(
        spec,
        encoder=encoder,
        mask=replace(spec.mask, tokens_in_encoder=True, decode_share=1.0),
        target=replace(spec.target, loss_on="all"),
    )
    counted = count(whole)
    return (counted.flops - counted.encoder_flops) / count(EncoderSpec(encoder=encoder)).flops


def _of_all_blocks(spec: ModelSpec, count: Callable[[ModelSpec], dict[str, int]]) -> dict[str, int]:
    """What `count` finds for each quantity: of a large model it is given smaller ones."""
    if not isinstance(spec, MAESpec | EncoderSpec | ClassifierSpec):
        return count(spec)
    encoder, decoder = spec.encoder.depth, spec.decoder.depth if isinstance(spec, MAESpec) else 0
    if encoder + decoder <= FEW_BLOCKS:
        return count(spec)
    most = min(encoder, 3), min(decoder, 3)
    whole = count(_of_depths(spec, *most))
    found = dict(whole)
    for depth, fewer in ((encoder, (2, most[1])), (decoder, (most[0], 2))):
        if depth > 3:
            less = count(_of_depths(spec, *fewer))
            found = {name: n + (depth - 3) * (whole[name] - less[name]) for name, n in found.items()}
    return found


def _of_depths(
    spec: MAESpec | EncoderSpec | ClassifierSpec, encoder: int, decoder: int
) -> MAESpec | EncoderSpec | ClassifierSpec:
    spec = replace(spec, encoder=replace(spec.encoder, depth=encoder))
    if isinstance(spec, MAESpec):
        spec = replace(spec, decoder=replace(spec.decoder, depth=decoder))
    return spec


@dataclass(frozen=True)
class _Saved:
    """Bytes kept in all, and within each block beside its input."""

    total: int
    blocks: list[int]


def _keep(model: nn.Module, spec: ModelSpec, batch: int, precision: Literal["bf16", "fp32"]) -> _Saved:
    images, given = _images(spec, batch, "cpu"), _given(spec, batch, "cpu")
    kept: Kept = {}
    first, blocks = 0, list[int]()

    def enter(block: nn.Module, given: Any) -> None:
        nonlocal first
        first = len(kept)

    def leave(block: nn.Module, given: tuple[Tensor, ...], result: Any) -> None:
        new, its_input = islice(kept.items(), first, None), storage_of(given[0])
        blocks.append(sum(t.untyped_storage().nbytes() for place, t in new if place != its_input))

    hooks = [
        hook
        for block in model.modules()
        if isinstance(block, Block)
        for hook in (block.register_forward_pre_hook(enter), block.register_forward_hook(leave))
    ]

    def forward() -> None:
        with arithmetic("cpu", precision):
            model(images, **given)

    total = saved_bytes(model, forward, kept)
    for hook in hooks:
        hook.remove()
    return _Saved(total, blocks)


def _without_data(spec: ModelSpec) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = spec.build()
    return model


def _onto_cpu(module: nn.Module) -> None:
    """Replaces the module's own parameters and buffers; `to_empty` cannot, from meta to fake tensors."""
    for name, p in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(torch.empty(p.shape), p.requires_grad))
    for name, b in list(module.named_buffers(recurse=False)):
        setattr(module, name, torch.empty(b.shape, dtype=b.dtype))


def _given(spec: ModelSpec, batch: int, device: str) -> dict[str, Tensor]:
    """What a model needs beside images: the ids of tokens, if these are the target."""
    if not isinstance(spec, MAESpec) or spec.target.kind != "tokens":
        return {}
    shape = (batch, spec.encoder.patches)
    return {"wanted": torch.zeros(shape, dtype=torch.int64, device=device)}


def _images(spec: ModelSpec, batch: int, device: str) -> Tensor:
    """[B, C, H, W]"""
    return torch.empty(batch, spec.encoder.channels, *spec.encoder.image_size, device=device)


def _encoder_flops(counts: Mapping[str, Mapping[Any, int]]) -> int:
    """Operations of the model's part `encoder`, or of that part's own parts if only they were called."""
    inside = {name: sum(c.values()) for name, c in counts.items() if name.split(".")[1:2] == ["encoder"]}
    nested = {name for name in inside for outer in inside if name.startswith(f"{outer}.")}
    return sum(flops for name, flops in inside.items() if name not in nested)
