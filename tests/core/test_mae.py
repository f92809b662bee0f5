"""The whole method on tiny images that are not square."""

import pytest
import torch

from tests_support import changed, mae_spec
from unmask.core.mae import MaskedAutoencoder
from unmask.core.masking import take

TINY = mae_spec(
    image_size=(12, 8), patch_size=(3, 2), channels=2, width=16, depth=2, heads=2,
    decoder_width=12, decoder_depth=2, decoder_heads=3, mask_ratio=0.7,
)  # fmt: skip
PATCHES = 16

everywhere = pytest.mark.parametrize("loss_on", ["masked", "all"])
targets = pytest.mark.parametrize("target", ["pixels", "normalized-pixels"])


def build(**changes) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(changed(TINY, **changes))


def batch(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 2, 12, 8), torch.rand(count, PATCHES)


@everywhere
@targets
def test_loss_by_hand(loss_on, target):
    model, (images, noise) = build(loss_on=loss_on, target=target), batch()
    output, everything = model(images, noise=noise), model.reconstruct(images, noise)

    wanted = model.encoder.patchify(images)
    if target == "normalized-pixels":
        wanted = (wanted - wanted.mean(-1, keepdim=True)) / (wanted.var(-1, keepdim=True) + 1e-6).sqrt()
    error = (everything - wanted).square().mean(-1)
    counted = error[output.is_masked] if loss_on == "masked" else error
    torch.testing.assert_close(output.loss, counted.mean())
    masked = everything[output.is_masked].reshape(3, -1, 12)
    torch.testing.assert_close(output.prediction, masked, atol=1e-5, rtol=0)


@everywhere
def test_a_given_target_replaces_the_architectures(loss_on):
    model, (images, noise) = build(loss_on=loss_on), batch()
    target = torch.randn(3, PATCHES, 12)
    output = model(images, noise=noise, wanted=target)
    error = (model.reconstruct(images, noise) - target).square().mean(-1)
    counted = error[output.is_masked] if loss_on == "masked" else error
    torch.testing.assert_close(output.loss, counted.mean())
    own = model.target.wanted(model.encoder.patchify(images))
    assert torch.equal(model(images, noise=noise, wanted=own).loss, model(images, noise=noise).loss)


def test_noise_decides_the_mask():
    model, (images, noise) = build(), batch()
    output = model(images, noise=noise)
    kept = noise.argsort(dim=1)[:, : int(PATCHES * (1 - 0.7))]
    assert torch.equal(
        output.is_masked, torch.ones(3, PATCHES, dtype=torch.bool).scatter(1, kept, False)
    )
    assert output.prediction.shape == (3, PATCHES - kept.shape[1], 12)


def test_without_noise_the_global_generator_draws_it():
    model, (images, _) = build(), batch()
    torch.manual_seed(5)
    drawn = model(images)
    torch.manual_seed(5)
    given = model(images, noise=torch.rand(3, PATCHES))
    assert torch.equal(drawn.is_masked, given.is_masked)
    assert torch.equal(drawn.loss, given.loss)
    assert not torch.equal(model(images).is_masked, drawn.is_masked)


@everywhere
def test_two_calls_are_equal_bit_for_bit_in_training_and_evaluation(loss_on):
    model, (images, noise) = build(loss_on=loss_on), batch()
    first, again = model.train()(images, noise=noise), model.eval()(images, noise=noise)
    for a, b in zip(first[:3], again[:3], strict=True):
        assert torch.equal(a, b)


@everywhere
def test_masked_pixels_reach_nothing_but_the_target(loss_on):
    model, (images, noise) = build(loss_on=loss_on), batch()
    clean = model(images, noise=noise)
    hidden = clean.is_masked.reshape(3, 1, 4, 4).repeat_interleave(3, 2).repeat_interleave(2, 3)
    for filler in (torch.randn_like(images), torch.full_like(images, torch.nan)):
        spoiled = torch.where(hidden, filler, images)
        assert torch.equal(model(spoiled, noise=noise).prediction, clean.prediction)
        assert torch.equal(model.reconstruct(spoiled, noise), model.reconstruct(images, noise))
    other = torch.where(hidden, images, images + 0.1)
    assert not torch.allclose(model(other, noise=noise).prediction, clean.prediction)


