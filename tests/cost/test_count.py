"""What is counted without data is what real models have, compute and keep; and what it was before.

Before: as arithmetic on a model's dimensions gave it, which this replaces.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unmask.core.blocks import Block, checkpoint_activations
from unmask.core.spec import DecoderSpec, MAESpec, MaskSpec, TargetSpec, ViTSpec
from unmask.cost.count import count, count_activations, count_state, decoder_share_per_token
from unmask.cost.memory import bytes_per_image, saved_bytes
from unmask.cost.paper import of_model, variant_of
from unmask.models.classifier_spec import ClassifierSpec, EncoderSpec

ENCODER = ViTSpec(
    image_size=(24, 32), patch_size=(4, 8), channels=2, width=24, depth=3, heads=3, mlp_ratio=3.0
)
SMALL = MAESpec(
    encoder=ENCODER,
    decoder=DecoderSpec(width=16, depth=2, heads=2, mlp_ratio=3.0),
    mask=MaskSpec(ratio=0.6),
)
IN_ENCODER, ON_ALL = MaskSpec(ratio=0.6, tokens_in_encoder=True), TargetSpec(loss_on="all")
VARIANTS = {
    "default": SMALL,
    "mask-tokens": replace(SMALL, mask=IN_ENCODER),
    "loss-on-all": replace(SMALL, target=ON_ALL),
    "both": replace(SMALL, mask=IN_ENCODER, target=ON_ALL),
    "one-decoder-block": replace(SMALL, decoder=replace(SMALL.decoder, depth=1)),
    "units": replace(SMALL, mask=MaskSpec(unit=2, ratio=0.5)),
    "no-class-token": replace(SMALL, encoder=replace(ENCODER, class_tokens=0)),
    "three-class-tokens": replace(SMALL, encoder=replace(ENCODER, class_tokens=3)),
}
CLASSIFIERS = {
    "encoder": EncoderSpec(encoder=ENCODER),
    "classifier": ClassifierSpec(encoder=ENCODER, classes=("a", "b", "c"), pool="mean"),
    "class-token": ClassifierSpec(encoder=ENCODER, classes=("a", "b"), pool="class", batch_norm=True),
}
every = pytest.mark.parametrize(
    "spec", [*VARIANTS.values(), *CLASSIFIERS.values()], ids=[*VARIANTS, *CLASSIFIERS]
)
precisions = pytest.mark.parametrize("precision", ["fp32", "bf16"])

PARTS = {
    "default": (27816, 20376, 26816, 719488, 402048),
    "mask-tokens": (27824, 20400, 26824, 1400608, 1071648),
    "loss-on-all": (27816, 20376, 26816, 789184, 402048),
    "both": (27824, 20400, 26824, 1470304, 1071648),
    "one-decoder-block": (25064, 20376, 24064, 551488, 402048),
    "units": (27816, 20376, 26816, 831328, 534816),
    "no-class-token": (27752, 20328, 26792, 668448, 362016),
    "three-class-tokens": (27944, 20472, 26864, 823680, 483840),
}
"""Parameters, the encoder's, those that are trained; operations of a forward pass, the encoder's."""

OF_SIZES = {
    "base": (111907840, 85798656, 111655680, 19067219968, 8643428352),
    "large": (329541888, 303301632, 329239296, 40958717952, 30521819136),
    "huge": (657074508, 630764800, 656613964, 96420673536, 82577489920),
    "laptop": (3009696, 2734656, 2967936, 282129792, 205373952),
}

KEPT = {
    "default": ((91744, 37664), (60672, 28252), (55552, 25952)),
    "both": ((166492, 59012), (115350, 44942), (100492, 41492)),
    "one-decoder-block": ((68744, 30464), (44972, 22532), (42152, 21152)),
    "three-class-tokens": ((102744, 40608), (68400, 30732), (62040, 28032)),
}
"""Bytes of an image, without and with checkpointing: in fp32; in bf16, attention plain and fused."""


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_numbers_as_before(name):
    assert numbers(VARIANTS[name]) == PARTS[name]
    assert count(VARIANTS[name]).largest_block == 6048


@pytest.mark.parametrize("name", OF_SIZES)
def test_the_same_numbers_as_before_of_usual_models(name):
    assert numbers(of_model(name)) == OF_SIZES[name]


def numbers(spec: MAESpec) -> tuple[int, ...]:
    c = count(spec)
    return c.parameters, c.encoder_parameters, c.trained, c.flops, c.encoder_flops


@pytest.mark.parametrize("name", KEPT)
def test_the_same_bytes_as_before(name):
    spec = VARIANTS[name]
    for (precision, device), (total, checkpointed) in zip(
        (("fp32", "cpu"), ("bf16", "cpu"), ("bf16", "cuda")), KEPT[name], strict=True
    ):
        kept = count_activations(spec, precision, device)
        assert (kept.total, kept.checkpointed) == (total, checkpointed)


@every
def test_parameters_and_operations_of_real_models(spec):
    """Torch's counter does not know the CPU's fused attention: it counts plain attention instead."""
    model, counted = spec.build().eval(), count(spec)
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    assert counted.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    blocks = [m for m in model.modules() if isinstance(m, Block)]
    assert counted.largest_block == max(sum(p.numel() for p in b.parameters()) for b in blocks)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images(3))
    assert 3 * counted.flops == counter.get_total_flops()


def test_the_encoders_share():
    """Of a classifier it is all but the head; alone it is everything."""
    alone, classifier = count(CLASSIFIERS["encoder"]), count(CLASSIFIERS["classifier"])
    assert alone.encoder_flops == alone.flops == classifier.encoder_flops
    assert classifier.flops - classifier.encoder_flops == 2 * 24 * 3
    assert alone.encoder_parameters == alone.parameters


@every
@precisions
def test_bytes_of_real_models(spec, precision):
    model, counted = spec.build(), count_activations(spec, precision)
    assert bytes_per_image(model, forward(model, precision)) == counted.total


@pytest.mark.parametrize(
    ("spec", "encoder", "decoder"),
    [(SMALL, 5, 4), (VARIANTS["both"], 4, 1), (CLASSIFIERS["classifier"], 5, None)],
)
def test_large_models_are_counted_by_a_few_of_their_blocks(spec, encoder, decoder, monkeypatch):
    deep = replace(spec, encoder=replace(spec.encoder, depth=encoder))
    if isinstance(deep, MAESpec):
        deep = replace(deep, decoder=replace(deep.decoder, depth=decoder))
    counting = (count.__wrapped__, partial(count_activations.__wrapped__, precision="bf16"))
    whole = [of(deep) for of in counting]
    built = []
    build = type(deep).build
    monkeypatch.setattr(type(deep), "build", lambda self: (built.append(self), build(self))[1])
    monkeypatch.setattr("unmask.cost.count.FEW_BLOCKS", 0)
    assert [of(deep) for of in counting] == whole
    assert deep not in built


def test_bytes_of_a_real_model_with_the_kernel_of_another_device(monkeypatch):
    expected = count_activations(SMALL, "bf16", "cuda")
    monkeypatch.setattr("unmask.core.blocks.attention_kernel", lambda *_: "fused")
    model = SMALL.build()
    assert bytes_per_image(model, forward(model, "bf16")) == expected.total


@precisions
def test_bytes_of_a_single_head(precision):
    """Of its tensors torch takes views, and of those of several heads copies."""
    spec = replace(SMALL, decoder=replace(SMALL.decoder, heads=1))
    model, counted = spec.build(), count_activations(spec, precision)
    run = forward(model, precision)
    assert bytes_per_image(model, run) == counted.total
    assert saved_bytes(model, lambda: run(4)) == 4 * counted.total + counted.weight_copies


@precisions
def test_checkpointed_bytes(precision):
    """Torch keeps the blocks' inputs alone; the largest block comes on top while it is recomputed."""
    model = SMALL.build()
    plain, checkpointed = (
        count_activations(replace(SMALL, decoder=replace(SMALL.decoder, depth=d)), precision)
        for d in (1, 2)
    )
    assert plain.checkpointed < checkpointed.checkpointed
    alone = count_activations(EncoderSpec(encoder=replace(ENCODER, depth=1)), precision)
    checkpoint_activations(model)
    inputs_and_others = bytes_per_image(model, forward(model, precision))
    largest = checkpointed.checkpointed - inputs_and_others
    assert 0 < largest < checkpointed.total - inputs_and_others
    assert largest < alone.total


