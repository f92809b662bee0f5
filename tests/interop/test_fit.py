"""Weights for another image size, patch size or number of channels."""

from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F

from tests_support import assert_same_state, changed, mae_spec, random_weights
from unmask import api
from unmask.core.mae import MAEOutput, MaskedAutoencoder
from unmask.core.spec import MAESpec
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.export import export_weights, random_input
from unmask.interop.fit import (
    adapt_inputs,
    adapt_outputs,
    at_size,
    fit,
    interpolate_positions,
    resize_outputs,
    resize_projection,
)
from unmask.interop.weights import build, initialize_from

RGB = mae_spec(
    image_size=(32, 48), patch_size=(8, 8), channels=3, width=24, depth=2, heads=3,
    decoder_width=16, decoder_depth=1, decoder_heads=2, mask_ratio=0.5, target="pixels",
)  # fmt: skip


def fitted(**changes) -> MaskedAutoencoder:
    """A model with these dimensions, of RGB's weights."""
    model = MaskedAutoencoder(changed(RGB, **changes))
    initialize_from(model, random_weights(RGB), "x")
    return model.eval()


def sentence(model_of: MAESpec, weights_of: MAESpec = RGB, **description) -> str:
    model = MaskedAutoencoder(model_of)
    return initialize_from(model, random_weights(weights_of, **description), "runs/x")


def test_what_fits_is_untouched():
    weights = random_weights(RGB)
    state, messages = fit(weights, RGB)
    assert messages == []
    assert all(state[name] is value for name, value in weights.state.items())
    assert sentence(RGB) == "encoder and decoder start from runs/x"


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_positions_as_timm_interpolates_them(prefix):
    table = torch.randn(1, prefix + 4 * 6, 12)
    found = interpolate_positions(table, (4, 6), (3, 10))
    wanted = timm.layers.resample_abs_pos_embed(
        table, [3, 10], old_size=[4, 6], num_prefix_tokens=prefix, antialias=False
    )
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    assert found[:, :prefix].equal(table[:, :prefix])


@pytest.mark.parametrize("new", [(16, 16), (5, 5), (4, 12)])
def test_patches_as_timm_resizes_them(new):
    kernel = torch.randn(6, 3, 8, 8)
    wanted = timm.layers.resample_patch_embed(kernel, list(new))
    torch.testing.assert_close(resize_projection(kernel, new), wanted, atol=1e-5, rtol=0)


def test_enlarged_patches_give_what_the_patches_gave():
    kernel, patches = torch.randn(6, 3, 8, 8), torch.randn(2, 3, 8, 8)
    larger = F.interpolate(patches, size=(16, 12), mode="bicubic", antialias=True)
    found = F.conv2d(larger, resize_projection(kernel, (16, 12)))
    torch.testing.assert_close(found, F.conv2d(patches, kernel), atol=1e-4, rtol=1e-4)


def test_drawn_patches_are_resized():
    (p, q), new, channels = (8, 4), (4, 6), 3
    weight, bias, x = torch.randn(p * q * channels, 5), torch.randn(p * q * channels), torch.randn(5)
    drawn = (weight @ x + bias).view(p, q, channels).permute(2, 0, 1)[None]
    wanted = F.interpolate(drawn, size=new, mode="bicubic", antialias=True)[0]
    found = resize_outputs(weight, (p, q), new) @ x + resize_outputs(bias, (p, q), new)
    torch.testing.assert_close(found.view(*new, channels).permute(2, 0, 1), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("had", "channels"), [(3, 1), (1, 3), (4, 1)])
def test_channels_as_timm_adapts_them(had, channels):
    kernel = torch.randn(6, had, 4, 4)
    wanted = timm.models.adapt_input_conv(channels, kernel.clone(), base_chans=had)
    torch.testing.assert_close(adapt_inputs(kernel, channels), wanted, atol=1e-6, rtol=0)


