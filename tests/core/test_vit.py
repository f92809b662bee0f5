"""The encoder on whole images and on subsets of patches."""

import pytest
import torch

from unmask.core.masking import take
from unmask.core.spec import SIZES
from unmask.core.vit import VisionTransformer

GRID, PATCHES = (3, 4), 12


def encoder(**changes) -> VisionTransformer:
    """Tiny, not square, in float64, no parameter at a special value."""
    torch.manual_seed(0)
    options = {
        "image_size": (6, 16),
        "patch_size": (2, 4),
        "channels": 2,
        "width": 12,
        "depth": 2,
        "heads": 3,
    }
    model = VisionTransformer(**options | changes).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def images() -> torch.Tensor:
    return torch.randn(2, 2, 6, 16, dtype=torch.float64)


def shuffles(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, PATCHES).argsort(dim=1)


@pytest.mark.parametrize("class_tokens", [0, 1, 3])
def test_tokens(class_tokens):
    model, x = encoder(class_tokens=class_tokens), images()
    features = model(x)
    assert model.grid == GRID
    assert features.shape == (2, class_tokens + PATCHES, 12)
    everything = torch.arange(PATCHES).expand(2, -1)
    assert torch.equal(model.encode(model.patchify(x), everything), features)
    assert model.encode(model.patchify(x)[:, :5], everything[:, :5]).shape == (2, class_tokens + 5, 12)
    prefix = features[:, :class_tokens]
    assert len(prefix.unique(dim=1)[0]) == class_tokens, "class tokens should differ"


@pytest.mark.parametrize("class_tokens", [0, 1, 3])
def test_shuffled_patches_give_shuffled_features(class_tokens):
    model, x, order = encoder(class_tokens=class_tokens), images(), shuffles()
    straight = model(x)
    shuffled = model.encode(take(model.patchify(x), order), order)
    torch.testing.assert_close(shuffled[:, :class_tokens], straight[:, :class_tokens])
    torch.testing.assert_close(shuffled[:, class_tokens:], take(straight[:, class_tokens:], order))
    in_place = model.encode(take(model.patchify(x), order))
    assert not torch.allclose(in_place, shuffled), "positions do not matter"


def test_a_subset_is_the_whole_with_tokens_left_out():
    model, x, index = encoder(), images(), shuffles()[:, :5]
    tokens = model.embed(model.patchify(x))
    few = torch.cat([tokens[:, :1], take(tokens[:, 1:], index)], dim=1)
    expected = model.norm(model.blocks[1](model.blocks[0](few)))
    torch.testing.assert_close(model.encode(take(model.patchify(x), index), index), expected)


def test_embedding_is_the_convolution_plus_positions():
    model, x = encoder(class_tokens=3), images()
    convolved = model.patch_embed.proj(x).flatten(2).transpose(1, 2)
    whole = torch.cat([model.cls_token.expand(2, -1, -1), convolved], dim=1) + model.pos_embed
    torch.testing.assert_close(model.embed(model.patchify(x)), whole)


def test_drop_path_factors_reach_their_own_block():
    model, x = encoder(depth=3), images()
    keep = torch.ones(3, 2, 2)
    torch.testing.assert_close(model(x, keep=keep), model(x))
    keep[1] = 0
    without = model.embed(model.patchify(x))
    without = model.norm(model.blocks[2](model.blocks[0](without)))
    torch.testing.assert_close(model(x, keep=keep), without)


@pytest.mark.parametrize("shape", [(1, 2, 16, 6), (1, 3, 6, 16), (1, 2, 6, 20)])
def test_images_that_do_not_fit(shape):
    got = " x ".join(map(str, shape[1:]))
    with pytest.raises(ValueError, match=f"takes images of 2 x 6 x 16 and got {got} .* resize"):
        encoder()(torch.zeros(shape).double())


def test_initialisation():
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=(32, 32), patch_size=(8, 8), width=96, depth=1, heads=3, class_tokens=20
    )
    seen = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            seen += 1
            fan_out, fan_in = module.weight.flatten(1).shape
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert 0.99 * bound < module.weight.abs().max() <= bound, name
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05), name
            assert not module.bias.any(), name
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-6, name
    assert seen == 5
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.cls_token.mean().abs() < 0.002
    fixed = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert fixed == ["pos_embed"]


def test_the_patch_projection_starts_as_a_linear_layer_over_a_patch():
    model = VisionTransformer(image_size=(32, 32), patch_size=(16, 8), width=8, depth=0, heads=1)
    bound = (6 / (16 * 8 * 3 + 8)) ** 0.5
    assert 0.95 * bound < model.patch_embed.proj.weight.abs().max() <= bound


def test_the_papers_sizes():
    paper = {"base": (768, 12, 12, 16), "large": (1024, 24, 16, 16), "huge": (1280, 32, 16, 14)}
    for name, numbers in paper.items():
        assert tuple(SIZES[name][key] for key in ("width", "depth", "heads", "patch")) == numbers
