"""The whole method with every target, pixels that do not count, and partial decoding."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests_support import changed, mae_spec
from unmask.core.components import fit_pca
from unmask.core.mae import MAEOutput, MaskedAutoencoder
from unmask.core.masking import mask_from_noise, take
from unmask.core.spec import DecoderSpec, MAESpec, MaskSpec, TargetSpec

ENCODER = mae_spec(
    image_size=(12, 8), patch_size=(3, 2), channels=2, width=16, depth=2, heads=2, decoder_width=12
).encoder
PATCHES, VALUES = 16, 12

TARGETS = {
    "pixels": TargetSpec(kind="pixels"),
    "normalized-pixels": TargetSpec(),
    "pca": TargetSpec(kind="pca", components=5),
    "tokens": TargetSpec(kind="tokens", vocabulary=7),
}
kinds = pytest.mark.parametrize("kind", TARGETS)


def build(kind: str = "normalized-pixels", loss_on: str = "masked", **mask) -> MaskedAutoencoder:
    torch.manual_seed(0)
    asked = TargetSpec(**{**vars(TARGETS[kind]), "loss_on": loss_on})
    decoder = DecoderSpec(width=12, depth=2, heads=3)
    model = MAESpec(encoder=ENCODER, decoder=decoder, mask=MaskSpec(**mask), target=asked).build()
    if kind == "pca":
        model.target.fit(fit_pca(torch.randn(80, VALUES), 5))
    return model


def batch(kind: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    images, given = torch.randn(3, 2, 12, 8), {"noise": torch.rand(3, PATCHES)}
    if kind == "tokens":
        given["wanted"] = torch.randint(7, (3, PATCHES))
    return images, given


@kinds
@pytest.mark.parametrize("loss_on", ["masked", "all"])
@pytest.mark.parametrize("tokens_in_encoder", [False, True])
def test_every_target_trains(kind, loss_on, tokens_in_encoder):
    model = build(kind, loss_on, tokens_in_encoder=tokens_in_encoder)
    images, given = batch(kind)
    first = model(images, **given)
    assert first.prediction.shape == (3, 12, TARGETS[kind].outputs(VALUES))
    assert first.patches == 3 * (12 if loss_on == "masked" else PATCHES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(8):
        optimizer.zero_grad()
        model(images, **given).loss.backward()
        optimizer.step()
    assert model(images, **given).loss < first.loss


def test_the_loss_on_coefficients_by_hand():
    model, (images, given) = build("pca"), batch("pca")
    output = model(images, **given)
    centred = model.encoder.patchify(images) - model.target.mean
    wanted = (centred @ model.target.basis.mT)[output.is_masked].reshape(3, -1, 5)
    torch.testing.assert_close(output.loss, (output.prediction - wanted).square().mean())


def test_tokens_without_their_ids():
    with pytest.raises(ValueError, match="give the model their ids as `wanted`"):
        build("tokens")(batch("pixels")[0])
    with pytest.raises(ValueError, match="wanted is for 3 images of 4 patches"):
        build("tokens")(batch("pixels")[0], wanted=torch.zeros(3, 4, dtype=torch.int64))


# Pixels that do not count


def gradients(model: MaskedAutoencoder, output: MAEOutput) -> dict[str, torch.Tensor]:
    model.zero_grad()
    output.loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@kinds
@pytest.mark.parametrize("loss_on", ["masked", "all"])
@given(
    seed=st.integers(0, 1000), share=st.sampled_from([0.1, 0.5, 0.95]), channels=st.sampled_from([1, 2])
)
@settings(max_examples=6, deadline=None, derandomize=True)
def test_the_value_of_a_pixel_without_data_changes_nothing(kind, loss_on, seed, share, channels):
    model, (images, given) = build(kind, loss_on), batch(kind)
    g = torch.Generator().manual_seed(seed)
    valid = torch.rand(3, channels, 12, 8, generator=g) >= share
    outputs = []
    for filler in (0.0, 1e6, math.nan):
        spoiled = images.where(valid, torch.full_like(images, filler))
        output = model(spoiled, **given, valid=valid)
        outputs.append((output.loss, output.patches, gradients(model, output)))
    for loss, patches, slopes in outputs[1:]:
        assert torch.equal(loss, outputs[0][0])
        assert torch.equal(patches, outputs[0][1])
        assert all(torch.equal(slope, outputs[0][2][name]) for name, slope in slopes.items())
    assert all(slope.isfinite().all() for slope in outputs[0][2].values())


@kinds
def test_with_all_pixels_valid_the_loss_is_the_usual_one(kind):
    model, (images, given) = build(kind), batch(kind)
    everything = torch.ones(3, 1, 12, 8, dtype=torch.bool)
    usual, printed = model(images, **given), model(images, **given, valid=everything)
    torch.testing.assert_close(printed.loss, usual.loss)
    assert printed.patches == usual.patches


def test_parts_of_a_batch_weigh_what_counts_in_them():
    model, (images, given) = build("pixels"), batch("pixels")
    valid = torch.rand(3, 1, 12, 8) < torch.tensor([0.2, 0.9, 0.5])[:, None, None, None]
    whole = model(images, **given, valid=valid)
    parts = [
        model(images[i : i + 1], noise=given["noise"][i : i + 1], valid=valid[i : i + 1])
        for i in range(3)
    ]
    total = sum(part.patches for part in parts)
    torch.testing.assert_close(whole.patches, total)
    torch.testing.assert_close(whole.loss, sum(part.loss * part.patches for part in parts) / total)


# Partial decoding


@pytest.mark.parametrize(("share", "count"), [(1.0, 12), (0.5, 6), (0.25, 3), (0.01, 1)])
@pytest.mark.parametrize("tokens_in_encoder", [False, True])
def test_the_decoder_predicts_its_share(share, count, tokens_in_encoder):
    model = build(decode_share=share, tokens_in_encoder=tokens_in_encoder)
    images, given = batch("pixels")
    seen = []
    model.decoder.decoder_blocks[0].register_forward_hook(
        lambda _m, inputs, _o: seen.append(inputs[0].shape)
    )
    output = model(images, **given)
    assert seen == [(3, 1 + 4 + count, 12)]
    assert output.prediction.shape == (3, count, VALUES)
    assert output.is_masked.sum(dim=1).tolist() == [12] * 3
    assert output.patches == 3 * count
    assert model.spec.predicted == count


def test_predicted_are_the_masked_patches_with_the_smallest_noise():
    model, (images, given) = build(decode_share=0.5), batch("pixels")
    order = given["noise"].argsort(dim=1)
    mask = model.mask(given["noise"], partial=True)
    assert torch.equal(mask.predicted, order[:, 4:10].sort(dim=1).values)
    wanted = model.target.wanted(take(model.encoder.patchify(images), mask.predicted))
    output = model(images, **given)
    torch.testing.assert_close(output.loss, (output.prediction - wanted).square().mean())


def test_a_prediction_does_not_depend_on_mask_tokens_that_are_left_out():
    """The other masked patches are nowhere: the pictures predict all, and so do differ."""
    model, (images, given) = build(decode_share=0.5), batch("pixels")
    whole = build(decode_share=1.0)
    assert model.reconstruct(images, given["noise"]).shape == (3, PATCHES, VALUES)
    assert torch.equal(
        model.reconstruct(images, given["noise"]), whole.reconstruct(images, given["noise"])
    )


@given(n=st.integers(2, 60), data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_predicted_patches_are_masked_ones(n, data):
    kept = data.draw(st.integers(1, n - 1))
    predicted = data.draw(st.integers(1, n - kept))
    noise = torch.rand(2, n, generator=torch.Generator().manual_seed(n))
    mask = mask_from_noise(noise, (1, n), kept, predicted=predicted)
    for b in range(2):
        chosen = set(mask.predicted[b].tolist())
        assert len(chosen) == predicted
        assert chosen <= set(mask.masked[b].tolist())
        assert noise[b, sorted(chosen)].max() <= noise[b, mask.masked[b]].sort().values[predicted - 1]


# What does not fit together


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MaskSpec(strategy="grid", ratio=0.5), "choose --mask.ratio 0.75"),
        (lambda: MaskSpec(strategy="block", unit=2), "choose --mask.unit 1"),
        (lambda: MaskSpec(decode_share=0.0), "choose --mask.decode-share above 0"),
        (lambda: MaskSpec(strategy="block", ratio=0.99).visible((7, 7)), "choose a ratio"),
        (lambda: MaskSpec(strategy="given", given=(0, 50)).visible((7, 7)), "not for a grid of 7 x 7"),
        (lambda: TargetSpec(kind="pca", components=0), "--target.components 1 or more"),
        (lambda: TargetSpec(kind="pca", components=13).outputs(12), "12 values has no 13 PCA"),
        (lambda: TargetSpec(kind="tokens"), "--target.tokenizer RUN"),
        (lambda: build(loss_on="all", decode_share=0.5), "choose --mask.decode-share 1"),
        (lambda: changed(build().spec, image_size=(3, 2), patch_size=(1, 1), channels=1), "one value"),
    ],
)
def test_objectives_that_do_not_fit_together(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_an_eighth_of_the_values_by_default():
    assert TargetSpec(kind="pca").outputs(768) == 96
    assert TargetSpec(kind="pca").outputs(5) == 1


@pytest.mark.parametrize(("grid", "kept"), [((14, 14), 49), ((7, 7), 16), ((3, 4), 4), ((1, 2), 1)])
def test_a_grid_keeps_even_rows_and_columns(grid, kept):
    assert MaskSpec(strategy="grid").visible(grid) == kept