def test_grey_images_give_what_their_colour_copies_gave():
    colour, grey = build(random_weights(RGB)), fitted(channels=1)
    images, noise = random_input(changed(RGB, channels=1).encoder)
    with torch.no_grad():
        wanted = colour.reconstruct(images.expand(-1, 3, -1, -1), noise)
        found = grey.reconstruct(images, noise)
    torch.testing.assert_close(found, wanted.unflatten(2, (64, 3)).mean(dim=3), atol=1e-5, rtol=0)


def test_rgb_weights_go_to_the_bands_that_are_displayed():
    """Sentinel-2's order: blue, green, red are its bands 2, 3 and 4."""
    kernel = torch.randn(6, 3, 4, 4)
    found = adapt_inputs(kernel, 10, (4, 3, 2)) * 10 / 3
    mean = kernel.mean(dim=1)
    for band in range(10):
        wanted = {3: kernel[:, 0], 2: kernel[:, 1], 1: kernel[:, 2]}.get(band, mean)
        torch.testing.assert_close(found[:, band], wanted)
    weight = torch.randn(4 * 3, 5)
    outputs = adapt_outputs(weight, 3, 5, (5, 1, 2)).unflatten(0, (4, 5))
    colours = weight.unflatten(0, (4, 3))
    torch.testing.assert_close(outputs[:, [4, 0, 1]], colours)
    torch.testing.assert_close(outputs[:, 2], colours.mean(dim=1))


@pytest.mark.parametrize("display", [None, (4, 3, 2)])
@pytest.mark.parametrize("channels", [4, 10])
def test_an_image_equal_in_all_bands_gives_what_grey_gave(channels, display):
    """Summed in double precision: single gives errors as large as the bound now and then."""
    kernel, grey = torch.randn(6, 3, 4, 4), torch.randn(1, 1, 4, 4).double()
    wanted = F.conv2d(grey.expand(-1, 3, -1, -1), kernel.double())
    adapted = adapt_inputs(kernel, channels, display).double()
    found = F.conv2d(grey.expand(-1, channels, -1, -1), adapted)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_without_display_every_band_starts_from_the_mean():
    kernel = torch.randn(6, 3, 4, 4)
    found = adapt_inputs(kernel, 5)
    torch.testing.assert_close(found, kernel.mean(dim=1, keepdim=True).expand_as(found) * 3 / 5)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"image_size": (48, 80)}, "positions interpolated from 4 x 6 to 6 x 10"),
        ({"patch_size": (4, 4), "image_size": (16, 24)}, "patches resized from 8 x 8 to 4 x 4 pixels"),
        (
            {"patch_size": (4, 8)},
            "patches resized from 8 x 8 to 4 x 8 pixels; positions interpolated from 4 x 6 to 8 x 6",
        ),
        ({"channels": 1}, "input weights of 3 channels summed into one"),
        (
            {"channels": 4},
            "each of 4 channels starts from the mean of the input weights of 3 (--data.display RED "
            "GREEN BLUE gives these bands the weights of their colours)",
        ),
        (
            {"target": "normalized-pixels"},
            "the decoder has learned pixels and goes on with normalized-pixels",
        ),
    ],
)
def test_what_is_changed_is_said(changes, wanted):
    spec = changed(RGB, **changes)
    assert sentence(spec) == f"encoder and decoder start from runs/x; {wanted}"
    images, noise = random_input(spec.encoder)
    output = fitted(**changes)(images, noise=noise)
    assert isinstance(output, MAEOutput)
    assert output.loss.isfinite()


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"decoder_width": 8}, "the weights' has width 16, and the model's width 8"),
        (
            {"decoder_depth": 2, "decoder_heads": 4},
            "the weights' has blocks 1, heads 2, and the model's blocks 2, heads 4",
        ),
        ({"mask_tokens_in_encoder": True}, "since mask tokens are on the other side"),
        ({"decoder": replace(RGB.decoder, mlp_ratio=2.0)}, "its MLPs are of another width"),
    ],
)
def test_another_decoder_is_new(changes, wanted):
    spec = replace(RGB, **changes) if "decoder" in changes else changed(RGB, **changes)
    model = MaskedAutoencoder(spec)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = random_weights(RGB)
    printed = initialize_from(model, weights, "x")
    assert printed.startswith("the encoder starts from x; decoder initialised randomly")
    assert wanted in printed
    after = model.state_dict()
    assert_same_state(
        {n: v for n, v in after.items() if n.startswith("encoder.")}, weights.encoder_only().state
    )
    assert all(after[n].equal(v) for n, v in before.items() if not n.startswith("encoder."))


