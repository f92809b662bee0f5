"""Weights as trainers leave them, against models of timm and transformers that hold the same."""

import argparse
import json
import re
from pathlib import Path, PosixPath

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file

from tests_support import (
    assert_same_state,
    changed,
    mae_spec,
    random_classifier,
    random_weights,
    whole_head,
)
from unmask import api
from unmask.cli.main import run as unmask
from unmask.config.keywords import with_settings
from unmask.core.mae import MaskedAutoencoder
from unmask.errors import CheckpointError
from unmask.interop.official import to_official
from unmask.interop.weights import initialize_from, read_weights, write_model
from unmask.tasks import find_task

SPEC = mae_spec(
    image_size=(32, 32), patch_size=(8, 8), channels=3, width=192, depth=2, heads=12,
    decoder_width=32, decoder_depth=2, decoder_heads=16, target="pixels",
)  # fmt: skip
WEIGHTS = random_weights(SPEC)
OFFICIAL = to_official(WEIGHTS.state)
ENCODER = to_official(WEIGHTS.encoder_only().state)
TARGET = "the decoder is taken to predict pixels"


def saved(folder: Path, content: object, name: str = "weights.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def prefixed(prefix: str, state: dict) -> dict:
    return {f"{prefix}{name}": value for name, value in state.items()}


def test_heads_of_bare_weights(tmp_path):
    """12 heads of 16 channels, as MAE-Lite has them: assumed to be 3, said, and 12 if one asks."""
    theirs = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_heads=12, num_classes=0
    )
    theirs.load_state_dict(ENCODER)
    path, images = saved(tmp_path, ENCODER), torch.randn(2, 3, 32, 32)
    assumed, asked = api.load(path), api.load(path, heads=12)
    assert assumed.description.encoder.heads == 3
    assert any(note.startswith("3 attention heads are assumed") for note in assumed.description.notes)
    assert not any("heads" in note for note in asked.description.notes)
    with torch.no_grad():
        wanted = theirs.eval().forward_features(images)
        torch.testing.assert_close(asked(images), wanted, atol=1e-5, rtol=0)
        assert (assumed(images) - wanted).abs().max() > 1e-3
    with pytest.raises(CheckpointError, match=r"7 do not divide their width of 192.*--model\.heads"):
        api.load(path, heads=7)


def test_heads_that_the_file_says(tmp_path):
    write_model(tmp_path, WEIGHTS.state, WEIGHTS.description)
    assert api.load(tmp_path, heads=12).spec == SPEC
    with pytest.raises(CheckpointError, match=r"has 12 attention heads, and --model\.heads 3"):
        api.load(tmp_path, heads=3)


@pytest.mark.parametrize(
    ("entries", "heads"),
    [
        ({"args": argparse.Namespace(model="mae_vit_tiny_patch16")}, None),
        ({"arch": "vit_small"}, None),
        ({"arch": "vit_base_patch16_224"}, 12),
        ({"args": argparse.Namespace(model="mae_vit_huge_patch14_dec512d8b")}, 16),
        ({"args": argparse.Namespace(model=3, model_kwargs=None)}, None),
        ({"args": argparse.Namespace(model="vit_tiny", model_kwargs={"num_heads": 6})}, 6),
    ],
)
def test_names_of_models_say_heads(tmp_path, entries, heads):
    d = read_weights(saved(tmp_path, {"state_dict": ENCODER, **entries})).description
    assert d.encoder.heads == (heads or 3)
    assert any("heads are assumed" in note for note in d.notes) == (heads is None)


