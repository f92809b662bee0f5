"""Classifiers: read, built, resized, started from, embedded with, in the official layout."""

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from tests_support import (
    assert_same_state,
    changed,
    described,
    head_of,
    mae_spec,
    random_classifier,
    random_weights,
    whole_head,
)
from unmask import api
from unmask.cli.main import run as unmask
from unmask.config.commands import EmbedConfig
from unmask.config.io import to_json
from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import MAESpec
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.card import model_card
from unmask.interop.description import Weights
from unmask.interop.export import default_path, export_weights
from unmask.interop.fit import at_size, encoder_for, interpolate_positions
from unmask.interop.heads import class_names, without_batch_norm
from unmask.interop.official import to_official
from unmask.interop.weights import build, initialize_from, read_weights, write_model
from unmask.models.classifier import Classifier
from unmask.models.classifier_spec import EncoderSpec
from unmask.storage import unsealed

ODD = mae_spec(
    image_size=(16, 24), patch_size=(4, 8), channels=3, width=24, depth=2, heads=3,
    decoder_width=8, decoder_depth=1, decoder_heads=1,
)  # fmt: skip
SQUARE = changed(ODD, image_size=(32, 32), patch_size=(8, 8), width=192)
CLASSES = ("cat", "dog", "eel")
TOKEN = whole_head(classes=CLASSES, pool="class", eval_crop=0.9, precision="bf16")
MEAN = {**TOKEN, "pool": "mean"}
PROBE = {**MEAN, "batch_norm": True}
HEADS = pytest.mark.parametrize("head", [TOKEN, MEAN, PROBE], ids=["class", "mean", "probe"])
LEFT_OUT = "the classification head was left out"
NORM_LEFT_OUT = "the final norm, which stood behind the pooling, was left out"
NEW_NORM = "the encoder's final norm is new"


def classifier(head: dict[str, Any], spec: MAESpec = ODD, **description) -> Weights:
    return random_classifier(spec, head, **description)


def images_for(spec: MAESpec = ODD) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(2, spec.encoder.channels, *spec.encoder.image_size)


@HEADS
def test_a_run_comes_back(tmp_path, head):
    weights = classifier(head, recipe="probe", steps=3)
    write_model(tmp_path, weights.state, weights.description)
    again = read_weights(tmp_path)
    assert again.description == weights.description
    assert_same_state(again.state, weights.state)
    model = api.load(tmp_path)
    assert isinstance(model, Classifier)
    assert not model.training
    assert head_of(model.description) == head
    assert_same_state(model.state_dict(), weights.state)


@HEADS
@pytest.mark.parametrize("layout", ["official", "safetensors"])
def test_one_file_and_back(tmp_path, head, layout):
    weights = classifier(head)
    path = tmp_path / {"official": "x.pth", "safetensors": "x.safetensors"}[layout]
    assert export_weights(weights, layout, path).difference == 0
    again = read_weights(path)
    assert again.description == weights.description
    assert_same_state(again.state, weights.state)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ({"classes": ["a"], "pool": "max"}, "(?s)does not describe a model.*'max'"),
        ({"classes": ["a"], "pool": "mean", "extra": 1}, "ClassifierSpec has no extra"),
        (3, "does not describe a model"),
        ({"classes": ["a", "b"], "pool": "mean"}, r"head.bias is 3 and should be 2"),
    ],
)
def test_descriptions_of_another_head(tmp_path, head, sentence):
    weights = classifier(MEAN)
    write_model(tmp_path, weights.state, weights.description)
    values = unsealed(json.loads((tmp_path / "model.json").read_text()))
    if isinstance(head, dict):
        encoder = values["model"]["encoder"]
        head = {"type": "classifier", "encoder": encoder, **head}
    (tmp_path / "model.json").write_text(json.dumps({**values, "model": head}))
    with pytest.raises(CheckpointError, match=sentence):
        api.load(tmp_path)