def test_encoder_alone():
    model = MaskedAutoencoder(changed(RGB, image_size=(16, 16)))
    weights = random_weights(RGB, notes=("the classification head was left out",)).encoder_only()
    assert initialize_from(model, weights, "x") == (
        "the encoder starts from x; decoder, which it does not have, initialised randomly; positions "
        "interpolated from 4 x 6 to 2 x 2; the classification head was left out"
    )


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"width": 48}, "has width 24, and the model's width 48: add --model.width 24"),
        (
            {"depth": 3, "heads": 2},
            "has blocks 2, heads 3, and the model's blocks 3, heads 2: add --model.depth 2 "
            "--model.heads 3, or choose other weights",
        ),
        ({"mlp_ratio": 3.0}, "MLP ratio 4, and the model's MLP ratio 3: add --model.mlp-ratio 4"),
        ({"class_tokens": 2}, "class tokens 1, .* class tokens 2: add --model.class-tokens 1"),
    ],
)
def test_another_encoder_is_refused(changes, wanted):
    with pytest.raises(CheckpointError, match=wanted):
        sentence(changed(RGB, **changes))


def test_ratios_that_give_the_same_width_are_the_same():
    assert sentence(changed(RGB, mlp_ratio=4.01)) == "encoder and decoder start from runs/x"


def test_missing_weights_are_not_left_new():
    weights = random_weights(RGB)
    del weights.state["encoder.norm.weight"]
    with pytest.raises(CheckpointError, match=r"encoder\.norm\.weight is missing"):
        initialize_from(MaskedAutoencoder(RGB), weights, "x")


@pytest.mark.parametrize("has_decoder", [True, False])
def test_load_at_another_size(tmp_path, has_decoder):
    weights = random_weights(RGB)
    weights = weights if has_decoder else weights.encoder_only()
    path, _ = export_weights(weights, "safetensors", tmp_path / "unmask.safetensors")
    model = api.load(path, size=(16, 64))
    encoder = model.encoder if has_decoder else model
    assert isinstance(encoder, VisionTransformer)
    assert encoder(torch.randn(1, 3, 16, 64)).shape == (1, 17, 24)
    assert model.description.encoder.image_size == (16, 64)
    assert api.load(path, size=16).description.encoder.image_size == (16, 16)
    with pytest.raises(ValueError, match="does not divide"):
        api.load(path, size=30)


def test_same_size_is_the_same():
    weights = random_weights(RGB)
    assert_same_state(at_size(weights, (32, 48)).state, weights.state)


def test_a_run_starts_from_another_library(tiny, tmp_path):
    """Grey squares, other patches and another decoder, through transformers, into a run on colours."""
    spec = mae_spec(
        image_size=(16, 16), patch_size=(8, 8), channels=1, width=16, depth=2, heads=2,
        decoder_width=16, decoder_depth=1, decoder_heads=2,
    )  # fmt: skip
    path, _ = export_weights(random_weights(spec), "hf", tmp_path / "hf")
    run = api.pretrain(tiny, init=path)
    assert (
        f"the encoder starts from {path}; decoder initialised randomly: the weights' has width 16, "
        f"blocks 1, and "
        f"the model's width 8, blocks 2; each of 3 channels starts from the mean of the input weights "
        f"of 1; patches resized from 8 x 8 to 4 x 4 pixels; positions interpolated from 2 x 2 to 4 x 6"
    ) in (run / "train.log").read_text()
