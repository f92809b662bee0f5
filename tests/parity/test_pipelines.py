"""From image files to scores: ours, timm's own data settings and transform, transformers' pipeline."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image

import unmask
from conftest import photograph
from tests_support import mae_spec, random_classifier, random_weights, whole_head
from unmask.config.image import ImageSpec, crop_share, resized_side
from unmask.data.centre_crops import load_centre_crops
from unmask.data.normalize import normalize
from unmask.data.sources.find import find_images
from unmask.interop.export import export_weights
from unmask.interop.hf_images import hf_preprocessor, read_preprocessor
from unmask.interop.weights import read_weights, write_model
from unmask.use import evaluate

SPEC = mae_spec(
    image_size=(32, 32), patch_size=(8, 8), channels=3, width=24, depth=2, heads=3,
    decoder_width=8, decoder_depth=1, decoder_heads=1,
)  # fmt: skip
CLASSES = ("ant", "bee", "cow", "dab", "emu")
NEAR = 1e-4
"""Largest difference of probabilities."""


@pytest.fixture(autouse=True)
def _quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Folders of classes, with pictures of the size that the model sees: nothing is resampled."""
    folder = tmp_path_factory.mktemp("pipelines") / "pictures"
    for i in range(40):
        place = folder / CLASSES[i % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).normal(0, 40, (32, 32, 3))
        pixels = np.asarray(photograph(i, 32, 32), dtype=float) + noise
        Image.fromarray(np.uint8(pixels.clip(0, 255))).save(place / f"{i:02d}.png")
    return folder


def classifier(pool: str, eval_crop: float = 1.0) -> Any:
    weights = random_classifier(
        SPEC, whole_head(classes=CLASSES, pool=pool, eval_crop=eval_crop), mean=(0.5, 0.45, 0.4)
    )
    weights.state["head.weight"] *= 3
    return weights


def probabilities(source: Path, pictures: Path, out: Path) -> np.ndarray:
    """Ours, by file and class, sorted."""
    unmask.predict(pictures, init=source, out=out, sheet=0)
    with (out / "predictions.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["path"])
    return np.array([[float(row[f"probability of {name}"]) for name in CLASSES] for row in rows])


def as_seen(files: list[Path], image: ImageSpec) -> torch.Tensor:
    crops = load_centre_crops(find_images(tuple(map(str, files))), image)
    return normalize(crops, image.mean, image.std)


def files_in(pictures: Path) -> list[Path]:
    return sorted(pictures.rglob("*.png"))


def by_timm(folder: Path, pictures: Path) -> np.ndarray:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    settings = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**settings, is_training=False)
    images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files_in(pictures)])
    with torch.no_grad():
        return model(images).softmax(dim=1).numpy()


def by_transformers(folder: Path, pictures: Path) -> np.ndarray:
    pipeline = transformers.pipeline("image-classification", model=str(folder), device="cpu")
    found = pipeline([str(file) for file in files_in(pictures)], top_k=len(CLASSES))
    scores = [{one["label"]: one["score"] for one in answers} for answers in found]
    return np.array([[each[name] for name in CLASSES] for each in scores])


@pytest.mark.parametrize(
    ("layout", "pool", "library"),
    [
        ("timm", "class", by_timm),
        ("timm", "mean", by_timm),
        ("timm", "mean", by_transformers),
        ("hf", "class", by_transformers),
    ],
)
def test_scores_of_the_same_files(tmp_path, pictures, monkeypatch, layout, pool, library):
    monkeypatch.setattr(evaluate, "pictures", lambda labelled, image, scored: iter(()))
    weights = classifier(pool)
    run = tmp_path / "run"
    run.mkdir()
    write_model(run, weights.state, weights.description)
    folder = unmask.export(run, to=layout).path
    theirs = library(folder, pictures)
    labels = np.array([CLASSES.index(file.parent.name) for file in files_in(pictures)])
    for source in (run, folder):
        ours = probabilities(source, pictures, tmp_path / f"by {source.name}")
        assert np.abs(ours - theirs).max() < NEAR
        assert theirs.std(axis=0).min() > 0.02, "pictures differ"
        result = unmask.evaluate(pictures, init=source, split="all", out=tmp_path / f"of {source.name}")
        assert result.record["top1"] == pytest.approx((theirs.argmax(axis=1) == labels).mean())


