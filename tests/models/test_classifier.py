"""The classifier equals timm's, drop path has the right rates, and only what is asked for is tuned."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import calculate_drop_path_rates

from unmask.core.vit import VisionTransformer
from unmask.models.classifier import Classifier, drop_path_keep, set_trainable

DIMENSIONS = {"width": 24, "depth": 3, "heads": 3}
CLASSES = 5


def encoder(**changes) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**{"image_size": (16, 24), "patch_size": (4, 4), **DIMENSIONS, **changes})


def classifier(pool: str = "mean", **options) -> Classifier:
    return Classifier(encoder(), classes=CLASSES, pool=pool, **options)


def disturbed(model: Classifier) -> Classifier:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize(("pool", "theirs"), [("class", "token"), ("mean", "avg")])
def test_equals_timm(pool, theirs):
    ours = disturbed(classifier(pool))
    set_trainable(ours, None)
    other = timm.models.VisionTransformer(
        img_size=(16, 24), patch_size=4, embed_dim=24, depth=3, num_heads=3, num_classes=CLASSES,
        global_pool=theirs,
    )  # fmt: skip
    names = {name.removeprefix("encoder."): value for name, value in ours.state_dict().items()}
    other.load_state_dict(names, strict=True)
    images, labels = torch.randn(4, 3, 16, 24), torch.tensor([0, 1, 4, 2])
    logits, expected = ours(images), other.eval()(images)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    gradients = {n.removeprefix("encoder."): p.grad for n, p in ours.named_parameters()}
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=0)
    assert ours.head.weight.grad.abs().max() > 1e-3


def test_new_heads():
    torch.manual_seed(0)
    wide = encoder(width=384, heads=6)
    tuned = Classifier(wide, classes=100, pool="class").head
    probe = Classifier(wide, classes=100, pool="class", normalize_features=True).head
    assert tuned.weight.std().item() == pytest.approx(2e-5, rel=0.03)
    assert probe.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert tuned.bias.eq(0).all()
    assert probe.bias.eq(0).all()


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_probe_normalises_the_features(pool):
    model = disturbed(classifier(pool, normalize_features=True))
    images = torch.randn(32, 3, 16, 24) * torch.rand(32, 1, 1, 1)
    features = model.pooled(images)
    expected = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(model(images), model.head(expected), atol=1e-5, rtol=1e-5)


def test_folded_head_is_norm_and_head_in_one():
    model = disturbed(classifier(normalize_features=True))
    for _ in range(3):
        model(torch.randn(8, 3, 16, 24))
    model.eval()
    images = torch.randn(4, 3, 16, 24)
    weight, bias = model.folded_head()
    torch.testing.assert_close(
        F.linear(model.pooled(images), weight, bias), model(images), atol=1e-5, rtol=1e-5
    )
    plain = classifier()
    assert plain.folded_head()[0] is plain.head.weight


def test_class_tokens_are_not_among_the_patches():
    model = Classifier(encoder(class_tokens=2), classes=CLASSES, pool="mean").eval()
    tokens = model.encoder(images := torch.randn(2, 3, 16, 24))
    torch.testing.assert_close(model.pooled(images), model.fc_norm(tokens[:, 2:].mean(1)))
    with pytest.raises(ValueError, match="no class token"):
        Classifier(encoder(class_tokens=0), classes=CLASSES, pool="class")
    bare = Classifier(encoder(class_tokens=0), classes=CLASSES, pool="mean")
    assert bare(images).shape == (2, CLASSES)


def test_drop_path_rises_linearly_as_in_timm():
    keep = drop_path_keep(5, 0.4, 40_000, np.random.default_rng(0))
    assert keep.shape == (5, 2, 40_000)
    expected = torch.tensor(calculate_drop_path_rates(0.4, 5))[:, None].expand(5, 2)
    torch.testing.assert_close(keep.eq(0).float().mean(2), expected, atol=0.01, rtol=0)
    torch.testing.assert_close(keep.mean(2), torch.ones(5, 2), atol=0.02, rtol=0)
    assert keep[0].eq(1).all()
    assert (keep[3, 0] != keep[3, 1]).any()
    assert drop_path_keep(3, 0.0, 4, np.random.default_rng(0)).eq(1).all()
    assert drop_path_keep(1, 0.5, 4, np.random.default_rng(0)).eq(1).all()
    with pytest.raises(ValueError, match="not in"):
        drop_path_keep(3, 1.0, 4, np.random.default_rng(0))


def test_drop_path_reaches_the_blocks():
    model, images = disturbed(classifier()), torch.randn(2, 3, 16, 24)
    ones = torch.ones(3, 2, 2)
    assert model(images, keep=ones).equal(model(images))
    dropped = ones.clone()
    dropped[1, 1, 0] = 0
    changed = (model(images, keep=dropped) != model(images)).any(dim=1)
    assert changed.tolist() == [True, False]


HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("blocks", "inside"),
    [
        (0, set()),
        (0.5, {"blocks.2.norm2", "blocks.2.mlp"}),
        (1, {"blocks.2"}),
        (1.5, {"blocks.2", "blocks.1.norm2", "blocks.1.mlp"}),
        (3, {"blocks.0", "blocks.1", "blocks.2"}),
    ],
)
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_only_so_many_blocks_are_tuned(pool, blocks, inside):
    model = classifier(pool)
    trained = set_trainable(model, blocks)
    norm = "encoder.norm." if pool == "class" else "fc_norm."
    expected = {
        name
        for name, _ in model.named_parameters()
        if name in HEAD
        or (blocks and name.startswith(norm))
        or any(name.startswith(f"encoder.{part}.") for part in inside)
    }
    assert set(trained) == expected
    model(torch.randn(2, 3, 16, 24)).sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == expected
    assert set(set_trainable(model, None)) == {name for name, _ in model.named_parameters()}
    assert model.encoder.pos_embed.requires_grad


def test_twelve_blocks_are_not_one():
    model = Classifier(encoder(depth=12), classes=CLASSES, pool="mean")
    tuned = {name.split(".")[2] for name in set_trainable(model, 11) if ".blocks." in name}
    assert tuned == {str(i) for i in range(1, 12)}


@pytest.mark.parametrize("blocks", [-1, 0.25, 3.5, 4])
def test_other_numbers_of_blocks_are_refused(blocks):
    with pytest.raises(ValueError, match="this encoder has 3"):
        set_trainable(classifier(), blocks)
