"""Classifiers give the same logits in timm and in transformers, both ways."""

import json
from pathlib import Path

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file

from tests_support import assert_same_state, changed, head_of, mae_spec, random_classifier, whole_head
from unmask import api
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.description import Weights
from unmask.interop.export import export_weights
from unmask.interop.heads import without_batch_norm
from unmask.interop.weights import read_weights
from unmask.models.classifier import Classifier

ODD = mae_spec(
    image_size=(24, 40), patch_size=(4, 8), channels=4, width=24, depth=2, heads=3, mlp_ratio=3.3
)
SQUARE = changed(ODD, image_size=(24, 24), patch_size=(8, 8), mlp_ratio=4.0)
TOKEN = whole_head(classes=("cat", "dog", "eel", "fox", "gnu"), pool="class", eval_crop=0.9)
MEAN = {**TOKEN, "pool": "mean"}
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
SETTINGS = {
    "image_size": 40, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 96, "layer_norm_eps": 1e-6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def noisy(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def assert_logits_agree(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    assert isinstance(ours, Classifier)
    encoder = ours.encoder
    images = torch.randn(2, encoder.channels, *encoder.image_size)
    with torch.no_grad():
        found, wanted = ours(images), theirs(images)
    wanted = getattr(wanted, "logits", wanted)
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("head", "spec"),
    [
        (TOKEN, ODD),
        (MEAN, ODD),
        ({**TOKEN, "batch_norm": True}, ODD),
        ({**MEAN, "batch_norm": True}, ODD),
        (MEAN, changed(ODD, class_tokens=0)),
        (TOKEN, changed(ODD, class_tokens=3)),
        (MEAN, changed(ODD, class_tokens=3)),
    ],
    ids=["class", "mean", "class-probe", "mean-probe", "no-token", "registers", "registers-mean"],
)
def test_ours_in_timm(tmp_path, head, spec):
    weights = random_classifier(spec, head, recipe="finetune")
    path, difference = export_weights(weights, "timm", tmp_path / "timm")
    assert difference <= 1e-5
    theirs = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
    assert theirs.num_classes == 5
    assert theirs.pretrained_cfg["label_names"] == list(head["classes"])
    assert timm.data.resolve_model_data_config(theirs)["crop_pct"] == 0.9
    assert_logits_agree(api.load(path), theirs)

    again, wanted = read_weights(path), without_batch_norm(weights)
    assert_same_state(again.state, wanted.state)
    assert again.description == wanted.description


@pytest.mark.parametrize("batch_norm", [False, True])
def test_ours_in_transformers(tmp_path, batch_norm):
    head = {**TOKEN, "batch_norm": batch_norm}
    for spec in (SQUARE, changed(SQUARE, image_size=(16, 40), patch_size=(4, 8))):
        weights = random_classifier(spec, head)
        path, difference = export_weights(weights, "hf", tmp_path / f"{spec.encoder.image_size}")
        assert difference <= 1e-5
        again, wanted = read_weights(path), without_batch_norm(weights)
        assert_same_state(again.state, wanted.state)
        assert again.description == wanted.description
    theirs = transformers.ViTForImageClassification.from_pretrained(path).eval()
    assert theirs.config.id2label == dict(enumerate(head["classes"]))
    assert theirs.config.label2id["fox"] == 3
    assert_logits_agree(api.load(path), theirs)


@pytest.mark.parametrize(
    ("head", "changes", "sentence"),
    [
        (
            MEAN,
            {},
            "classifiers of the class token and this one pools the mean.*--to timm, which takes it",
        ),
        (TOKEN, {"class_tokens": 2}, "one class token and this model has 2"),
    ],
)
def test_what_transformers_cannot_hold(tmp_path, head, changes, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        export_weights(random_classifier(changed(SQUARE, **changes), head), "hf", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def saved(model: torch.nn.Module, folder: Path, **config) -> Path:
    """A folder as timm pushes it to the hub."""
    timm.models.save_for_hf(model, str(folder), safe_serialization=True, model_config=config)
    return folder


def timm_model(**arguments) -> torch.nn.Module:
    return noisy(timm.create_model("vit_base_patch16_224", **{**SMALL, "num_classes": 5, **arguments}))


@pytest.mark.parametrize(
    ("arguments", "pool"),
    [
        ({}, "class"),
        ({"global_pool": "avg"}, "mean"),
        ({"global_pool": "avg", "class_token": False, "img_size": (16, 40)}, "mean"),
        ({"reg_tokens": 2}, "class"),
        ({"pool_include_prefix": True}, "class"),
    ],
)
def test_timms_in_ours(tmp_path, arguments, pool):
    theirs = timm_model(**arguments)
    ours = api.load(saved(theirs, tmp_path / "theirs", label_names=[*"abcde"]))
    d = ours.description
    assert d.notes == ()
    assert head_of(d) == whole_head(classes=tuple("abcde"), pool=pool, eval_crop=0.9)  # timm's crop
    assert_logits_agree(ours, theirs)
    path, _ = export_weights(Weights(ours.state_dict(), d), "timm", tmp_path / "again")
    assert_same_state(load_file(path / "model.safetensors"), theirs.state_dict())


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_weights_alone_show_the_pool(tmp_path, pool):
    theirs = timm_model(global_pool=pool, embed_dim=192, num_classes=1000)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "a.pth")
    ours = api.load(tmp_path / "a.pth")
    assert ours.description.classifier.classes[1] == "n01443537"
    assert ours.description.image.eval_crop == 224 / 256
    assert "assumed to be ImageNet-1K's" in ours.description.notes[0]
    assert_logits_agree(ours, theirs)


@pytest.mark.parametrize(
    "arguments",
    [
        {"global_pool": "avg", "fc_norm": False},
        {"global_pool": "avgmax"},
        {"global_pool": "avg", "pool_include_prefix": True},
        {"global_pool": "token", "fc_norm": True},
        {"global_pool": "avg", "num_classes": 0},
        {"final_norm": False},
    ],
    ids=lambda arguments: " ".join(f"{k}={v}" for k, v in arguments.items()),
)
def test_heads_that_ours_cannot_be(tmp_path, arguments):
    """The encoder is still there; without a final norm where that stood behind the pooling."""
    theirs = timm_model(**arguments)
    source = saved(theirs, tmp_path / "theirs")
    ours = api.load(source)
    assert isinstance(ours, VisionTransformer)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = theirs.forward_features(images)
        torch.testing.assert_close(ours(images), wanted, atol=1e-5, rtol=0)
    notes = ours.description.notes
    assert ("the classification head was left out" in notes) == bool(theirs.num_classes)
    moved = "the final norm, which stood behind the pooling, was left out" in notes
    assert moved == isinstance(theirs.fc_norm, torch.nn.LayerNorm)

    weights = read_weights(source)
    path, difference = export_weights(weights, "timm", tmp_path / "again")
    assert difference <= 1e-5
    assert_same_state(read_weights(path).state, weights.state)
    if not weights.has_norm:
        with pytest.raises(CheckpointError, match="a norm behind the blocks and this encoder has none"):
            export_weights(weights, "hf", tmp_path / "hf")


def hf_classifier(**settings) -> torch.nn.Module:
    config = transformers.ViTConfig(**{**SETTINGS, **settings})
    return noisy(transformers.ViTForImageClassification(config))


def test_transformers_in_ours(tmp_path):
    theirs = hf_classifier(id2label={0: "cat", 1: "dog", 2: "eel"})
    theirs.save_pretrained(tmp_path / "theirs")
    ours = api.load(tmp_path / "theirs")
    d = ours.description
    assert d.notes == ("ImageNet's mean and standard deviation are assumed, since no file says them",)
    assert head_of(d) == whole_head(classes=("cat", "dog", "eel"), pool="class")
    assert_logits_agree(ours, theirs)
    path, _ = export_weights(read_weights(tmp_path / "theirs"), "hf", tmp_path / "again")
    again = transformers.ViTForImageClassification.from_pretrained(path)
    assert_same_state(again.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("names", [TOKEN["classes"], ("ant", "bee", "cow", "dab", "emu")])
def test_our_head_yields_to_another(tmp_path, names):
    """Someone trained our export for other classes, with our entry still in its config."""
    export_weights(random_classifier(SQUARE, TOKEN, recipe="finetune"), "hf", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    labels = dict(enumerate(names))
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    d = read_weights(tmp_path).description
    assert d.recipe == "finetune"
    ours = names == TOKEN["classes"]
    assert head_of(d) == (TOKEN if ours else {**TOKEN, "classes": names, "eval_crop": 24 / 26})