@pytest.mark.parametrize(
    ("layout", "pool", "library", "near"),
    [
        ("timm", "mean", by_timm, NEAR),
        ("timm", "class", by_transformers, NEAR),
        ("hf", "class", by_transformers, 2e-3),  # which resizes tensors, not pictures
    ],
)
def test_scores_of_larger_files(tmp_path, layout, pool, library, near):
    """Resized and cropped: an evaluation crop of 0.8, and shapes of which no half pixel is cut off."""
    shapes = ((48, 60), (60, 48), (48, 72), (75, 60), (50, 60))
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        photograph(i, *shapes[i % len(shapes)]).save(tmp_path / "pictures" / f"{i:02d}.png")
    folder, _ = export_weights(classifier(pool, eval_crop=0.8), layout, tmp_path / layout)
    ours = probabilities(folder, tmp_path / "pictures", tmp_path / "ours")
    theirs = library(folder, tmp_path / "pictures")
    assert np.abs(ours - theirs).max() < near
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()


def test_a_classifier_of_transformers_as_its_pipeline_sees_it(tmp_path, pictures):
    """Their own folder, with an image processor that crops, read here."""
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=96, layer_norm_eps=1e-6, id2label=dict(enumerate(CLASSES)),
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path / "theirs")
    transformers.BitImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, rescale_factor=1 / 127.5,
        image_mean=[1.0, 0.9, 0.8], image_std=[0.5, 0.6, 0.7],
    ).save_pretrained(tmp_path / "theirs")  # fmt: skip
    ours = probabilities(tmp_path / "theirs", pictures, tmp_path / "ours")
    assert np.abs(ours - by_transformers(tmp_path / "theirs", pictures)).max() < NEAR


def test_grey_pictures_reach_a_model_of_colours(tmp_path):
    """do_convert_rgb."""
    for i in range(3):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        photograph(i, 32, 32).convert("L").save(tmp_path / "pictures" / f"{i}.png")
    folder, _ = export_weights(classifier("class"), "hf", tmp_path / "hf")
    ours = probabilities(folder, tmp_path / "pictures", tmp_path / "ours")
    assert np.abs(ours - by_transformers(folder, tmp_path / "pictures")).max() < NEAR


