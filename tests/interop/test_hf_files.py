"""Hugging Face's ViTMAE and ViT, both ways, against transformers itself."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests_support import assert_same_state, changed, mae_spec, random_weights
from unmask import api
from unmask.errors import CheckpointError
from unmask.interop.export import default_path, export_weights, random_input
from unmask.interop.hf import from_hf, to_hf
from unmask.interop.weights import build, read_weights
from unmask.models.classifier_spec import ClassifierSpec, EncoderSpec

ODD = mae_spec(
    image_size=(40, 40), patch_size=(8, 8), channels=4, width=24, depth=3, heads=3, mlp_ratio=3.0,
    decoder_width=20, decoder_depth=2, decoder_heads=5, mask_ratio=0.6,
)  # fmt: skip
LONG = changed(ODD, image_size=(16, 40), patch_size=(4, 8))
SMALL = {
    "image_size": 40, "patch_size": 8, "num_channels": 4, "hidden_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 3, "intermediate_size": 72, "layer_norm_eps": 1e-6,
}  # fmt: skip
DECODER = {
    "decoder_hidden_size": 20, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 5,
    "decoder_intermediate_size": 60, "mask_ratio": 0.6, "norm_pix_loss": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def randomized(model: torch.nn.Module) -> torch.nn.Module:
    """Positions too, which transformers leaves at zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def mae(**settings) -> torch.nn.Module:
    config = transformers.ViTMAEConfig(**{**SMALL, **DECODER, **settings})
    return randomized(transformers.ViTMAEForPreTraining(config))


def vit(kind=transformers.ViTModel, **settings) -> torch.nn.Module:
    return randomized(kind(transformers.ViTConfig(**{**SMALL, **settings})))


def save(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("target", ["pixels", "normalized-pixels"])
@pytest.mark.parametrize("extra", [{}, {"image_size": (32, 32), "mask_unit": 2, "loss_on": "all"}])
def test_ours_in_transformers(tmp_path, target, extra):
    spec = changed(ODD, target=target, **extra)
    weights = random_weights(spec, recipe="laptop", steps=3)
    path, difference = export_weights(weights, "hf", tmp_path / "hf")
    assert difference <= 1e-5
    again = read_weights(path)
    assert_same_state(again.state, weights.state)
    assert again.description == weights.description

    theirs = transformers.ViTMAEForPreTraining.from_pretrained(path)
    assert theirs.config.norm_pix_loss is (target == "normalized-pixels")
    assert theirs.config.layer_norm_eps == 1e-6
    assert theirs.config.unmask["recipe"] == "laptop"
    if not extra:
        images, noise = random_input(spec.encoder)
        with torch.no_grad():
            expected = theirs.eval()(images, noise=noise)
            found = build(weights)(images, noise=noise)
        assert torch.equal(found.is_masked, expected.mask.bool())
        torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=0)


def test_written_names_are_those_of_version_4(tmp_path):
    """What 4.57 reads; 5 renames them."""
    path, _ = export_weights(random_weights(ODD), "hf", tmp_path / "hf")
    names = load_file(path / "model.safetensors").keys()
    assert {
        "vit.embeddings.patch_embeddings.projection.weight",
        "vit.encoder.layer.2.attention.attention.query.weight",
        "vit.encoder.layer.2.attention.output.dense.bias",
        "vit.encoder.layer.2.layernorm_before.weight",
        "vit.encoder.layer.2.intermediate.dense.weight",
        "vit.encoder.layer.2.output.dense.weight",
        "vit.layernorm.weight",
        "decoder.mask_token",
        "decoder.decoder_layers.1.attention.attention.value.bias",
        "decoder.decoder_pred.weight",
    } <= set(names)
    assert all(name.startswith(("vit.", "decoder.")) for name in names)


@pytest.mark.parametrize("spec", [ODD, LONG], ids=["square", "long"])
def test_encoder_in_transformers(tmp_path, spec):
    weights = random_weights(spec).encoder_only()
    path, difference = export_weights(weights, "hf", tmp_path / "hf")
    assert difference <= 1e-5
    again = read_weights(path)
    assert_same_state(again.state, weights.state)
    assert again.description == weights.description
    assert json.loads((path / "config.json").read_text())["architectures"] == ["ViTModel"]


