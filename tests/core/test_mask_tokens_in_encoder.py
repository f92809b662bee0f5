"""The variant of Table 1c: the encoder sees mask tokens where patches are missing."""

import pytest
import timm
import torch
from torch import Tensor, nn

from tests_support import changed, mae_spec
from unmask.core.mae import MaskedAutoencoder

VARIANT = mae_spec(
    image_size=(12, 8), patch_size=(3, 2), channels=2, width=16, depth=2, heads=2,
    decoder_width=12, decoder_depth=2, decoder_heads=3, mask_ratio=0.7, mask_tokens_in_encoder=True,
)  # fmt: skip
PATCHES = 16

everywhere = pytest.mark.parametrize("loss_on", ["masked", "all"])


def build(**changes) -> MaskedAutoencoder:
    """No parameter at a special value."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(changed(VARIANT, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 2, 12, 8), torch.rand(3, PATCHES)


def encoded(model: MaskedAutoencoder, images: Tensor, noise: Tensor) -> Tensor:
    """What the decoder receives, class tokens and then patches in the order of the image."""
    seen = []
    hook = model.decoder.decoder_embed.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs))
    model(images, noise=noise)
    hook.remove()
    ((latent,),) = seen
    R = model.encoder.class_tokens
    order = model.mask(noise).decoded.argsort(dim=1)[..., None].expand(-1, -1, latent.shape[2])
    return torch.cat([latent[:, :R], latent[:, R:].gather(1, order)], dim=1)


def replacing(model: MaskedAutoencoder, noise: Tensor, embed: nn.Module) -> None:
    """From now on this patch embedding gives the mask token for every masked patch."""
    hidden = model.mask(noise).is_masked[..., None]
    embed.register_forward_hook(lambda _m, _i, out: torch.where(hidden, model.encoder_mask_token, out))


@pytest.mark.parametrize("class_tokens", [0, 1, 3])
@torch.no_grad()
def test_equals_our_plain_encoder_on_the_replaced_sequence(class_tokens):
    model, (images, noise) = build(class_tokens=class_tokens), batch()
    got = encoded(model, images, noise)
    replacing(model, noise, model.encoder.patch_embed)
    torch.testing.assert_close(got, model.encoder(images))


@torch.no_grad()
def test_equals_timms_encoder_on_the_replaced_sequence():
    model, (images, noise) = build(), batch()
    theirs = timm.models.VisionTransformer(
        img_size=(12, 8),
        patch_size=(3, 2),
        in_chans=2,
        embed_dim=16,
        depth=2,
        num_heads=2,
        num_classes=0,
    )
    theirs.load_state_dict(model.encoder.state_dict())
    replacing(model, noise, theirs.patch_embed)
    torch.testing.assert_close(
        encoded(model, images, noise), theirs.eval().forward_features(images), atol=1e-5, rtol=0
    )


@everywhere
@torch.no_grad()
def test_the_decoder_adds_positions_and_no_tokens(loss_on):
    model, (images, noise) = build(loss_on=loss_on), batch()
    output, decoder = model(images, noise=noise), model.decoder
    x = decoder.decoder_embed(encoded(model, images, noise)) + decoder.decoder_pos_embed
    for block in decoder.decoder_blocks:
        x = block(x)
    expected = decoder.decoder_pred(decoder.decoder_norm(x))[:, 1:]
    everything = model.reconstruct(images, noise)
    torch.testing.assert_close(everything, expected)
    masked = everything[output.is_masked].reshape(3, -1, 12)
    torch.testing.assert_close(output.prediction, masked, atol=1e-5, rtol=0)


def test_any_mask_ratio():
    model, (images, noise) = build(), batch()
    for ratio in (0.1, 0.5, 0.9):
        other = build(mask_ratio=ratio)
        assert torch.equal(model.reconstruct(images, noise, ratio), other.reconstruct(images, noise))
        assert other(images, noise=noise).loss.isfinite()


@everywhere
def test_masked_pixels_reach_nothing_but_the_target(loss_on):
    model, (images, noise) = build(loss_on=loss_on), batch()
    clean = model(images, noise=noise)
    hidden = clean.is_masked.reshape(3, 1, 4, 4).repeat_interleave(3, 2).repeat_interleave(2, 3)
    spoiled = torch.where(hidden, torch.nan, images)
    assert torch.equal(model(spoiled, noise=noise).prediction, clean.prediction)
    assert torch.equal(model.reconstruct(spoiled, noise), model.reconstruct(images, noise))


@everywhere
def test_gradients_reach_every_trainable_parameter(loss_on):
    model, (images, noise) = build(loss_on=loss_on), batch()
    model(images, noise=noise).loss.backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and parameter.grad.abs().max() > 1e-7
        assert reached == parameter.requires_grad, name


def test_the_token_moves_from_the_decoder_to_the_encoder():
    torch.manual_seed(0)
    variant = MaskedAutoencoder(changed(VARIANT, width=1024))
    usual = MaskedAutoencoder(changed(VARIANT, mask_tokens_in_encoder=False))
    assert set(usual.state_dict()) ^ set(variant.state_dict()) == {
        "decoder.mask_token",
        "encoder_mask_token",
    }
    assert variant.encoder_mask_token.std().item() == pytest.approx(0.02, rel=0.15)


def test_bfloat16_autocast():
    model, (images, noise) = build(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images, noise=noise)
    torch.testing.assert_close(output.loss, model(images, noise=noise).loss, rtol=0.03, atol=0)