def test_reconstruct_at_another_mask_ratio():
    model, (images, noise) = build(), batch()
    other = build(mask_ratio=0.3)
    assert torch.equal(model.reconstruct(images, noise, 0.3), other.reconstruct(images, noise))
    assert not torch.allclose(model.reconstruct(images, noise, 0.3), model.reconstruct(images, noise))
    with pytest.raises(ValueError, match="choose a ratio"):
        model.reconstruct(images, noise, 0.99)


def test_mask_units():
    model, (images, noise) = build(mask_unit=2, mask_ratio=0.5), batch()
    squares = model(images, noise=noise).is_masked.reshape(3, 2, 2, 2, 2).transpose(2, 3).flatten(3)
    assert (squares == squares[..., :1]).all()
    assert squares[..., 0].sum(dim=(1, 2)).tolist() == [2, 2, 2]


def test_overfitting_one_batch():
    model = build(channels=1)
    images, noise = torch.rand(2, 1, 12, 8), torch.rand(2, PATCHES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        loss = model(images, noise=noise).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@everywhere
@pytest.mark.parametrize("class_tokens", [0, 1, 3])
def test_gradients_reach_every_trainable_parameter(loss_on, class_tokens):
    model, (images, noise) = build(loss_on=loss_on, class_tokens=class_tokens), batch()
    model(images, noise=noise).loss.backward()
    fixed = {"encoder.pos_embed", "decoder.decoder_pos_embed"}
    for name, parameter in model.named_parameters():
        if name in fixed:
            assert parameter.grad is None, name
        elif parameter.numel():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 1e-7, name


@everywhere
def test_bfloat16_autocast(loss_on):
    model, (images, noise) = build(loss_on=loss_on), batch()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images, noise=noise)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    exact = model(images, noise=noise)
    assert torch.equal(output.is_masked, exact.is_masked)
    torch.testing.assert_close(output.loss, exact.loss, rtol=0.02, atol=0)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@targets
def test_uniform_images_have_a_finite_loss(target):
    output = build(target=target)(torch.full((2, 2, 12, 8), 0.5))
    assert output.loss.isfinite()


def test_the_encoder_sees_the_visible_patches_only():
    model, (images, noise) = build(), batch()
    seen = []
    model.encoder.blocks[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    model(images, noise=noise)
    visible = model.mask(noise).visible
    assert seen == [(3, 1 + visible.shape[1], 16)]
    latent = model.encoder.encode(take(model.encoder.patchify(images), visible), visible)
    assert torch.equal(model(images, noise=noise).prediction, model.decoder(latent, model.mask(noise)))


@pytest.mark.parametrize("shape", [(1, 2, 8, 12), (1, 3, 12, 8)])
def test_images_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"takes images of 2 x 12 x 8 .* resize the images"):
        build()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mask_ratio": 0.95}, "mask ratio of 0.95 keeps 0 of 16 .* choose a ratio"),
        ({"mask_ratio": 0.0}, "mask ratio of 0.0 keeps 16 of 16 .* choose a ratio"),
        ({"mask_unit": 3}, "3 x 3 patches do not tile a grid of 4 x 4 .* choose a mask unit"),
        ({"patch_size": (5, 2)}, "patch of 5 pixels does not divide .* height of 12: .* 10 as height"),
        ({"width": 18, "heads": 2}, "18 is not: choose 16 or 20"),
        ({"heads": 3}, "3 heads do not divide a width of 16: change"),
        ({"decoder_width": 14, "decoder_heads": 2}, "14 is not: choose 12 or 16"),
        ({"decoder_heads": 5}, "5 heads do not divide a width of 12: change"),
        ({"decoder_depth": 0}, "choose a decoder depth of 1 or more"),
    ],
)
def test_architectures_that_do_not_fit_together(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(**changes)