@HEADS
def test_encoder_of_a_classifier(head):
    weights = classifier(head)
    encoder = build(weights.encoder_only())
    assert isinstance(encoder, VisionTransformer)
    d = encoder.description
    assert d.model == EncoderSpec(encoder=ODD.encoder, final_norm=head["pool"] == "class")
    assert d.notes == ((LEFT_OUT,) if head["pool"] == "class" else (LEFT_OUT, NORM_LEFT_OUT))
    images = images_for()
    assert encoder(images).equal(build(weights).encoder(images))
    assert weights.encoder_only().encoder_only() == weights.encoder_only()


@HEADS
def test_at_another_size(head):
    weights = classifier(head)
    larger = at_size(weights, (32, 64))
    assert head_of(larger.description) == head
    assert build(larger)(torch.randn(2, 3, 32, 64)).shape == (2, 3)
    positions = weights.state["encoder.pos_embed"]
    wanted = interpolate_positions(positions, (4, 3), (8, 8))
    assert_same_state(larger.state, {**weights.state, "encoder.pos_embed": wanted})


def test_encoder_that_fits_is_untouched():
    weights = random_weights(ODD)
    encoder, printed = encoder_for(weights, image_size=(16, 24), channels=3)
    assert printed == []
    assert not encoder.pos_embed.requires_grad
    assert_same_state(
        {f"encoder.{n}": v for n, v in encoder.state_dict().items()}, weights.encoder_only().state
    )


@pytest.mark.parametrize(("head", "norm"), [(TOKEN, ()), (MEAN, (NEW_NORM,))], ids=["class", "mean"])
def test_encoder_for_other_images(head, norm):
    weights = classifier(head)
    encoder, printed = encoder_for(weights, image_size=(8, 16), channels=1)
    assert printed == [
        "input weights of 3 channels summed into one",
        "positions interpolated from 4 x 3 to 2 x 2",
        *norm,
        LEFT_OUT,
        *((NORM_LEFT_OUT,) if norm else ()),
    ]
    assert encoder(torch.randn(2, 1, 8, 16)).shape == (2, 5, 24)
    untouched = weights.state["encoder.blocks.1.mlp.fc1.weight"]
    assert encoder.blocks[1].mlp.fc1.weight.equal(untouched)
    if norm:
        assert encoder.norm.weight.eq(1).all()
        assert encoder.norm.bias.eq(0).all()
    else:
        assert encoder.norm.weight.equal(weights.state["encoder.norm.weight"])


def test_a_new_norm_that_nobody_will_use_is_not_mentioned():
    _, printed = encoder_for(classifier(MEAN), image_size=(16, 24), channels=3, final_norm=False)
    assert printed == [LEFT_OUT, NORM_LEFT_OUT]


@HEADS
def test_pre_training_goes_on_from_a_classifier(head):
    model, weights = MaskedAutoencoder(ODD), classifier(head)
    printed = initialize_from(model, weights, "runs/x")
    assert printed.startswith(
        "the encoder starts from runs/x; decoder, which it does not have, initialised randomly"
    )
    assert LEFT_OUT in printed
    assert (NEW_NORM in printed) == (head["pool"] == "mean")
    for name, value in weights.encoder_only().state.items():
        assert model.state_dict()[name].equal(value)
    assert model(images_for()).loss.isfinite()


def test_a_truncated_file_gets_no_new_norm():
    weights = classifier(TOKEN)
    del weights.state["encoder.norm.weight"]
    with pytest.raises(CheckpointError, match=r"norm\.weight is missing"):
        encoder_for(weights, image_size=(16, 24), channels=3)


@HEADS
def test_batch_norm_becomes_part_of_the_head(head):
    weights, images = classifier(head), images_for()
    folded = without_batch_norm(weights)
    assert not folded.description.classifier.batch_norm
    assert not any(name.startswith("feature_norm") for name in folded.state)
    torch.testing.assert_close(build(folded)(images), build(weights)(images), atol=1e-5, rtol=0)
    assert (folded is weights) == (not head["batch_norm"])


