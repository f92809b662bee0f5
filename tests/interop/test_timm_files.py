"""timm's Vision Transformer, both ways, against timm itself."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from tests_support import assert_same_state, changed, mae_spec, random_weights
from unmask import api
from unmask.core.spec import ViTSpec
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.description import Weights
from unmask.interop.export import export_weights, random_input
from unmask.interop.timm import HEADS, PLAIN_NAME, from_timm, to_timm
from unmask.interop.weights import build, read_weights
from unmask.models.classifier_spec import EncoderSpec

ODD = mae_spec(
    image_size=(24, 40), patch_size=(4, 8), channels=4, width=24, depth=2, heads=3, mlp_ratio=3.3,
    decoder_width=8, decoder_depth=1, decoder_heads=1, mask_unit=1,
)  # fmt: skip
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def features(model: torch.nn.Module, spec: ViTSpec) -> torch.Tensor:
    images, _ = random_input(spec)
    with torch.no_grad():
        if isinstance(model, VisionTransformer):
            return model(images)
        return model.eval().forward_features(images)


def timm_model(name: str = "vit_base_patch16_224", **arguments) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **arguments)


def save(model: torch.nn.Module, folder: Path) -> Path:
    """A folder as timm pushes it to the hub."""
    timm.models.save_for_hf(model, str(folder), safe_serialization=True)
    return folder


@pytest.mark.parametrize(
    "spec",
    [ODD, changed(ODD, class_tokens=0), changed(ODD, class_tokens=3)],
    ids=["odd", "no-class-token", "registers"],
)
def test_ours_in_timm(tmp_path, spec):
    weights = random_weights(spec, recipe="laptop")
    path, difference = export_weights(weights, "timm", tmp_path / "timm")
    assert difference <= 1e-5

    config = json.loads((path / "config.json").read_text())
    state = load_file(path / "model.safetensors")
    assert not {"mask_token", "decoder_pos_embed"} & state.keys()
    by_hand = timm.create_model(
        config["architecture"],
        checkpoint_path=path / "model.safetensors",
        num_classes=0,
        **config["model_args"],
    )
    ours = build(weights.encoder_only())
    found = features(by_hand, spec.encoder)
    torch.testing.assert_close(found, features(ours, spec.encoder), atol=1e-5, rtol=0)

    again = read_weights(path)
    assert_same_state(again.state, weights.encoder_only().state)
    assert again.description == weights.encoder_only().description


def test_data_settings_reach_timm(tmp_path):
    weights = random_weights(ODD)
    export_weights(weights, "timm", tmp_path / "timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (4, 24, 40)
    assert model.pretrained_cfg["first_conv"] is None  # or timm 1.0.16 adapts it, and fails
    assert tuple(data["mean"]) == weights.description.image.mean
    assert tuple(data["std"]) == weights.description.image.std


@pytest.mark.parametrize(
    "arguments",
    [
        {**SMALL, "img_size": (16, 40), "in_chans": 4, "mlp_ratio": 3.3, "num_classes": 0},
        {**SMALL, "class_token": False, "global_pool": "avg", "fc_norm": False, "num_classes": 0},
        {**SMALL, "reg_tokens": 2, "num_classes": 0},
        {**SMALL, "no_embed_class": True, "num_classes": 0},
    ],
    ids=["odd", "no-class-token", "registers", "class-token-without-position"],
)
def test_timms_in_ours(tmp_path, arguments):
    theirs = timm_model(**arguments)
    weights = read_weights(save(theirs, tmp_path / "theirs"))
    d = weights.description
    assert (d.model, d.notes) == (EncoderSpec(encoder=d.encoder), ())
    found = features(build(weights), d.encoder)
    torch.testing.assert_close(found, features(theirs, d.encoder), atol=1e-5, rtol=0)

    path, _ = export_weights(weights, "timm", tmp_path / "again")
    again = load_file(path / "model.safetensors")
    if "no_embed_class" in arguments:  # comes back with a position of zeros
        again["pos_embed"] = again["pos_embed"][:, 1:]
    assert_same_state(again, theirs.state_dict())


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "wrapped.pth"])
def test_bare_files(tmp_path, name):
    theirs = timm_model(num_classes=0, img_size=32, patch_size=8, embed_dim=192, depth=1, num_heads=3)
    state = theirs.state_dict()
    if name == "weights.safetensors":
        save_file(state, tmp_path / name)
    else:
        wrapped = {"state_dict": {f"module.{n}": v for n, v in state.items()}, "epoch": 3}
        torch.save(wrapped if name == "wrapped.pth" else state, tmp_path / name)
    model = api.load(tmp_path / name)
    encoder = model.description.encoder
    assert (encoder.image_size, encoder.heads, model.description.image.mean[0]) == ((32, 32), 3, 0.485)
    assert_same_state(to_timm(read_weights(tmp_path / name).state), state)
    torch.testing.assert_close(features(model, encoder), features(theirs, encoder), atol=1e-5, rtol=0)


def test_settings_come_from_config(tmp_path):
    folder = save(timm_model(**SMALL, num_classes=0), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": [0.1, 0.2, 0.3], "license": "cc-by-nc-4.0"}
    (folder / "config.json").write_text(json.dumps(config))
    for source in (folder, folder / "model.safetensors"):
        d = read_weights(source).description
        assert (d.image.mean, d.encoder.heads) == ((0.1, 0.2, 0.3), 3)
        assert d.licence_note.startswith("cc-by-nc-4.0")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"act_layer": "relu"}, "act_layer='relu' is not the plain"),
        ({"qkv_bias": False}, "qkv_bias=False is not the plain"),
        ({"pre_norm": True}, "pre_norm=True is not the plain"),
        ({"init_values": 0.1}, "init_values=0.1 is not the plain"),
        ({"pos_embed": "none"}, "pos_embed='none' is not the plain"),
        ({"global_pool": "map"}, "they hold attn_pool"),
    ],
)
def test_other_transformers_are_refused(tmp_path, arguments, sentence):
    folder = save(timm_model(**SMALL, num_classes=0, **arguments), tmp_path)
    with pytest.raises(CheckpointError, match=sentence):
        read_weights(folder)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"init_values": 0.1}, "they hold blocks.0.ls1.gamma"),
        ({"qkv_bias": False}, "they lack blocks.0.attn.qkv.bias"),
        ({"qk_norm": True}, "they hold blocks.0.attn.k_norm"),
        ({"img_size": (16, 40)}, "10 positions are no square grid"),
    ],
)
def test_bare_weights_are_looked_at(tmp_path, arguments, sentence):
    state = timm_model(**{**SMALL, **arguments}, num_classes=0).state_dict()
    save_file(state, tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match=sentence):
        read_weights(tmp_path / "bare.safetensors")


@pytest.mark.parametrize("name", ["vit_base_patch16_rope_224", "resnet18", "eva02_tiny_patch14_224"])
def test_other_architectures_are_refused(tmp_path, name):
    save_file(timm_model(**SMALL).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
    with pytest.raises(CheckpointError, match=f"{name} is not the plain Vision Transformer"):
        read_weights(tmp_path)


def test_dinov2_is_refused(tmp_path):
    state = timm_model(**SMALL, num_classes=0).state_dict()
    save_file({**state, "mask_token": torch.zeros(1, 24)}, tmp_path / "dino.safetensors")
    with pytest.raises(CheckpointError, match="they hold mask_token"):
        read_weights(tmp_path / "dino.safetensors")


def test_names_that_we_take_for_plain_are():
    """All of timm's that the pattern lets through have our block, and the heads in our table."""
    names = [name for name in timm.list_models(["vit_*", "deit_*"]) if PLAIN_NAME.fullmatch(name)]
    assert {"vit_base_patch16_224", "vit_huge_patch14_224", "deit_tiny_patch16_224"} <= set(names)
    for name in names:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0, depth=1)
        block = model.blocks[0]
        assert type(model) is timm.models.VisionTransformer, name
        assert block.attn.num_heads == HEADS[PLAIN_NAME.fullmatch(name)["size"]], name
        assert isinstance(block.mlp.act, torch.nn.GELU), name
        assert block.norm1.eps == model.norm.eps == 1e-6, name
        assert from_timm(model.state_dict()).keys() == model.state_dict().keys(), name


def test_class_tokens_do_not_change_the_weights():
    state = random_weights(changed(ODD, class_tokens=2)).encoder_only().state
    there = to_timm(state)
    assert (there["cls_token"].shape, there["reg_token"].shape) == ((1, 1, 24), (1, 1, 24))
    back = {f"encoder.{name}": value for name, value in from_timm(there).items()}
    assert_same_state(Weights(back, None).state, state)