COMMANDS = {
    "embed": "embed {data} --init {path} --out {out}/f.safetensors",
    "knn": "knn {data} --init {path} --out {out}/knn --data.size 32",
    "export": "export {path} --to safetensors --out {out}/x.safetensors",
    "reconstruct": "reconstruct {data} --init {path} --out {out}/pictures",
    "predict": "predict {data} --init {path} --out {out}/predictions",
    "evaluate": "evaluate {data} --init {path} --out {out}/scores",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_heads_wherever_weights_are_read(tmp_path, stripes, command, capsys):
    """A number of heads that does not divide the width reaches what builds the model."""
    state = OFFICIAL if command == "reconstruct" else ENCODER
    path = saved(tmp_path, state)
    line = COMMANDS[command].format(data=stripes, path=path, out=tmp_path)
    assert unmask([*line.split(), "--model.heads", "7"]) == 4
    assert "7 do not divide" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["finetune", "probe", "pretrain", "segment", "detect"])
def test_heads_wherever_training_starts(tmp_path, command):
    task, path = find_task(command), str(saved(tmp_path, ENCODER))
    config = with_settings(task.config_class(), {"init": path, "model_heads": 12})
    assert task(config).read_init().description.encoder.heads == 12
    if command in ("segment", "detect"):
        assert list(task(config).notes_on_encoder()) == []
        other = with_settings(config, {"model_depth": 3})
        assert "the section model changes nothing here" in " ".join(task(other).notes_on_encoder())


DECODER = {f"decoder.{name}": value for name, value in OFFICIAL.items() if name not in ENCODER}
HEAD = {"head.weight": torch.ones(9, 192), "head.bias": torch.ones(9)}
LIGHTLY = {
    **prefixed("backbone.vit.", {**ENCODER, **HEAD}),
    **DECODER,
    "backbone.mask_token": torch.zeros(1, 1, 192),
}
"""lightly's autoencoder: timm's model with a head that nobody trained, beside a decoder."""


@pytest.mark.parametrize(
    "state",
    [
        prefixed("_orig_mod.", OFFICIAL),
        prefixed("module.", OFFICIAL),
        prefixed("module._orig_mod.", OFFICIAL),
        prefixed("model._orig_mod.", OFFICIAL),
        WEIGHTS.state,
        LIGHTLY,
        prefixed("model.", LIGHTLY),
        prefixed("encoder.vit.", ENCODER) | DECODER,
    ],
    ids=[
        *("compiled", "ddp", "ddp-compiled", "lightning-compiled", "ours", "lightly"),
        *("lightning-lightly", "nested"),
    ],
)
def test_autoencoders_behind_prefixes(tmp_path, state):
    read = read_weights(saved(tmp_path, {"state_dict": state, "epoch": 3}), heads=12)
    assert read.description.model == SPEC
    assert_same_state(read.state, WEIGHTS.state)


BESIDE = {
    "mmpretrain": (
        prefixed("backbone.", ENCODER) | HEAD,
        r"2 tensors beside the encoder .*\(head\)",
    ),
    "stable-pretraining": (
        prefixed("encoder.vit.", ENCODER) | prefixed("decoder.layers.0.", HEAD),
        r"\(decoder\)",
    ),
    "lightning": (
        prefixed("model.", ENCODER) | prefixed("metric.", HEAD) | {"scale": torch.ones(())},
        r"3 .*\(metric, scale\)",
    ),
}


@pytest.mark.parametrize("trainer", BESIDE)
def test_what_stands_beside_an_encoder_is_said(tmp_path, trainer):
    state, left_out = BESIDE[trainer]
    d = read_weights(saved(tmp_path, state), heads=12).description
    assert d.classifier is None
    assert re.search(left_out, d.notes[0])
    assert_same_state(read_weights(tmp_path / "weights.pth").state, WEIGHTS.encoder_only().state)


def test_a_classifier_behind_a_prefix_keeps_its_head(tmp_path):
    weights = random_classifier(SPEC, whole_head(classes=tuple("abc"), pool="mean"))
    state = prefixed("_orig_mod.model.", to_official(weights.state))
    read = read_weights(saved(tmp_path, state), heads=12)
    assert read.description.classifier.pool == "mean"
    assert_same_state(read.state, weights.state)