def test_the_official_names():
    """Fine-tuned, and a linear probe, whose head is a sequence."""
    names = {name for name in to_official(classifier(MEAN).state) if not name.startswith("blocks.")}
    assert names == {
        "cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias",
        "fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias",
    }  # fmt: skip
    names = to_official(classifier(PROBE).state).keys()
    assert {n for n in names if n.startswith("head")} == {
        "head.0.running_mean", "head.0.running_var", "head.0.num_batches_tracked", "head.1.weight",
        "head.1.bias",
    }  # fmt: skip


@HEADS
def test_the_official_file_alone(tmp_path, head):
    weights = classifier(head, SQUARE)
    content = {"model": to_official(weights.state), "epoch": 9, "args": argparse.Namespace(nb_classes=3)}
    torch.save(content, tmp_path / "finetuned.pth")
    read = read_weights(tmp_path / "finetuned.pth")
    numbered = {"classes": ("0", "1", "2"), "eval_crop": 224 / 256, "precision": "fp32"}
    assert head_of(read.description) == {**head, **numbered}
    numbered, heads = read.description.notes
    assert numbered == "its 3 classes have no names and are numbered"
    assert heads.startswith("3 attention heads are assumed")
    assert_same_state(read.state, weights.state)
    images = images_for(SQUARE)
    assert api.load(tmp_path / "finetuned.pth")(images).equal(build(weights)(images))


@pytest.mark.parametrize("lost", ["head.bias", "fc_norm.bias"])
def test_heads_that_lack_something(tmp_path, lost):
    state = to_official(classifier(MEAN, SQUARE).state)
    del state[lost]
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=f"{lost} is missing"):
        api.load(tmp_path / "a.safetensors")


def test_names_of_classes():
    assert class_names(["a", "b"], 2) == (("a", "b"), True, ())
    assert class_names({"1": "b", "0": "a"}, 2) == (("a", "b"), True, ())
    assert class_names({"1": "b"}, 2) == (("0", "b"), True, ())
    numbered = "its 2 classes have no names and are numbered"
    for unfit in (None, ["a"], 3, "ab", {"0": "LABEL_0", "1": "LABEL_1"}):
        assert class_names(unfit, 2) == (("0", "1"), False, (numbered,))
    names, named, notes = class_names(None, 1000)
    assert (names[0], names[-1], len(set(names)), named) == ("n01440764", "n15075141", 1000, True)
    assert notes == ("its 1000 classes have no names and are assumed to be ImageNet-1K's",)


@pytest.mark.parametrize("layout", ["official", "safetensors", "timm", "hf"])
def test_names_that_are_not_known_stay_unknown(tmp_path, layout):
    """Of a bare file with 11 outputs, in every layout and back."""
    state = to_official(classifier({**TOKEN, "classes": tuple(map(str, range(11)))}, SQUARE).state)
    torch.save({"model": state}, tmp_path / "bare.pth")
    weights = read_weights(tmp_path / "bare.pth", heads=3)
    assert not weights.description.classifier.named
    path, _ = export_weights(weights, layout, default_path(layout, tmp_path))
    assert read_weights(path).description == weights.description
    card = path / "README.md" if path.is_dir() else path.with_suffix(".md")
    assert "11, whose names are not recorded." in card.read_text()


def test_card():
    d = classifier(PROBE, data="cells", recipe="linear-probe").description
    card = model_card(d, layout="timm", name="cells", line="load()", measured="Accuracy 81.20%")
    for wanted in (
        "pipeline_tag: image-classification", "- image-classification\n", "# cells",
        "A linear classifier", "The head is given the mean of the patches after a BatchNorm.",
        "## Classes\n\n3: cat; dog; eel.", "Evaluation crops the centre, 0.9 of the side",
        "measured: Accuracy 81.20%", "It knows these classes only",
    ):  # fmt: skip
        assert wanted in card, wanted
    for unwanted in ("masked:", "Pre-training has no labels", "self-supervised", "image processor"):
        assert unwanted not in card, unwanted
    many = replace(d.classifier, pool="class", classes=tuple(f"class\n{i}" for i in range(12)))
    card = model_card(replace(d, model=many), layout="hf", name="cells", line="load()")
    assert "12: class 0; class 1;" in card
    assert "class 9; and 2 more." in card
    assert "processor squeezes whole images into the input's shape" in card


