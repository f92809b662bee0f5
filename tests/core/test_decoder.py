"""The decoder: from encoded visible patches and mask tokens to pixels."""

import pytest
import torch

from unmask.core.decoder import Decoder
from unmask.core.masking import Mask, mask_from_noise, take

GRID, PATCHES, KEPT = (3, 4), 12, 4


def decoder(**changes) -> Decoder:
    torch.manual_seed(0)
    options = {
        "grid": GRID,
        "encoder_width": 10,
        "outputs": 7,
        "width": 12,
        "heads": 3,
        "depth": 2,
    }
    return Decoder(**options | changes)


def randomized(model: Decoder) -> Decoder:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def scene(class_tokens: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, Mask]:
    mask = mask_from_noise(torch.rand(2, PATCHES), GRID, KEPT)
    assert mask.visible.shape[1] == KEPT
    return torch.randn(2, class_tokens + KEPT, 10, dtype=dtype), mask


def unshuffled_as_in_the_paper(model: Decoder, latent: torch.Tensor, mask: Mask) -> torch.Tensor:
    """Every token moved to its place in the image, then positions, blocks, head."""
    R, embedded = model.class_tokens, model.decoder_embed(latent)
    x = model.mask_token.repeat(len(latent), R + PATCHES, 1)
    x[:, :R] = embedded[:, :R]
    for b, image in enumerate(mask.visible.tolist()):
        for k, n in enumerate(image):
            x[b, R + n] = embedded[b, R + k]
    x = x + model.decoder_pos_embed
    for block in model.decoder_blocks:
        x = block(x)
    return model.decoder_pred(model.decoder_norm(x))[:, R:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("class_tokens", [0, 1, 3])
def test_predictions(dtype, depth, class_tokens):
    model = randomized(decoder(depth=depth, class_tokens=class_tokens)).to(dtype)
    latent, mask = scene(class_tokens, dtype)
    everything = model.predict_all(latent, mask)
    tolerance = {"atol": 1e-5, "rtol": 0} if dtype == torch.float32 else {"atol": 1e-12, "rtol": 0}
    torch.testing.assert_close(everything, unshuffled_as_in_the_paper(model, latent, mask), **tolerance)
    torch.testing.assert_close(model(latent, mask), take(everything, mask.masked), **tolerance)


def test_masked_positions_differ_from_the_start():
    model, (latent, mask) = decoder(), scene(1, torch.float32)
    prediction = model(latent, mask)
    distance = torch.cdist(prediction, prediction)
    assert distance[:, ~torch.eye(PATCHES - KEPT, dtype=torch.bool)].min() > 1e-2


def test_initialisation():
    model = decoder(width=400, heads=4, depth=1)
    assert model.mask_token.std().item() == pytest.approx(0.02, rel=0.15)
    fixed = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert fixed == ["decoder_pos_embed"]
    for layer in (model.decoder_embed, model.decoder_pred):
        bound = (6 / sum(layer.weight.shape)) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


@pytest.mark.parametrize("depth", [0, -1])
def test_a_decoder_without_blocks(depth):
    with pytest.raises(ValueError, match="choose a decoder depth of 1 or more"):
        decoder(depth=depth)
