"""Reading and writing models; hostile files (faults 29 and 30)."""

import argparse
import json
import os
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests_support import assert_same_state, changed, image_spec, mae_spec, random_weights
from unmask import api
from unmask.config.io import to_json
from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import MAESpec
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.description import Description
from unmask.interop.official import (
    from_official,
    infer_decoder,
    infer_encoder,
    mlp_ratio,
    to_official,
)
from unmask.interop.weights import Weights, build, model_type, read_weights, write_model

SMALL = mae_spec(
    image_size=(32, 32), patch_size=(8, 8), channels=3, width=192, depth=2, heads=3,
    decoder_width=32, decoder_depth=3, decoder_heads=16, target="pixels",
)  # fmt: skip
ODD = changed(SMALL, image_size=(16, 40), channels=4, width=24, heads=2, target="normalized-pixels")


def weights_of(spec: MAESpec) -> Weights:
    torch.manual_seed(0)
    model = MaskedAutoencoder(spec)
    channels = spec.encoder.channels
    image = image_spec(spec.encoder.image_size, channels, mean=(0.4,) * channels, std=(0.2,) * channels)
    return Weights(model.state_dict(), Description(model=spec, image=image))


@pytest.mark.parametrize("spec", [SMALL, ODD], ids=["small", "odd"])
def test_round_trip_is_bit_exact(tmp_path, spec):
    weights = weights_of(spec)
    write_model(tmp_path, weights.state, weights.description)
    path, difference = api.export(tmp_path)
    assert difference == 0
    again = read_weights(path)
    assert again.description == weights.description
    assert all(again.state[name].equal(value) for name, value in weights.state.items())
    for source in (tmp_path, tmp_path / "model.safetensors", path):
        assert isinstance(api.load(source), MaskedAutoencoder)


def test_the_type_of_a_model_is_read_from_its_description(tmp_path):
    weights = weights_of(SMALL)
    write_model(tmp_path, weights.state, weights.description)
    alone, damaged = tmp_path / "alone.safetensors", tmp_path / "damaged.safetensors"
    save_file(weights.state, alone, {"unmask": to_json(weights.description)})
    save_file(weights.state, damaged, {"unmask": "[1]"})
    for source in (tmp_path, tmp_path / "model.safetensors", alone):
        assert model_type(source) == "masked-autoencoder"
    assert model_type(tmp_path / "model.json") == ""
    with pytest.raises(CheckpointError, match="does not describe a model"):
        model_type(damaged)


def test_official_file_alone_says_enough(tmp_path):
    weights = weights_of(SMALL)
    official = to_official(weights.state)
    assert {
        "cls_token",
        "blocks.1.attn.qkv.weight",
        "decoder_blocks.2.mlp.fc2.bias",
        "mask_token",
    } <= set(official)
    assert (infer_encoder(official), infer_decoder(official)) == (SMALL.encoder, SMALL.decoder)
    assert from_official(official).keys() == weights.state.keys()
    torch.save({"model": official, "epoch": 3, "args": argparse.Namespace(lr=1.0)}, tmp_path / "mae.pth")
    read = read_weights(tmp_path / "mae.pth")
    assert read.description.model == SMALL
    assert read.description.image.mean == (0.485, 0.456, 0.406)
    images, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    expected = build(weights).reconstruct(images, noise)
    assert build(read).reconstruct(images, noise).equal(expected)


@pytest.mark.parametrize("width", [24, 768, 1408])
def test_hidden_width_comes_back(width):
    assert all(int(width * mlp_ratio(hidden, width)) == hidden for hidden in range(1, 8 * width))


def test_encoder_alone(tmp_path):
    official = to_official(weights_of(SMALL).state)
    encoder = {n: v for n, v in official.items() if not n.startswith(("decoder_", "mask_token"))}
    torch.save({"model": encoder}, tmp_path / "encoder.pth")
    model = api.load(tmp_path / "encoder.pth")
    assert isinstance(model, VisionTransformer)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 17, 192)
    with pytest.raises(CheckpointError, match="only a decoder draws"):
        api.reconstruct(tmp_path, init=tmp_path / "encoder.pth")