def test_export_says_what_the_run_measured(tmp_path, capsys):
    weights = classifier(MEAN)
    write_model(tmp_path, weights.state, weights.description)
    scores = {"val/top1": 0.8125, "val/balanced_accuracy": 0.75, "val/top5": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 9, **scores}) + "\n")
    assert unmask(["export", str(tmp_path), "--to", "official"]) == 0
    assert "81.25%" in (tmp_path / "official.md").read_text()
    assert unmask(["export", str(tmp_path), "--to", "hf"]) == 4
    printed = capsys.readouterr().err
    assert "pools the mean of the patches: export it --to timm" in printed
    assert "whose folder transformers' pipeline opens" in printed


@pytest.fixture
def saved(tmp_path):
    def save(head: dict[str, Any]):
        weights = classifier(head)
        write_model(tmp_path, weights.state, weights.description)
        return tmp_path

    return save


@HEADS
def test_embedding_by_a_classifier(saved, photos, tmp_path, head):
    """With the head's own pool, features are those that it is given, of its evaluation's crops."""
    run = saved(head)
    model = api.load(run)
    images = api.read(photos, model).images
    d = model.description
    whole = build(Weights(model.state_dict(), replace(d, image=replace(d.image, eval_crop=1.0))))
    assert not images.equal(api.read(photos, whole).images)
    wanted = {
        (head["pool"], None): model.pooled(images).detach(),
        ("class", 1): model.encoder.features(images, pool="class", layer=1),
        ("patches", 2): model.encoder.features(images, pool="patches", layer=2),
    }
    for (pool, layer), features in wanted.items():
        out = api.embed(photos, init=run, out=tmp_path / "f.safetensors", pool=pool, layer=layer)
        assert np.allclose(load_file(out.path)["features"], features, atol=1e-5)


@pytest.mark.parametrize("pool", ["class", "patches"])
def test_a_norm_of_the_mean_is_for_the_mean(saved, photos, tmp_path, pool):
    config = EmbedConfig(
        source=(str(photos),), init=str(saved(MEAN)), out=str(tmp_path / "f.parquet"), pool=pool
    )
    with pytest.raises(ValueError, match=r"choose --pool mean, or .*--layer 2"):
        api.embed(config)


@pytest.mark.parametrize("layout", ["official", "safetensors", "timm"])
def test_format_1_did_not_say_that_an_encoder_has_no_norm(tmp_path, layout):
    weights = classifier(MEAN).encoder_only()
    path = default_path(layout, tmp_path)
    export_weights(weights, layout, path)
    assert read_weights(path).description == weights.description
    silent = to_json(described(EncoderSpec(encoder=ODD.encoder)))
    if layout == "official":
        torch.save({"model": to_official(weights.state), "unmask": silent}, path)
    elif layout == "safetensors":
        save_file(weights.state, path, {"unmask": silent})
    else:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "unmask": json.loads(silent)}))
    model = api.load(path)
    assert model.description.model == weights.description.model
    assert model(images_for()).equal(build(weights)(images_for()))


def test_embedding_says_what_is_missing(photos, tmp_path, capsys):
    weights = classifier(MEAN).encoder_only()
    path, _ = export_weights(weights, "safetensors", tmp_path / "encoder.safetensors")
    assert unmask(f"embed {photos} --init {path} --out {tmp_path / 'f.safetensors'}".split()) == 0
    assert f"note: {NORM_LEFT_OUT}" in capsys.readouterr().out