@pytest.mark.parametrize("name", ["default", "mask-tokens"])
def test_state(name):
    """Against tensors: weights, gradients, moments; and autocast's copies, which no image adds to."""
    spec = VARIANTS[name]
    model, state = spec.build(), count_state(spec, "bf16", average=True)
    optimizer = torch.optim.AdamW(model.parameters())
    loss, per_image = forward(model, "bf16"), count_activations(spec, "bf16").total
    assert saved_bytes(model, lambda: loss(2)) - 2 * per_image == state.half_weights == 47616
    loss(2).backward()
    optimizer.step()
    bytes_of = [p.nbytes for p in model.parameters()]
    assert state.weights == state.average == sum(bytes_of)
    assert state.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    moments = [v for s in optimizer.state.values() for v in s.values() if v.ndim]
    assert state.moments == sum(v.nbytes for v in moments)
    plain = count_state(spec, "fp32", average=False)
    assert plain.total == state.weights + state.gradients + state.moments


def test_counting_draws_nothing():
    """Models are built, but no random number is taken from those of a run."""
    before = torch.get_rng_state()
    for counting in (count, count_activations):
        counting.__wrapped__(*((SMALL, "fp32") if counting is count_activations else (SMALL,)))
    assert torch.get_rng_state().equal(before)


def test_the_papers_ratios():
    """Table 1c: 3.3 times the FLOPs with mask tokens in the encoder; 9 % per token in the decoder."""
    large = of_model("large")
    ratio = count(variant_of(large, True, 8)).training_flops / count(large).training_flops
    assert round(ratio, 1) == 3.3, ratio
    assert decoder_share_per_token(large) == pytest.approx(0.08863016572267673, rel=1e-12)
    assert decoder_share_per_token(SMALL) == pytest.approx(0.3620689655172414, rel=1e-12)


def images(batch: int) -> Tensor:
    return torch.randn(batch, 2, 24, 32)


def forward(model: nn.Module, precision: str):
    def run(batch: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = model(images(batch))
            return getattr(output, "loss", output)

    return run


@pytest.mark.parametrize(
    "target", [TargetSpec(kind="pca"), TargetSpec(kind="tokens", vocabulary=50)], ids=["pca", "tokens"]
)
def test_every_target_is_counted(target):
    spec, default = replace(SMALL, target=target), count(SMALL)
    difference = spec.outputs - SMALL.outputs
    counted = count(spec)
    assert counted.parameters - default.parameters == difference * (SMALL.decoder.width + 1)
    assert count_activations(spec, "fp32").total > 0
    if target.kind == "tokens":
        operations = 2 * spec.masked * SMALL.decoder.width * difference
        assert counted.flops - default.flops == operations


def test_partial_decoding_costs_less():
    half = replace(SMALL, mask=replace(SMALL.mask, decode_share=0.5))
    assert count(half).flops < count(SMALL).flops
    assert count(half).encoder_flops == count(SMALL).encoder_flops
    assert count_activations(half, "fp32").total < count_activations(SMALL, "fp32").total