def test_image_processor(tmp_path):
    path, _ = export_weights(random_weights(changed(ODD, channels=3)), "hf", tmp_path / "hf")
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    found = processor(image, return_tensors="pt")["pixel_values"][0]
    mean, std = torch.tensor([0.4, 0.41, 0.42]), torch.tensor([0.2, 0.2, 0.2])
    wanted = (image / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def saved_as(folder: Path, model: torch.nn.Module, names: str) -> Path:
    """As save_pretrained writes it, as version 4 did, or under version 5's inside names."""
    save(model, folder)
    if names != "save_pretrained":
        state = model.state_dict()
        if names == "version 4":
            state = to_hf(prefixed(from_hf(state)), has_decoder=True)
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def prefixed(official: dict) -> dict:
    sides = {n: "decoder" if n.startswith(("decoder", "mask")) else "encoder" for n in official}
    return {f"{sides[name]}.{name}": value for name, value in official.items()}


@pytest.mark.parametrize("names", ["save_pretrained", "version 4", "version 5 inside"])
def test_transformers_mae_in_ours(tmp_path, names):
    theirs = mae()
    ours = api.load(saved_as(tmp_path, theirs, names))
    assert ours.spec == ODD
    images, noise = random_input(ODD.encoder)
    with torch.no_grad():
        wanted, found = theirs(images, noise=noise).logits, ours.reconstruct(images, noise)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)

    path, _ = export_weights(read_weights(tmp_path), "hf", tmp_path / "again")
    again = transformers.ViTMAEForPreTraining.from_pretrained(path)
    assert_same_state(again.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("hidden", [47, 80])
def test_decoders_whose_mlps_have_another_ratio(tmp_path, hidden):
    """The encoder's is 3; 47 of 20 is a ratio that no float gives exactly."""
    theirs = mae(decoder_intermediate_size=hidden)
    ours = api.load(save(theirs, tmp_path / "theirs"))
    decoder = ours.spec.decoder
    assert (ours.spec.encoder, int(decoder.width * decoder.mlp_ratio)) == (ODD.encoder, hidden)
    assert ours.decoder.decoder_blocks[1].mlp.fc1.weight.shape == (hidden, 20)
    images, noise = random_input(ODD.encoder)
    with torch.no_grad():
        wanted, found = theirs(images, noise=noise).logits, ours.reconstruct(images, noise)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)

    weights = read_weights(tmp_path / "theirs")
    for layout in ("hf", "official", "safetensors"):
        path, difference = export_weights(weights, layout, default_path(layout, tmp_path))
        again = read_weights(path)
        assert difference <= 1e-5
        assert again.description == weights.description
        assert_same_state(again.state, weights.state)
    again = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path / "hf")
    assert_same_state(again.state_dict(), theirs.state_dict())


def mae_encoder(**settings) -> torch.nn.Module:
    return mae(**settings).vit


@pytest.mark.parametrize(
    ("model", "settings", "notes"),
    [
        (mae_encoder, {"mask_ratio": 0.0}, ()),
        (vit, {"image_size": [16, 40], "patch_size": [4, 8]}, ("the pooling layer was left out",)),
    ],
    ids=["ViTMAEModel", "ViTModel"],
)
def test_transformers_encoders_in_ours(tmp_path, model, settings, notes):
    theirs = model(**settings)
    ours = api.load(save(theirs, tmp_path))
    d = ours.description
    *others, assumed = d.notes
    assert (d.model, tuple(others)) == (EncoderSpec(encoder=d.encoder), notes)
    assert assumed == "mean 0.5, standard deviation 0.25 are assumed, since no file says them"
    assert d.encoder.heads == 3
    images, _ = random_input(d.encoder)
    noise = torch.arange(ours.grid[0] * ours.grid[1]).float().expand(2, -1)
    with torch.no_grad():
        more = {"noise": noise} if model is mae_encoder else {}
        wanted = theirs(images, **more).last_hidden_state
        torch.testing.assert_close(ours(images), wanted, atol=1e-5, rtol=0)


