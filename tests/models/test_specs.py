"""Specs: an open registry, JSON both ways, earlier formats, and no torch."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from torch import nn

from tests_support import described, mae_spec
from unmask.config.io import plain, spec_from_dict, to_json
from unmask.config.migrate import MODEL_FORMAT, migrate_model
from unmask.core import spec as spec_module
from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import MAESpec, MaskSpec, ViTSpec, register
from unmask.core.vit import VisionTransformer
from unmask.errors import CheckpointError
from unmask.interop.description import Description, Weights, parse_description
from unmask.interop.models import build
from unmask.interop.weights import read_weights, write_model
from unmask.models.classifier import Classifier
from unmask.models.classifier_spec import ClassifierSpec, EncoderSpec
from unmask.models.detector import Detector
from unmask.models.detector_spec import DetectorSpec
from unmask.models.segmenter import Segmenter
from unmask.models.segmenter_spec import SegmenterSpec

EARLIER = Path(__file__).parents[1] / "golden" / "earlier"
MAE = mae_spec(
    image_size=(8, 12), patch_size=(4, 4), channels=3, width=24, depth=1, heads=2, mlp_ratio=3.5,
    class_tokens=2, decoder_width=8, decoder_depth=1, decoder_heads=1, mask_ratio=0.6,
    mask_tokens_in_encoder=True, target="pixels", loss_on="all",
)  # fmt: skip
PLAIN = {
    "masked-autoencoder": MAE,
    "encoder": EncoderSpec(encoder=MAE.encoder, final_norm=False),
    "classifier": ClassifierSpec(
        encoder=MAE.encoder, classes=("é", "\udcff"), pool="mean", batch_norm=True
    ),
    "detector": DetectorSpec(
        encoder=replace(MAE.encoder, depth=4), classes=("a", "b"), window=None, anchor_ratios=(1.0,)
    ),
    "segmenter": SegmenterSpec(
        encoder=MAE.encoder, classes=("a", "b"), colours=((0, 0, 0), (255, 9, 128)), sides=(90, 30),
        head="linear", layer_scale=None,
    ),
}  # fmt: skip
BUILT = {
    "masked-autoencoder": MaskedAutoencoder,
    "encoder": VisionTransformer,
    "classifier": Classifier,
    "detector": Detector,
    "segmenter": Segmenter,
}


@pytest.mark.parametrize("tag", PLAIN)
def test_specs_come_back_from_json_and_are_built(tag):
    values = json.loads(to_json(PLAIN[tag]))
    assert next(iter(values.items())) == ("type", tag)
    again = spec_from_dict(values)
    assert again == PLAIN[tag]
    assert isinstance(again.build(), BUILT[tag])


@pytest.fixture
def registry(monkeypatch):
    """Forgets what a test registers."""
    monkeypatch.setattr(spec_module, "SPECS", before := spec_module.SPECS)
    known = dict(before)
    yield
    before.clear()
    before.update(known)


def test_a_spec_of_anyone_is_read_built_and_written(registry, tmp_path):
    @register("rotations")
    @dataclass(frozen=True, kw_only=True)
    class RotationSpec:
        encoder: ViTSpec
        mask: MaskSpec
        angles: tuple[int, ...] = (0, 90)

        def build(self) -> nn.Module:
            return nn.Sequential(self.encoder.build(), nn.Linear(self.encoder.width, len(self.angles)))

    spec = RotationSpec(encoder=MAE.encoder, mask=MaskSpec(ratio=0.5), angles=(0, 90, 180))
    values = json.loads(to_json(spec))
    assert values["type"] == "rotations"
    assert spec_from_dict(values) == spec
    model = spec.build()
    write_model(tmp_path, model.state_dict(), described(spec))
    again = read_weights(tmp_path)
    assert again.description == described(spec)
    assert build(again)[1].weight.equal(model[1].weight)


def test_an_unknown_type_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"no model of type .* among .*classifier, .*: import"):
        spec_from_dict({"type": "detector-of-tomorrow"})
    with pytest.raises(ValueError, match="the type of a model is text, not None"):
        spec_from_dict({})
    values = plain(described(MAE))
    values["model"]["type"] = "rotations"
    with pytest.raises(CheckpointError, match=r"x\.json does not .* no model of type 'rotations' among"):
        parse_description(values, "x.json")


@pytest.mark.parametrize("damage", [3, None, "text", ["a"]])
@pytest.mark.parametrize("place", ["model", "image"])
def test_what_is_no_record_is_refused(damage, place):
    values = plain(described(MAE)) | {place: damage}
    with pytest.raises(CheckpointError, match=r"x\.json does not describe a model: .* names and values"):
        parse_description(json.dumps(values), "x.json")


ALONE = """
import sys
from unmask.config.io import spec_from_dict
from unmask.errors import DataError
import unmask.config.commands, unmask.core.spec, unmask.models.classifier_spec
import unmask.recipes.classify, unmask.recipes.pretrain, unmask.tasks

encoder = dict(image_size=[4, 4], patch_size=[2, 2], channels=1, width=4, depth=1, heads=1)
print(type(spec_from_dict({"type": "encoder", "encoder": encoder})).__name__)
for wrong in (
    {"type": "classifier", "encoder": encoder, "classes": ["a"], "pool": "max"},
    {"type": "masked-autoencoder", "encoder": encoder, "target": {"kind": "sounds"}},
    {"type": "masked-autoencoder", "encoder": encoder, "target": {"loss_on": "none"}},
    {"type": "masked-autoencoder", "encoder": {**encoder, "patch_size": [1, 1]}},
    *(
        {"type": "segmenter", "encoder": encoder, "classes": ["a", "b"], "colours": colours}
        for colours in (
            [[0, 0, 0]], [], [[0, 0, 0], [0, 0, 256]], [[0, 0, 0], [0, -1, 0]], [[0, 0, 0], [0, 0]],
            [[0, 0, 0], [0, 0, 0.5]], [[0, 0, 0], [0, 0, True]], [[0, 0, 0], [0, 0, [1]]],
            [[0, 0, 0], "abc"], [0, 0], "ab", {"a": [0, 0, 0]}, 3,
        )
    ),
):
    try:
        spec_from_dict(wrong)
    except ValueError as error:
        print(error)