def in_mmpretrain(state: dict) -> dict:
    """As mmpretrain's VisionTransformer and MAEPretrainDecoder call them."""
    renamed = {}
    for name, value in state.items():
        is_decoder = name.startswith(("decoder_", "mask_token"))
        name = name.replace("patch_embed.proj.", "patch_embed.projection.")
        name = re.sub(r"(^|_)blocks\.(\d+)\.norm([12])", r"\1blocks.\2.ln\3", name)
        name = name.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
        name = re.sub(r"^blocks\.", "layers.", name)
        name = re.sub(r"^(decoder_)?norm\.", "ln1.", name)
        renamed[f"{'neck' if is_decoder else 'backbone'}.{name}"] = value
    return renamed


def test_mmpretrain(tmp_path):
    state = in_mmpretrain(OFFICIAL)
    assert {
        "backbone.layers.1.ffn.layers.0.0.weight", "backbone.ln1.bias", "neck.ln1.weight",
        "neck.decoder_blocks.1.ln2.bias", "neck.decoder_blocks.0.ffn.layers.1.weight",
    } <= state.keys()  # fmt: skip
    whole = read_weights(saved(tmp_path, {"meta": {}, "state_dict": state}), heads=12)
    assert_same_state(whole.state, WEIGHTS.state)
    of_encoder = [name for name in state if name.startswith("backbone")]
    alone = {name.removeprefix("backbone."): state[name] for name in of_encoder}
    for encoder in (alone, prefixed("backbone.", alone)):
        read = read_weights(saved(tmp_path, {"state_dict": encoder}), heads=12)
        assert_same_state(read.state, WEIGHTS.encoder_only().state)


def test_several_encoders_are_named(tmp_path):
    moco = prefixed("module.base_encoder.", ENCODER) | prefixed("module.momentum_encoder.", ENCODER)
    with pytest.raises(CheckpointError, match=r"2 encoders.*'module\.base_encoder\.'.*save the weights"):
        read_weights(saved(tmp_path, {"state_dict": moco}))
    with pytest.raises(CheckpointError, match=r"no dictionary of weights.*it has student, teacher"):
        read_weights(saved(tmp_path, {"student": ENCODER, "teacher": ENCODER, "epoch": 3}))


def args(**settings: object) -> argparse.Namespace:
    return argparse.Namespace(model="mae_vit_base_patch16", **settings)


@pytest.mark.parametrize(
    ("settings", "kind", "ratio"),
    [
        ({"norm_pix_loss": True, "mask_ratio": 0.6}, "normalized-pixels", 0.6),
        ({"norm_pix_loss": False, "mask_ratio": 0.75}, "pixels", 0.75),
        ({"mask_ratio": 7}, "pixels", 0.75),
    ],
)
def test_the_official_trainers_settings(tmp_path, settings, kind, ratio):
    """With those of its submitit script, which leaves a path beside them."""
    line = args(output_dir=PosixPath("/checkpoint/mae/1"), **settings)
    d = read_weights(saved(tmp_path, {"model": OFFICIAL, "args": line, "epoch": 799})).description
    assert (d.autoencoder.target.kind, d.autoencoder.mask.ratio) == (kind, ratio)
    assert any(TARGET in note for note in d.notes) == ("norm_pix_loss" not in settings)
    assert d.encoder.heads == 12


def test_what_training_goes_on_with_is_what_it_learned(tmp_path):
    path = saved(tmp_path, {"model": OFFICIAL, "args": args(norm_pix_loss=True)})
    model = MaskedAutoencoder(changed(SPEC, target="normalized-pixels"))
    printed = initialize_from(model, read_weights(path), "x")
    assert "the decoder has learned" not in printed