def test_settings_beside_the_weights(tmp_path):
    save(mae(layer_norm_eps=1e-12, num_channels=3), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]})
    )
    for source in (tmp_path, tmp_path / "model.safetensors"):
        d = read_weights(source).description
        assert (d.image.mean, d.image.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert d.notes == ("layer norms have an epsilon of 1e-06 instead of 1e-12",)


def test_positions_that_were_never_made_are_said(tmp_path):
    config = transformers.ViTMAEConfig(**SMALL, **DECODER)
    fresh = transformers.ViTMAEForPreTraining(config)
    with torch.no_grad():
        fresh.vit.embeddings.position_embeddings.zero_()
    notes = read_weights(save(fresh, tmp_path)).description.notes
    assert "the table of positions is zero" in notes[0]


def test_half_precision_becomes_single(tmp_path):
    state = read_weights(save(mae().half(), tmp_path)).state
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_our_description_yields_to_another_model(tmp_path):
    """Someone loaded our export, changed the size, and saved it with our entry still in its config."""
    export_weights(random_weights(ODD, recipe="laptop"), "hf", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    larger = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(**{**SMALL, **DECODER, "image_size": 80}, unmask=config["unmask"])
    )
    d = read_weights(save(larger, tmp_path / "larger")).description
    assert (d.encoder.image_size, d.recipe) == ((80, 80), "")


@pytest.mark.parametrize(
    "settings", [{"decoder_num_hidden_layers": 1}, {"decoder_intermediate_size": 40}]
)
def test_our_decoder_yields_to_another(tmp_path, settings):
    export_weights(random_weights(ODD, recipe="laptop"), "hf", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    d = api.load(save(mae(**settings, unmask=config["unmask"]), tmp_path / "other")).description
    assert (d.recipe, d.encoder) == ("laptop", ODD.encoder)
    assert d.autoencoder.decoder != ODD.decoder


def test_classifier_of_our_export_has_no_decoder(tmp_path):
    path, _ = export_weights(random_weights(ODD, recipe="laptop"), "hf", tmp_path / "hf")
    fine_tuned = transformers.ViTForImageClassification.from_pretrained(path)
    d = read_weights(save(fine_tuned, tmp_path / "tuned")).description
    assert isinstance(d.model, ClassifierSpec)
    assert (d.autoencoder, d.recipe) == (None, "laptop")
    assert d.classifier.classes == ("0", "1")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hidden_act": "relu"}, "hidden_act relu, and .* has gelu"),
        ({"qkv_bias": False}, "qkv_bias False, and .* has True"),
        ({"model_type": "dinov2"}, "model_type dinov2, and unmask reads vit_mae and vit"),
        ({"num_hidden_layers": 4}, "they lack blocks.3.attn.proj.bias"),
        ({"num_hidden_layers": 2}, "they hold blocks.2.attn.proj.bias"),
        ({"hidden_size": "wide"}, "config.json does not describe a vit_mae"),
        ({"unmask": {"architecture": 3}}, "'unmask' does not describe a model"),
    ],
)
def test_other_models_are_refused(tmp_path, settings, sentence):
    config = json.loads((save(mae(), tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises(CheckpointError, match=sentence):
        read_weights(tmp_path)


def test_names_without_settings_are_refused(tmp_path):
    save_file(mae().state_dict(), tmp_path / "alone.safetensors")
    with pytest.raises(CheckpointError, match=r"only their config\.json says"):
        read_weights(tmp_path / "alone.safetensors")


@pytest.mark.parametrize(
    ("changes", "has_decoder", "sentence"),
    [
        ({"class_tokens": 0}, True, "ViTMAE holds one class token and this model has 0"),
        ({"class_tokens": 2}, False, "ViT holds one class token and this model has 2"),
        ({"image_size": (16, 40)}, True, "holds square images and this model's are 16 x 40"),
        ({"patch_size": (4, 8)}, True, "holds square patches and this model's are 4 x 8"),
        ({"mask_tokens_in_encoder": True}, True, "holds mask tokens in the decoder"),
    ],
)
def test_what_transformers_cannot_hold(tmp_path, changes, has_decoder, sentence):
    weights = random_weights(changed(ODD, **changes))
    with pytest.raises(CheckpointError, match=f"{sentence}.*--to timm"):
        export_weights(weights if has_decoder else weights.encoder_only(), "hf", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_transformers_itself_takes_square_images_only():
    """The reason of the refusal; without it, the refusal may go."""
    with pytest.raises(ValueError, match="squared size"):
        mae(image_size=[16, 64])(torch.zeros(1, 4, 16, 64))