@pytest.mark.parametrize("class_tokens", [0, 2])
def test_export_that_the_layout_cannot_hold(tmp_path, class_tokens):
    weights = weights_of(changed(SMALL, class_tokens=class_tokens))
    write_model(tmp_path, weights.state, weights.description)
    with pytest.raises(CheckpointError, match="one class token"):
        api.export(tmp_path)


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize(
    "wrap", [lambda p: p, lambda p: {"model": p}, lambda p: {"model": {}, "optimizer": p}]
)
def test_29_pickled_objects_are_refused(tmp_path, monkeypatch, wrap):
    monkeypatch.chdir(tmp_path)
    torch.save(wrap(Payload()), "zip.pth")
    with open("plain.pth", "wb") as file:
        pickle.dump(wrap(Payload()), file)
    for name, objects in (("zip.pth", r"objects \(posix.system\)"), ("plain.pth", "objects")):
        with pytest.raises(CheckpointError, match=f"{objects} .*weights only"):
            read_weights(name)
    assert not os.path.exists("executed")


def header(entries: dict) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


HOSTILE = {
    "huge": header({"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
    "overlap": header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"})
    + bytes(4),
    "header": (2**60).to_bytes(8, "little"),
    "empty": b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_30_hostile_safetensors(tmp_path, kind):
    (tmp_path / "model.safetensors").write_bytes(HOSTILE[kind])
    with pytest.raises(CheckpointError, match="cannot be read"):
        api.load(tmp_path)


def test_wrong_shapes_name_the_first(tmp_path):
    weights = weights_of(SMALL)
    smaller = replace(weights.description, model=changed(SMALL, width=96))
    write_model(tmp_path, weights.state, smaller)
    with pytest.raises(CheckpointError, match=r"weights do not fit.*192.*should be.*96"):
        api.load(tmp_path)


def test_init_of_another_architecture(tiny, tmp_path):
    weights = weights_of(SMALL)
    write_model(tmp_path, weights.state, weights.description)
    with pytest.raises(CheckpointError, match=r"encoder has width 192.*add --model\.width 192"):
        api.pretrain(tiny, init=tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"model": {"a": torch.zeros(1)}}, "not a masked autoencoder"),
        ({"model": 3}, "no dictionary"),
        (b"text", r"file.pth"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, sentence):
    path = tmp_path / "file.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=sentence):
        api.load(path)


def test_one_file_that_says_what_it_is(tmp_path):
    weights = random_weights(ODD, recipe="laptop")
    path, difference = api.export(written(tmp_path, weights), to="safetensors")
    (tmp_path / "elsewhere").mkdir()
    path = path.rename(tmp_path / "elsewhere" / "model.safetensors")
    again = read_weights(path)
    assert difference == 0
    assert again.description == weights.description
    assert_same_state(again.state, weights.state)
    assert_same_state(read_weights(path.parent).state, weights.state)


def written(folder, weights: Weights):
    write_model(folder, weights.state, weights.description)
    return folder


@pytest.mark.parametrize("entry", ["{", "3", "{}", '{"architecture": {}}', '{"architecture": {"a": 1}}'])
def test_entries_that_describe_nothing(tmp_path, entry):
    official = to_official(weights_of(SMALL).state)
    torch.save({"model": official, "unmask": entry}, tmp_path / "a.pth")
    save_file(official, tmp_path / "a.safetensors", {"unmask": entry})
    for name in ("a.pth", "a.safetensors"):
        with pytest.raises(CheckpointError, match=f"{name} does not describe a model"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("content", ["{", "3", "\udcff"])
def test_damaged_settings(tmp_path, content):
    written(tmp_path, weights_of(SMALL))
    (tmp_path / "model.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"model\.json"):
        read_weights(tmp_path)


def test_hub_folder_with_torch_weights(tmp_path):
    official = to_official(weights_of(SMALL).encoder_only().state)
    torch.save(official, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    for source in (tmp_path, tmp_path / "pytorch_model.bin"):
        assert read_weights(source).description.encoder.width == 192
    torch.save(Payload(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="weights only"):
        read_weights(tmp_path)


def test_missing_and_unfinished(tmp_path):
    with pytest.raises(CheckpointError, match="no file or run"):
        api.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not finished"):
        api.load(tmp_path)
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not a masked autoencoder"):
        api.load(tmp_path / "other.safetensors")
