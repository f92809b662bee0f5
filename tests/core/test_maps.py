"""Maps of blocks: the encoder's own features, at any size, in windows, with bias and padding."""

import pytest
import torch
import torch.nn.functional as F

from unmask.core import VisionTransformer
from unmask.core.blocks import checkpoint_activations
from unmask.core.position import interpolate_positions

PATCH = 4


def encoder(**changes) -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"image_size": (16, 24), "patch_size": (PATCH, PATCH), "width": 32, "depth": 4, "heads": 2}
    made = VisionTransformer(**{**sizes, **changes})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


@pytest.mark.parametrize("tokens", [0, 1])
def test_without_windows_or_bias_they_are_the_encoders_own_features(tokens):
    vit, images = encoder(class_tokens=tokens), torch.randn(2, 3, 16, 24)
    for layer, found in zip([2, 4], vit.maps(images, [2, 4]), strict=True):
        features = vit.features(images, pool="patches", layer=layer)
        assert found.equal(features.mT.unflatten(2, (4, 6)))


def test_leaving_class_tokens_out_is_an_encoder_without_them():
    with_token, without = encoder(), encoder(class_tokens=0)
    state = {n: v for n, v in with_token.state_dict().items() if n != "cls_token"}
    state["pos_embed"] = state["pos_embed"][:, 1:]
    without.load_state_dict(state, strict=False)
    images = torch.randn(2, 3, 16, 24)
    (found,), (wanted,) = with_token.maps(images, [3], class_tokens=False), without.maps(images, [3])
    assert found.equal(wanted)


def test_another_size_is_an_encoder_of_that_size():
    vit, larger = encoder(), encoder(image_size=(20, 28))
    state = {**vit.state_dict(), "pos_embed": interpolate_positions(vit.pos_embed, (4, 6), (5, 7))}
    larger.load_state_dict(state)
    images = torch.randn(2, 3, 18, 25)
    whole = F.pad(images, (0, 3, 0, 2))
    (found,), (wanted,) = vit.maps(images, [4]), larger.maps(whole, [4])
    assert found.equal(wanted)
    assert found.shape == (2, 32, 5, 7)


def test_blocks_use_their_own_window_and_bias_and_go_on_from_each_other():
    vit, images = encoder(), torch.randn(2, 3, 16, 24)
    bias = [torch.randn(1, 2, 4, 4), lambda q: q[..., :1] * torch.ones(24)]
    found = vit.maps(images, [1, 2], class_tokens=False, windows=[2, None], bias=bias)
    x = vit.embed(vit.patchify(images))[:, 1:]
    x = vit.blocks[0](x, window=((4, 6), 2), bias=bias[0])
    assert found[0].equal(x.mT.unflatten(2, (4, 6)))
    assert found[1].equal(vit.blocks[1](x, bias=bias[1]).mT.unflatten(2, (4, 6)))


@pytest.mark.parametrize("windows", [None, [3, 3, None, 3]])
@pytest.mark.parametrize("with_bias", [False, True])
def test_padding_changes_nothing_inside(windows, with_bias):
    vit, images = encoder(image_size=(32, 40)), torch.randn(2, 3, 14, 21)
    bias = [lambda q: q.mean(dim=-1, keepdim=True)] * 4 if with_bias else None
    options = {"class_tokens": False, "windows": windows, "bias": bias, "canvas": (32, 40)}
    alone = vit.maps(images, [2, 4], **options)
    padded = F.pad(images, (0, 17, 0, 12))
    padded[:, :, 16:], padded[:, :, :, 24:] = 5.0, -3.0
    valid = torch.zeros(2, 7, 10, dtype=torch.bool)
    valid[:, :4, :6] = True
    for small, large in zip(alone, vit.maps(padded, [2, 4], valid=valid, **options), strict=True):
        assert small.shape == (2, 32, 4, 6)
        torch.testing.assert_close(large[:, :, :4, :6], small, atol=1e-5, rtol=1e-4)
        assert large.isfinite().all()


def test_what_fills_windows_up_is_not_attended_to():
    vit, images = encoder(), torch.randn(1, 3, 8, 12)
    one_window = vit.maps(images, [4], class_tokens=False, windows=[5] * 4)
    torch.testing.assert_close(one_window, vit.maps(images, [4], class_tokens=False))


def test_class_tokens_are_seen_beside_padding():
    vit, images = encoder(image_size=(32, 40)), torch.randn(1, 3, 16, 24)
    padded, valid = F.pad(images, (0, 8)), torch.ones(1, 4, 8, dtype=torch.bool)
    valid[..., 6:] = False
    (small,), (large,) = (
        vit.maps(images, [4], canvas=(32, 40)),
        vit.maps(padded, [4], valid=valid, canvas=(32, 40)),
    )
    torch.testing.assert_close(large[..., :6], small, atol=1e-5, rtol=1e-4)


def test_checkpointing_changes_no_gradient():
    images, scale = torch.randn(2, 3, 15, 24), torch.tensor(0.3, requires_grad=True)

    def gradients(recompute: bool) -> list[torch.Tensor]:
        vit = encoder()
        if recompute:
            checkpoint_activations(vit)
        options = {"windows": [3, None, 3, None], "bias": [lambda q: q[..., :1] * scale] * 4}
        maps = vit.maps(images, [2, 4], class_tokens=False, **options)
        loss = sum(x.square().mean() for x in maps)
        return torch.autograd.grad(loss, [scale, *vit.blocks.parameters()])

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_drop_path_reaches_its_block():
    vit, images = encoder(), torch.randn(2, 3, 16, 24)
    keep = torch.ones(4, 2, 2)
    keep[1] = 0
    first, second = vit.maps(images, [1, 2], keep=keep)
    assert first.equal(second)
