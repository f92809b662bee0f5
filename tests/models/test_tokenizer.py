"""The discrete VAE."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from conftest import photograph
from tests_support import image_spec
from unmask.config.tokenizer import Relaxation
from unmask.core.patches import patchify
from unmask.errors import CheckpointError
from unmask.interop.dall_e import is_dall_e, read_dall_e
from unmask.interop.description import Description, Weights
from unmask.interop.models import build
from unmask.interop.weights import read_weights, write_model
from unmask.models.tokenizer import Tokenizer, gumbel_noise, perplexity
from unmask.models.tokenizer_spec import TokenizerSpec
from unmask.tasks.tokenizer import divergence_weight_at, temperature_at

TINY = TokenizerSpec(image_size=(8, 12), channels=2, vocabulary=7, downsampling=4, width=4, blocks=2)
CPU = torch.device("cpu")


def build_tiny(**changes) -> Tokenizer:
    torch.manual_seed(0)
    return TokenizerSpec(**{**vars(TINY), **changes}).build()


@pytest.mark.parametrize("downsampling", [1, 2, 4])
def test_shapes(downsampling):
    model, images = build_tiny(downsampling=downsampling), torch.randn(3, 2, 8, 12)
    ids = model.ids(images)
    assert ids.shape == (3, 8 // downsampling, 12 // downsampling)
    assert ids.dtype == torch.int64
    assert 0 <= ids.min() <= ids.max() < 7
    assert model.pixels(ids).shape == images.shape


def test_tokens_are_drawn_as_one_hot_choices_are():
    model, images = build_tiny(), torch.randn(3, 2, 8, 12)
    ids = model.ids(images)
    choice = torch.nn.functional.one_hot(ids, 7).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(model.pixels(ids), model.decoder(model.embedding(choice)))


def test_a_cold_choice_is_the_hard_one():
    model, images = build_tiny(), torch.randn(3, 2, 8, 12)
    even = torch.full((3, 7, 2, 3), 0.5)
    output = model(images, temperature=1e-4, noise=even)
    torch.testing.assert_close(output.error, (model.pixels(model.ids(images)) - images).square().mean())


def test_the_divergence_by_hand():
    model, images = build_tiny(), torch.randn(3, 2, 8, 12)
    noise = torch.rand(3, 7, 2, 3)
    output = model(images, temperature=1.0, noise=noise, divergence_weight=5.0)
    share = model.logits(images).softmax(dim=1)
    by_hand = (share * (share * 7).log()).sum(dim=1).mean()
    torch.testing.assert_close(output.divergence, by_hand)
    torch.testing.assert_close(output.loss, output.error + 5.0 / (2 * 4 * 4) * by_hand)
    assert 0 <= output.divergence <= math.log(7)


def test_pixels_without_data_change_nothing():
    model, images = build_tiny(), torch.randn(3, 2, 8, 12)
    valid, noise = torch.rand(3, 2, 8, 12) < 0.6, torch.rand(3, 7, 2, 3)
    found = [
        model(images.where(valid, torch.full_like(images, v)), temperature=1.0, noise=noise, valid=valid)
        for v in (0.0, 1e6, math.nan)
    ]
    assert found[0].loss == found[1].loss == found[2].loss
    assert found[0].images == pytest.approx(valid.float().mean() * 3)
    whole = model(images, temperature=1.0, noise=noise)
    printed = model(images, temperature=1.0, noise=noise, valid=torch.ones_like(valid))
    torch.testing.assert_close(whole.loss, printed.loss)
    assert whole.images == printed.images == 3


def test_noise_belongs_to_each_image():
    whole = gumbel_noise(torch.tensor([5, 6, 7]), 4, (2, 3), CPU)
    assert whole.shape == (3, 4, 2, 3)
    assert torch.equal(whole[1:], gumbel_noise(torch.tensor([6, 7]), 4, (2, 3), CPU))


def test_perplexity():
    assert perplexity(torch.tensor([4.0, 4.0, 4.0, 4.0])) == pytest.approx(4)
    assert perplexity(torch.tensor([9.0, 0.0, 0.0])) == pytest.approx(1)


def photographs(count: int, first: int) -> torch.Tensor:
    pictures = [np.array(photograph(first + i, 16, 16)) for i in range(count)]
    return (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


@pytest.mark.slow
def test_it_beats_a_palette_of_as_many_cells():
    """Tokens are drawn with their neighbours in view: better than the means of clusters of cells."""
    training, held_out = photographs(200, 0), photographs(40, 1000)
    vocabulary, cell, steps = 16, (4, 4), 240
    palette = KMeans(vocabulary, n_init=4, random_state=0)
    palette.fit(patchify(training, cell).flatten(0, 1).numpy())
    cells = patchify(held_out, cell).flatten(0, 1)
    nearest = palette.cluster_centers_[palette.predict(cells.numpy())]
    of_palette = (torch.from_numpy(nearest) - cells).square().mean()

    torch.manual_seed(0)
    model = TokenizerSpec(
        image_size=(16, 16), vocabulary=vocabulary, downsampling=4, width=16, blocks=1
    ).build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.95))
    g = torch.Generator().manual_seed(0)
    for step in range(steps):
        cosine = (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = 0.01 * cosine * min(1.0, (step + 1) / 20)
        share, relaxation = step / steps, Relaxation()
        softness = {
            "temperature": temperature_at(share, relaxation),
            "divergence_weight": divergence_weight_at(share, relaxation),
        }
        images = training[torch.randint(200, (32,), generator=g)]
        noise = torch.rand(32, vocabulary, 4, 4, generator=g)
        output = model(images, noise=noise, **softness)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = (model.pixels(model.ids(held_out)) - held_out).square().mean()
    assert error < 0.9 * of_palette, (error, of_palette)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"downsampling": 6}, "6 is no power of two: choose --model.downsampling"),
        ({"vocabulary": 1}, "at least two tokens"),
        ({"width": 6}, "no multiple of four: choose 4"),
        ({"image_size": (8, 10)}, "do not tile images of 8 x 10: choose --data.size 8 8"),
    ],
)
def test_tokenizers_that_do_not_fit(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        TokenizerSpec(**{**vars(TINY), **changes})


# DALL-E's


def test_dall_es_weights_give_its_tokens_and_pixels(tmp_path):
    dall_e = pytest.importorskip("dall_e")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    encoder = dall_e.Encoder(n_hid=64, vocab_size=512, use_mixed_precision=False)
    decoder = dall_e.Decoder(n_hid=64, vocab_size=512, n_init=32, use_mixed_precision=False)
    halves = {"encoder": encoder, "decoder": decoder}
    state = {
        f"{half}.{name}": value + 0.01 * torch.randn_like(value)
        for half, module in halves.items()
        for name, value in module.state_dict().items()
    }
    for half, module in halves.items():
        own = {n.removeprefix(f"{half}."): v for n, v in state.items() if n.startswith(half)}
        module.load_state_dict(own)
    save_file(state, tmp_path / "dall-e.safetensors")

    weights = read_weights(tmp_path / "dall-e.safetensors")
    ours = build(weights)
    assert ours.spec.grid is None
    assert ours.spec.downsampling == 8
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = encoder(dall_e.map_pixels(images))
        torch.testing.assert_close(ours.logits(images), logits, atol=1e-4, rtol=1e-4)
        ids = logits.argmax(dim=1)
        one_hot = torch.nn.functional.one_hot(ids, 512).permute(0, 3, 1, 2).float()
        drawn = dall_e.unmap_pixels(torch.sigmoid(decoder(one_hot)[:, :3]))
        torch.testing.assert_close(ours.pixels(ids), drawn, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="train a tokenizer of your own"):
        ours(images, temperature=1.0, noise=torch.rand(2, 512, 2, 3))


def test_half_of_dall_es_weights():
    half = {"encoder.blocks.input.w": torch.zeros(4, 3, 7, 7)}
    assert is_dall_e(half)
    with pytest.raises(CheckpointError, match=r"lack encoder\.blocks\.output.* one safetensors file"):
        read_dall_e(half)
    with pytest.raises(CheckpointError, match=r"hold encoder\.other"):
        read_dall_e({**half, "encoder.other": torch.zeros(1)})


def test_a_description_that_is_larger_than_its_weights(tmp_path):
    model = build_tiny()
    write_model(tmp_path, model.state_dict(), Description(model=TINY, image=image_spec((8, 12), 2)))
    weights = read_weights(tmp_path)
    assert torch.equal(build(weights).ids(torch.ones(1, 2, 8, 12)), model.ids(torch.ones(1, 2, 8, 12)))
    for name, value in (("vocabulary", 10**12), ("blocks", 10**9), ("width", 4 << 50)):
        spec = TokenizerSpec(**{**vars(TINY), name: value})
        with pytest.raises(CheckpointError):
            build(Weights(weights.state, Description(model=spec, image=weights.description.image)))


def test_a_tokenizer_is_no_encoder():
    with pytest.raises(ValueError, match="no Vision Transformer: give a run of unmask pretrain"):
        _ = TINY.encoder