@pytest.mark.parametrize(("side", "share"), [(224, 224 / 256), (32, 1.0), (32, 0.8), (224, 0.9)])
def test_the_exported_processor_crops_as_torchvision_does(tmp_path, side, share):
    """The shorter side is resized, the centre cropped, nothing squeezed."""
    spec = mae_spec(image_size=(side, side), patch_size=(8, 8), channels=3, width=24, depth=1, heads=3)
    weights = random_classifier(spec, whole_head(classes=CLASSES, pool="class", eval_crop=share))
    settings = hf_preprocessor(weights.description)
    resized = resized_side(side, share)
    assert settings["size"] == {"shortest_edge": resized}
    assert resized == (256 if (side, share) == (224, 224 / 256) else int(side / share))
    processor = transformers.BitImageProcessor(
        **{name: v for name, v in settings.items() if name != "image_processor_type"}
    )
    picture = photograph(3, 300, 450)  # no half pixels, which they round each in their own way
    found = processor(picture, return_tensors="pt")["pixel_values"][0]
    v2 = torchvision.transforms.v2
    wanted = v2.Compose(
        [
            v2.Resize(resized, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(side),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(settings["image_mean"], settings["image_std"]),
        ]
    )(picture)
    assert found.shape == wanted.shape
    level = 1 / 255 / min(settings["image_std"])
    assert (found - wanted).abs().max() < 2.01 * level, "but for rounding to whole grey levels"
    seen = read_preprocessor(settings)
    assert (seen.size, seen.notes) == ((side, side), ())
    assert resized_side(side, seen.crop) == resized


@pytest.mark.parametrize("side", [32, 224, 256, 384, 448])
def test_the_share_gives_the_side_back(side):
    for resized in range(side, 2 * side):
        assert resized_side(side, crop_share(side, resized)) == resized


@pytest.mark.parametrize(
    ("settings", "size", "crop", "squeezes"),
    [
        ({"size": 224}, (224, 224), 1.0, True),
        ({"size": {"height": 224, "width": 192}}, (224, 192), 1.0, True),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, (224, 224), 0.875, True),
        (
            {
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
            },
            (224, 224),
            0.875,
            False,
        ),
        ({"size": {"shortest_edge": 224}}, None, 1.0, False),
        ({"size": 224, "do_resize": False}, (224, 224), 1.0, False),
        ({}, None, 1.0, False),
    ],
)
def test_what_image_processors_say(settings, size, crop, squeezes):
    seen = read_preprocessor(settings)
    assert (seen.size, seen.crop, bool(seen.notes)) == (size, crop, squeezes)


@pytest.mark.parametrize(
    ("settings", "statistics"),
    [
        ({"image_mean": [0.5], "image_std": [0.25]}, ([0.5], [0.25])),
        ({"image_mean": [0.5], "image_std": [0.25], "do_normalize": False}, ([0.0], [1.0])),
        ({"image_mean": [127.5], "image_std": [51.0], "do_rescale": False}, ([0.5], [0.2])),
        ({"image_mean": [1.0], "image_std": [0.5], "rescale_factor": 1 / 127.5}, ([0.5], [0.25])),
        ({"image_mean": 0.5, "image_std": 0.5}, None),
    ],
)
def test_statistics_are_on_the_scale_0_to_1(settings, statistics):
    found = read_preprocessor(settings).statistics
    assert found == (statistics and tuple(map(pytest.approx, statistics)))


def test_a_processor_for_another_size_resizes_the_model(tmp_path):
    weights = classifier("class")
    folder, _ = export_weights(weights, "hf", tmp_path / "hf")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"unmask"', '"other"'))
    text = (folder / "preprocessor_config.json").read_text()
    (folder / "preprocessor_config.json").write_text(re.sub(r"\b32\b", "48", text))
    d = read_weights(folder).description
    assert (d.encoder.image_size, d.image.size) == ((48, 48), (48, 48))
    assert d.notes == (
        "positions are interpolated for images of 48 x 48, which its image processor makes",
    )
    images = torch.randn(1, 3, 48, 48)
    theirs = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = theirs(images, interpolate_pos_encoding=True).logits
        assert (unmask.load(folder)(images) - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize("encoder_only", [False, True])
def test_the_cards_lines_give_deterministic_features(tmp_path, pictures, encoder_only, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    weights = random_weights(SPEC)
    write_model(run, weights.state, weights.description)
    folder = unmask.export(run, to="hf", encoder_only=encoder_only).path
    card = (folder / "README.md").read_text()
    lines = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)[1]
    assert ("ViTMAEModel" in lines) == (not encoder_only)
    files = files_in(pictures)[:6]
    values = {
        "torch": torch,
        "transformers": transformers,
        "pictures": [Image.open(file) for file in files],
    }
    monkeypatch.chdir(run)
    with torch.no_grad():
        exec(lines, values)
    model = unmask.load(run)
    with torch.no_grad():
        wanted = model.features(as_seen(files, model.description.image), pool="mean")
    torch.testing.assert_close(values["features"], wanted, atol=1e-4, rtol=0)