@pytest.mark.parametrize(
    ("settings", "mean", "is_said"),
    [
        ({"nb_classes": 3}, (0.485, 0.456, 0.406), False),
        ({"mean": [0.5, 0.5, 0.5], "std": (0.5, 0.5, 0.5)}, (0.5, 0.5, 0.5), False),
        ({"mean": None, "std": None}, (0.485, 0.456, 0.406), True),
    ],
)
def test_mean_and_standard_deviation_of_a_trainer(tmp_path, settings, mean, is_said):
    """The official code always takes ImageNet's; timm's what it is told, or the model's own."""
    path = saved(tmp_path, {"state_dict": ENCODER, "args": argparse.Namespace(**settings)})
    d = read_weights(path).description
    assert d.image.mean == mean
    assert any("standard deviation are assumed" in note for note in d.notes) == is_said


class Other:
    """Any class of somebody's trainer."""


@pytest.mark.parametrize("item", [Other(), argparse.ArgumentParser, re.compile("x")])
def test_nothing_but_a_command_line_and_a_path_is_allowed(tmp_path, item):
    path = saved(tmp_path, {"model": OFFICIAL, "args": argparse.Namespace(item=item)})
    with pytest.raises(CheckpointError, match=r"holds Python objects \([\w.]+\) or is no checkpoint"):
        read_weights(path)


@pytest.mark.parametrize("state", [OFFICIAL, ENCODER], ids=["whole", "encoder"])
def test_the_authors_weights_carry_the_hint_at_their_licence(tmp_path, state):
    d = read_weights(saved(tmp_path, {"model": state})).description
    assert d.licence_note == "of unknown origin; the authors' weights are CC BY-NC 4.0"


def test_half_of_an_autoencoder_does_not_know_its_pixels(tmp_path):
    notes = read_weights(saved(tmp_path, {"model": OFFICIAL})).description.notes
    assert any(TARGET in note for note in notes)
    assert "16 attention heads are assumed in the decoder" in notes


@pytest.mark.parametrize("safe", [True, False])
def test_sharded_folders(tmp_path, safe):
    config = transformers.ViTMAEConfig(
        image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=96, decoder_hidden_size=16, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=32, layer_norm_eps=1e-6,
    )  # fmt: skip
    whole = transformers.ViTMAEForPreTraining(config)
    whole.save_pretrained(tmp_path / "whole")
    whole.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    folder = tmp_path / "shards"
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    if not safe:
        _as_torch_files(folder, shards)
    wanted = read_weights(tmp_path / "whole")
    again = read_weights(folder)
    assert again.description == wanted.description
    assert_same_state(again.state, wanted.state)
    victim = sorted(folder.glob("*-00002-of-*"))[0]
    victim.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {re.escape(victim.name)}, which"):
        read_weights(folder)


def _as_torch_files(folder: Path, shards: list[Path]) -> None:
    """What version 4 wrote with safe_serialization=False."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    names = {one.name: f"pytorch_{one.stem}.bin" for one in shards}
    for one in shards:
        torch.save(load_file(one), folder / names[one.name])
        one.unlink()
    index["weight_map"] = {name: names[file] for name, file in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("places", [{"a": "../model.safetensors"}, {"a": 3}, ["a"]])
def test_an_index_that_points_elsewhere(tmp_path, places):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CheckpointError, match=r"index\.json (names|does not say)"):
        read_weights(tmp_path)


@pytest.mark.parametrize("use", ["load", "embed", "finetune"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, stripes, use, value):
    state = {**ENCODER, "blocks.1.mlp.fc1.bias": torch.full((768,), value)}
    path = saved(tmp_path, {"model": state})
    call = {
        "load": lambda: api.load(path),
        "embed": lambda: api.embed(stripes, init=path, out=tmp_path / "f.safetensors"),
        "finetune": lambda: api.finetune(stripes, init=path, out=tmp_path / "run", steps=1),
    }[use]
    with pytest.raises(CheckpointError, match=r"not finite, the first is encoder\.blocks\.1\.mlp\.fc1"):
        call()
