"""UperNet against transformers', and what a segmenter does to its encoder, any image and any label."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, UperNetConfig, UperNetForSemanticSegmentation

from unmask.core import VisionTransformer
from unmask.core.blocks import checkpoint_activations
from unmask.core.spec import ViTSpec
from unmask.models.classifier import drop_path_keep
from unmask.models.segmenter import (
    BlockRelativePosition,
    Segmenter,
    SegmenterOutput,
    channel_keep,
    freeze_encoder,
    segmentation_loss,
)
from unmask.models.segmenter_spec import SegmenterSpec
from unmask.models.upernet import FCNHead, UperNetHead

K = 5
VIT = ViTSpec(image_size=(64, 64), patch_size=(16, 16), channels=3, width=32, depth=4, heads=4)


def spec_of(*, depth: int = 4, **settings) -> SegmenterSpec:
    return SegmenterSpec(encoder=replace(VIT, depth=depth), classes=tuple("abcde"), **settings)


SPEC = spec_of(width=16, auxiliary_width=8)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def encoder(**changes) -> VisionTransformer:
    torch.manual_seed(0)
    return replace(VIT, **changes).build()


def segmenter(spec: SegmenterSpec = SPEC, **changes) -> Segmenter:
    return spec.around(encoder(**changes))


@pytest.fixture(scope="module")
def theirs() -> UperNetForSemanticSegmentation:
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 12, 16, 20],
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        num_labels=K,
        auxiliary_channels=8,
        auxiliary_in_channels=None,
    )
    model = UperNetForSemanticSegmentation(config)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("training", [True, False])
def test_heads_equal_those_of_transformers(theirs, training):
    levels = [torch.randn(2, C, s, s + 2) for C, s in zip((8, 12, 16, 20), (32, 16, 8, 4), strict=True)]
    head, auxiliary = UperNetHead((8, 12, 16, 20), 16, K, (1, 2, 3, 6)), FCNHead(16, 8, K)
    head.load_state_dict(theirs.decode_head.state_dict())
    auxiliary.load_state_dict(theirs.auxiliary_head.state_dict())
    for module in (theirs, head, auxiliary):
        module.train(training)
    torch.testing.assert_close(head(levels), theirs.decode_head(levels), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(auxiliary(levels[2]), theirs.auxiliary_head(levels), atol=1e-5, rtol=1e-5)
    pooled = theirs.decode_head.psp_forward(levels)
    torch.testing.assert_close(head.pooled(levels[-1]), pooled, atol=1e-5, rtol=1e-5)


def test_the_loss_equals_that_of_transformers(theirs):
    theirs.eval()
    labels = torch.randint(K, (2, 64, 64)).masked_fill(torch.rand(2, 64, 64) < 0.2, 255)
    with torch.no_grad():
        expected = theirs(IMAGES, labels=labels)
        features = theirs.backbone(IMAGES).feature_maps
        auxiliary = torch.nn.functional.interpolate(
            theirs.auxiliary_head(features), size=(64, 64), mode="bilinear", align_corners=False
        )
    loss = segmentation_loss(SegmenterOutput(expected.logits, auxiliary), labels)
    torch.testing.assert_close(loss.total / loss.pixels, expected.loss)


@pytest.mark.parametrize("head", ["upernet", "linear"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (50, 70)])
def test_every_pixel_of_any_image_gets_logits(head, size):
    model = segmenter(spec_of(head=head, width=16))
    images = torch.randn(2, 3, *size)
    output = model.train()(images)
    assert output.logits.shape == (2, K, *size)
    assert (output.auxiliary is not None) is (head == "upernet")
    assert model.eval()(images).auxiliary is None


@pytest.mark.parametrize("class_tokens", [0, 1])
@pytest.mark.parametrize("head", ["upernet", "linear"])
def test_the_encoder_starts_as_it_was_and_everything_is_trained(head, class_tokens):
    spec = spec_of(head=head, width=16, auxiliary_width=8)
    model = segmenter(spec, class_tokens=class_tokens)
    plain = encoder(class_tokens=class_tokens)
    expected = plain.maps(IMAGES, spec.blocks)
    if head == "linear":
        expected = [plain(IMAGES)[:, class_tokens:].mT.unflatten(2, (4, 4))]
    for made, wanted in zip(model.maps(IMAGES), expected, strict=True):
        torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-4)
    output = model.train()(IMAGES)
    segmentation_loss(output, torch.randint(K, (2, 64, 64))).total.backward()
    weights = {name: p for name, p in model.named_parameters() if p.numel()}
    untrained = [name for name, p in weights.items() if p.grad is None or not p.grad.any()]
    assert untrained == ["encoder.pos_embed"]


def test_relative_position_is_looked_up_by_offset_and_by_class_token():
    position = BlockRelativePosition(heads=2, depth=1, grid=(2, 3), class_tokens=1)
    position.tables[0].data = torch.arange(2 * 3 * 5.0).view(2, 3, 5)
    position.class_pairs[0].data = torch.tensor([[100.0, 101], [200, 201], [300, 301]])
    made = position((2, 3))[0](torch.zeros(1, 2, 7, 4))[0]
    assert made.shape == (2, 7, 7)
    assert made[1, 0, 0] == 301
    assert (made[0, 0, 1:] == 100).all()
    assert (made[1, 1:, 0] == 201).all()
    for query in range(6):
        for key in range(6):
            down, across = key // 3 - query // 3, key % 3 - query % 3
            assert made[0, 1 + query, 1 + key] == position.tables[0][0, 1 + down, 2 + across]


def test_a_bias_moves_attention_and_the_tables_follow_other_sizes():
    model = segmenter().eval()
    with torch.no_grad():
        before = model(IMAGES).logits
        for table in model.relative_position.tables:
            table.normal_(generator=torch.Generator().manual_seed(1))
        assert (model(IMAGES).logits - before).abs().max() > 1e-4
        assert model(torch.randn(1, 3, 96, 32)).logits.isfinite().all()


def test_drop_path_reaches_the_blocks():
    model = segmenter().eval()
    keep = drop_path_keep(4, 0.9, 2, np.random.default_rng(0))
    assert not torch.equal(model(IMAGES, keep=keep).logits, model(IMAGES).logits)
    torch.testing.assert_close(model(IMAGES, keep=torch.ones(4, 2, 2)).logits, model(IMAGES).logits)


def test_dropout_of_channels():
    model = segmenter().train()
    assert model.dropped_channels == (16, 8)
    keep = channel_keep((16, 8), 0.25, 2000, np.random.default_rng(0))
    assert sorted(keep.unique().tolist()) == [0, pytest.approx(4 / 3)]
    assert keep.mean() == pytest.approx(1, abs=0.02)
    plain, same = model(IMAGES), model(IMAGES, channel_keep=torch.ones(2, 24))
    torch.testing.assert_close(same, plain)
    for dropped, changed in [(slice(16), 0), (slice(16, 24), 1)]:
        factors = torch.ones(2, 24)
        factors[:, dropped] = 0
        made = model(IMAGES, channel_keep=factors)
        assert made[changed].std() == 0  # the bias of the classifier alone, which starts at 0
        torch.testing.assert_close(made[1 - changed], plain[1 - changed])
    with pytest.raises(ValueError, match="dropout rate"):
        channel_keep((16, 8), 1.0, 2, np.random.default_rng(0))


def test_a_frozen_encoder_keeps_its_weights_and_needs_no_graph():
    model = segmenter(spec_of(head="linear", relative_position=False, layer_scale=None)).train()
    assert freeze_encoder(model) == [
        f"decode_head.{name}"
        for name in ("batch_norm.weight", "batch_norm.bias", "classifier.weight", "classifier.bias")
    ]
    assert not model.maps(IMAGES)[0].requires_grad
    assert model(IMAGES).logits.requires_grad
    assert set(model.encoder.state_dict()) == set(encoder().state_dict())


def test_the_loss_of_parts_adds_up_and_ignored_pixels_count_nowhere():
    torch.manual_seed(0)
    logits, auxiliary = torch.randn(3, K, 6, 6), torch.randn(3, K, 6, 6)
    labels = torch.randint(K, (3, 6, 6)).to(torch.uint8)
    labels[0], labels[1, 2] = 255, 255
    whole = segmentation_loss(SegmenterOutput(logits, auxiliary), labels)
    parts = [
        segmentation_loss(SegmenterOutput(logits[i : i + 1], auxiliary[i : i + 1]), labels[i : i + 1])
        for i in range(3)
    ]
    assert whole.pixels == 66
    assert parts[0].total == parts[0].pixels == 0
    torch.testing.assert_close(whole.total, sum(part.total for part in parts))
    changed = logits.masked_fill((labels == 255)[:, None], 9.0)
    torch.testing.assert_close(
        segmentation_loss(SegmenterOutput(changed, auxiliary), labels).total, whole.total
    )


def test_which_blocks_the_head_is_given():
    assert [spec_of(depth=depth).blocks for depth in (12, 24, 32)] == [
        (4, 6, 8, 12),
        (8, 12, 16, 24),
        (11, 16, 21, 32),
    ]
    assert spec_of(depth=12, head="linear").blocks == (12,)
    for layers in [(1, 2, 3), (1, 3, 2, 4), (0, 1, 2, 3), (1, 2, 3, 5)]:
        with pytest.raises(ValueError, match="four blocks from 1 to 4"):
            spec_of(layers=layers).blocks  # noqa: B018  # it raises
    fewer = segmenter(spec_of(width=16, layers=(1, 2, 2, 3)))
    assert len(fewer.encoder.blocks) == len(fewer.relative_position.tables) == 3


def test_one_image_at_a_time_cannot_train_batch_norm():
    with pytest.raises(ValueError, match="micro-batches of two"):
        segmenter().train()(IMAGES[:1])
    assert segmenter().eval()(IMAGES[:1]).logits.shape == (1, K, 64, 64)


def test_bfloat16_and_checkpointed_activations_change_little():
    labels = torch.randint(K, (2, 64, 64), generator=torch.Generator().manual_seed(0))
    losses, gradients = {}, {}
    for how in ("plain", "checkpointed", "bfloat16"):
        torch.manual_seed(0)
        model = segmenter().train()
        if how == "checkpointed":
            checkpoint_activations(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "bfloat16"):
            output = model(IMAGES)
        loss = segmentation_loss(output, labels)
        loss.total.backward()
        losses[how], gradients[how] = loss.total.detach(), model.relative_position.tables[0].grad
    assert torch.equal(losses["checkpointed"], losses["plain"])
    torch.testing.assert_close(gradients["checkpointed"], gradients["plain"])
    torch.testing.assert_close(losses["bfloat16"], losses["plain"], rtol=0.02, atol=0)
