"""Arithmetic against real models: parameters, operations and kept bytes are exactly those."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unmask.bench.memory import bytes_per_image, saved_bytes
from unmask.config import cost
from unmask.config.resolve import resolve_architecture
from unmask.core import Architecture, MaskedAutoencoder
from unmask.core.blocks import Block, checkpoint_activations
from unmask.recipes import PRETRAIN, pretrain_recipe

SMALL = Architecture(
    image_size=(24, 32), patch_size=(4, 8), channels=2, width=24, depth=3, heads=3, mlp_ratio=3.0,
    decoder_width=16, decoder_depth=2, decoder_heads=2, mask_ratio=0.6,
)  # fmt: skip
VARIANTS = {
    "default": SMALL,
    "mask-tokens": replace(SMALL, mask_tokens_in_encoder=True),
    "loss-on-all": replace(SMALL, loss_on="all"),
    "both": replace(SMALL, mask_tokens_in_encoder=True, loss_on="all"),
    "one-decoder-block": replace(SMALL, decoder_depth=1),
    "units": replace(SMALL, mask_unit=2, mask_ratio=0.5),
    "no-class-token": replace(SMALL, class_tokens=0),
    "three-class-tokens": replace(SMALL, class_tokens=3),
}
variants = pytest.mark.parametrize("a", VARIANTS.values(), ids=VARIANTS)


def of_recipe(name: str) -> Architecture:
    return resolve_architecture(pretrain_recipe(name), channels=3)


def inputs(a: Architecture, batch: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, a.channels, *a.image_size), torch.rand(batch, sum(cost.patch_counts(a)))


def assert_parameters(a: Architecture) -> None:
    with torch.device("meta"):
        model = MaskedAutoencoder(a)
    counted = cost.count_parameters(a)
    parameters = dict(model.named_parameters())
    assert counted.total == sum(p.numel() for p in parameters.values())
    assert counted.trained == sum(p.numel() for p in parameters.values() if p.requires_grad)
    encoder = [p.numel() for name, p in parameters.items() if name.startswith("encoder")]
    assert counted.encoder == sum(encoder)
    blocks = [m for m in model.modules() if isinstance(m, Block)]
    assert cost.largest_block(a) == max(sum(p.numel() for p in block.parameters()) for block in blocks)


@variants
def test_parameters(a):
    assert_parameters(a)


@pytest.mark.parametrize("name", PRETRAIN)
def test_parameters_of_every_recipe(name):
    assert_parameters(of_recipe(name))


@variants
def test_flops(a):
    """Torch's counter does not know the CPU's fused attention: it counts plain attention instead."""
    model = MaskedAutoencoder(a)
    images, noise = inputs(a, 3)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images, noise=noise)
    counted = cost.count_flops(a)
    by_module = counter.get_flop_counts()
    assert 3 * counted.forward == counter.get_total_flops()
    encoder = sum(by_module["MaskedAutoencoder.encoder.patch_embed"].values())
    encoder += sum(
        sum(flops.values())
        for name, flops in by_module.items()
        if name.startswith("MaskedAutoencoder.encoder.blocks.") and name.count(".") == 3
    )
    assert 3 * counted.encoder == encoder


@variants
@pytest.mark.parametrize(("precision", "fused"), [("fp32", True), ("bf16", False)])
def test_activations(a, precision, fused):
    model = MaskedAutoencoder(a)
    N, M = sum(cost.patch_counts(a)), cost.patch_counts(a)[1]
    indices = 8 * (N + 1 + M + 1) if a.loss_on == "all" else 0  # un-shuffling, which is not counted
    measured = bytes_per_image(model, loss_of(model, precision))
    assert measured == kept(a, precision, fused).total + indices


def test_activations_in_bf16_with_the_fused_kernel(monkeypatch):
    monkeypatch.setattr("unmask.core.blocks.attention_kernel", lambda *_: "fused")
    model = MaskedAutoencoder(SMALL)
    expected = kept(SMALL, "bf16", fused=True).total
    assert bytes_per_image(model, loss_of(model, "bf16")) == expected


def kept(a: Architecture, precision: str, fused: bool) -> cost.Activations:
    kernel = "fused" if fused else "plain"
    return cost.count_activations(a, precision, (kernel, kernel))


def loss_of(model: MaskedAutoencoder, precision: str):
    def loss(batch: int) -> Tensor:
        images, noise = inputs(model.architecture, batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return model(images, noise=noise).loss

    return loss


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointed_activations(precision):
    """Torch keeps the blocks' inputs alone; the largest block comes on top while it is recomputed."""
    model = MaskedAutoencoder(SMALL)
    checkpoint_activations(model)
    expected = kept(SMALL, precision, fused=precision == "fp32")
    rest = sum(block.kept - block.input for block in expected.blocks)
    assert bytes_per_image(model, loss_of(model, precision)) == expected.total - rest
    largest = max(block.kept - block.input for block in expected.blocks)
    assert expected.checkpointed == expected.total - rest + largest


@pytest.mark.parametrize("a", [SMALL, VARIANTS["mask-tokens"]], ids=["default", "mask-tokens"])
def test_state(a):
    """Against tensors: weights, gradients, moments; and autocast's copies, which no image adds to."""
    model = MaskedAutoencoder(a)
    optimizer = torch.optim.AdamW(model.parameters())
    loss = loss_of(model, "bf16")
    per_image = kept(a, "bf16", fused=False).total
    state = cost.count_state(a, "bf16", average=True)
    assert saved_bytes(model, lambda: loss(2)) - 2 * per_image == state.half_weights
    loss(2).backward()
    optimizer.step()
    bytes_of = [p.nbytes for p in model.parameters()]
    assert state.weights == state.average == sum(bytes_of)
    assert state.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    moments = [v for s in optimizer.state.values() for v in s.values() if v.ndim]
    assert state.moments == sum(v.nbytes for v in moments)
    plain = cost.count_state(a, "fp32", average=False)
    assert plain.total == state.weights + state.gradients + state.moments


def test_the_papers_ratios():
    """Table 1c: 3.3 times the FLOPs with mask tokens in the encoder; 9 % per token in the decoder."""
    large, huge = of_recipe("vit-large-800"), of_recipe("vit-huge-800")
    variant = cost.count_flops(replace(large, mask_tokens_in_encoder=True))
    ratio = variant.training / cost.count_flops(large).training
    assert round(ratio, 1) == 3.3, ratio
    assert round(cost.decoder_share_per_token(large), 2) == 0.09
    assert cost.decoder_share_per_token(huge) < 0.05


def test_published_sizes():
    """Of the encoders, in millions, as Dosovitskiy et al. and the paper round them."""
    names = ("vit-base-800", "vit-large-800", "vit-huge-800")
    encoders = [cost.count_parameters(of_recipe(name)).encoder / 1e6 for name in names]
    assert encoders == [pytest.approx(86, abs=1), pytest.approx(303, abs=1), pytest.approx(631, abs=1)]