print(sorted({"torch", "numpy", "PIL"} & set(sys.modules)))
"""


def test_specs_configurations_recipes_and_tasks_need_no_torch():
    """And refuse what cannot be without beartype, which tests install and users do not have."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    wrong_types = lines[9:-1]
    assert [line for line in lines if line not in wrong_types] == [
        "EncoderSpec",
        "pool is 'max': choose one of class, mean",
        "target.kind is 'sounds': choose one of pixels, normalized-pixels, pca, tokens",
        "target.loss_on is 'none': choose one of masked, all",
        "a patch of one value cannot be normalised by its own standard deviation: choose larger "
        "patches, or the target 'pixels'",
        *4
        * (
            "'colours' is not red, green and blue, from 0 to 255, of each of the 2 classes: correct or "
            "remove it",
        ),
        "[]",
    ], done.stderr
    assert len(wrong_types) == 9
    assert all(
        line.startswith("colours is ") and line.endswith(" and must be lists of 3 whole numbers or None")
        for line in wrong_types
    )


DESCRIPTIONS = [
    described(MAE, recipe="laptop", data="gr\udcfcn", steps=3, licence_note="CC0", notes=("a", "b")),
    described(PLAIN["encoder"], dtype="float32", display=(3, 1, 2)),
    described(replace(PLAIN["classifier"], classes=("a", "b")), eval_crop=0.875, precision="bf16"),
]


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=["mae", "encoder", "classifier"])
def test_descriptions_come_back_from_json(description):
    values = json.loads(json.dumps(plain(description)))
    assert values["format"] == MODEL_FORMAT
    assert parse_description(values, "x") == description
    assert parse_description(json.dumps(values), "x") == description


@pytest.mark.parametrize("written", [MODEL_FORMAT + 1, 99])
def test_a_newer_format_is_refused(written):
    values = plain(described(MAE)) | {"format": written}
    with pytest.raises(
        CheckpointError, match=f"format {written} and .* reads up to {MODEL_FORMAT}: inst"
    ):
        parse_description(values, "x.json")


def earlier(run: str) -> tuple[dict, Description]:
    """model.json as it was written, and as it is read now."""
    path = EARLIER / run / "model.json"
    values = json.loads(path.read_text())
    assert "format" not in values
    return values, parse_description(values, path)


@pytest.mark.parametrize("run", ["pretrain", "finetune", "probe"])
def test_format_1_says_the_same_in_todays(run):
    was, now = earlier(run)
    a, head = was["architecture"], was["head"]
    encoder = {name: value for name, value in a.items() if name in ViTSpec.__dataclass_fields__}
    assert plain(now.encoder) == encoder
    assert now.format == MODEL_FORMAT
    for name in ("recipe", "data", "steps", "weights", "licence_note"):
        assert getattr(now, name) == was[name]
    image = now.image
    assert (list(image.size), image.channels) == (a["image_size"], a["channels"])
    assert (list(image.mean), list(image.std)) == (was["mean"], was["std"])
    assert (image.dtype, image.display) == (was["pixel_type"], was["display"])
    if run == "pretrain":
        assert (head, image.eval_crop) == (None, 1.0)
        mae = now.autoencoder
        assert (mae.decoder.width, mae.decoder.depth) == (a["decoder_width"], a["decoder_depth"])
        assert (mae.decoder.heads, mae.decoder.mlp_ratio) == (a["decoder_heads"], a["mlp_ratio"])
        assert (mae.mask.ratio, mae.mask.unit) == (a["mask_ratio"], a["mask_unit"])
        assert mae.mask.tokens_in_encoder == a["mask_tokens_in_encoder"]
        assert (mae.target.kind, mae.target.loss_on) == (a["target"], a["loss_on"])
    else:
        assert now.autoencoder is None
        assert (list(now.classifier.classes), now.classifier.pool) == (head["classes"], head["pool"])
        assert now.classifier.batch_norm == head["batch_norm"]
        assert (image.eval_crop, now.precision) == (head["eval_crop"], head["precision"])


def test_format_1_of_an_encoder_alone_and_of_the_first_versions():
    """Keys that the first versions did not write have their defaults."""
    was, now = earlier("pretrain")
    alone = migrate_model({**was, "has_decoder": False})
    assert parse_description(alone, "x").model == EncoderSpec(encoder=now.encoder)
    late = ("mask_tokens_in_encoder", "class_tokens", "mask_unit", "loss_on")
    first = {name: value for name, value in was["architecture"].items() if name not in late}
    kept = ("mean", "std", "recipe", "data", "steps")
    values = {"architecture": first, **{name: was[name] for name in kept}}
    assert isinstance(parse_description(values, "x").model, MAESpec)
    assert migrate_model(alone) == alone


def test_weights_of_format_1_are_built_as_they_are():
    for run in ("pretrain", "finetune", "probe"):
        weights = read_weights(EARLIER / run)
        assert isinstance(weights, Weights)
        assert build(weights).state_dict().keys() == weights.state.keys()
