"""Segmentation runs: exact resume, what is trained, how the loss is averaged, bad label maps, use."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

import unmask
from conftest import ENCODER
from tests_support import image_spec, mae_spec, random_weights, stopped_after
from unmask.cli.main import run
from unmask.config.classify import LabelledRun
from unmask.config.resolve import resolve_encoder
from unmask.config.segment import SegmentConfig, SegmentData, SegmentHead, SegmentOptim
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.engine.task import Draw
from unmask.errors import CheckpointError, DataError
from unmask.interop.description import Description
from unmask.interop.weights import read_weights, write_model
from unmask.models.segmenter import Segmenter
from unmask.models.segmenter_spec import SegmenterSpec
from unmask.runs.run import dry_run
from unmask.tasks.pixels import most_probable_classes
from unmask.tasks.segment import MappedBatch, Segment

pytestmark = pytest.mark.usefixtures("blank_charts")

CLASSES = ("ground", "box", "stripe")
HEIGHT, WIDTH = 20, 28


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Dark noise with a bright box and a striped field; a column has no label."""
    rng = np.random.default_rng(number)
    image, labels = rng.integers(0, 60, (HEIGHT, WIDTH, 3)), np.zeros((HEIGHT, WIDTH), int)
    top, left = rng.integers(0, 10), rng.integers(0, 8)
    image[top : top + 8, left : left + 8] += 180
    labels[top : top + 8, left : left + 8] = 1
    image[:, 18:26:2] += 120
    labels[:, 18:26] = 2
    labels[:, -1] = 255
    return image.astype(np.uint8), labels.astype(np.uint8)


def write_scenes(folder: Path, count: int = 16, as_image=lambda pixels: pixels, suffix="png") -> Path:
    for place in ("images", "labels"):
        (folder / place).mkdir(parents=True)
    for i in range(count):
        image, labels = scene(i)
        file = folder / "images" / f"{i:02}.{suffix}"
        if suffix == "tif":
            tifffile.imwrite(file, as_image(image), photometric="minisblack")
        else:
            Image.fromarray(as_image(image)).save(file)
        Image.fromarray(labels).save(folder / "labels" / f"{i:02}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """16 small images with label maps of three classes."""
    return write_scenes(tmp_path_factory.mktemp("mapped") / "scenes")


@pytest.fixture
def segment(scenes, tmp_path) -> SegmentConfig:
    """UperNet from scratch in fp32, with everything random switched on."""
    return tiny_segmenter(scenes, tmp_path / "run")


def tiny_segmenter(scenes: Path, out: Path) -> SegmentConfig:
    return SegmentConfig(
        out=str(out),
        scratch=True,
        data=SegmentData(source=(str(scenes),), size=(16,), workers=0),
        model=ENCODER,
        head=SegmentHead(width=8, drop_path=0.3, dropout=0.2),
        optim=SegmentOptim(
            steps=5, warmup_steps=2, batch=5, micro_batch=3, base_lr=0.05, layer_decay=0.75, ema=0.9
        ),
        run=LabelledRun(precision="fp32", log_every=1, evaluate_every=5, checkpoint_every=2),
    )


def losses(path: Path) -> list:
    return [(r["step"], r["loss"]) for r in read_metrics(RunDirectory(path)) if r.get("loss")]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def pixels_of(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def rows_of(file: Path) -> list[list[str]]:
    return list(csv.reader(file.read_text().splitlines()))


@pytest.fixture
def encoder(tmp_path) -> Path:
    """A run directory of pre-training with random weights."""
    dimensions = {"width": 16, "depth": 2, "heads": 2, "patch_size": (4, 4), "channels": 3}
    random = random_weights(
        mae_spec(image_size=(16, 16), decoder_width=8, decoder_depth=1, decoder_heads=2, **dimensions)
    )
    (tmp_path / "encoder").mkdir()
    write_model(tmp_path / "encoder", random.state, random.description)
    return tmp_path / "encoder"


def test_01_resume_is_exact_in_mid_epoch(segment, tmp_path, monkeypatch):
    segment = replace(segment, run=replace(segment.run, device="cpu"))
    whole = unmask.segment(replace(segment, out=str(tmp_path / "whole")))
    stopped_after(monkeypatch, 3, lambda: unmask.segment(segment))
    resumed = unmask.segment(replace(segment, data=replace(segment.data, cache_gib=-1.0)))
    assert losses(resumed) == losses(whole)
    first, second = weights(whole), weights(resumed)
    assert not [name for name in first if not first[name].equal(second[name])]
    assert read_metrics(RunDirectory(whole))[-1]["val/mean_iou"] >= 0


@pytest.mark.drawn
def test_it_learns_and_is_used(segment, scenes, tmp_path, capsys):
    """What evaluate says is what training measured last; predictions are as large as the images."""
    easy = replace(
        segment,
        data=replace(segment.data, scale=(0.8, 1.25)),
        head=SegmentHead(width=16, drop_path=0, dropout=0),
        optim=SegmentOptim(steps=60, warmup_steps=5, batch=8, base_lr=0.16),
        run=replace(segment.run, evaluate_every=60, checkpoint_every=60),
    )
    path = unmask.segment(easy)
    last = read_metrics(RunDirectory(path))[-1]
    assert last["val/mean_iou"] > 0.7
    page = (path / "report.html").read_text()
    assert "Mean IoU" in page
    assert all(name in page for name in CLASSES)
    log = (path / "train.log").read_text()
    assert "12 training images and 4 held out" in log
    assert "images for training" not in log, "the numbers of images are said once"
    model = unmask.load(path)
    assert isinstance(model, Segmenter)
    assert model.description.model.sides == (64, 16)

    assert run(["evaluate", str(scenes), "--init", str(path), "--out", str(tmp_path / "e")]) == 0
    assert "note: 12 images for training and 4 images for validation" in capsys.readouterr().out
    record = json.loads((tmp_path / "e" / "scores.json").read_text())
    for name in ("mean_iou", "mean_accuracy", "pixel_accuracy"):
        assert record[name] == last[f"val/{name}"]
    for one in record["per_class"]:
        assert one["iou"] == last[f"val/iou/{one['class']}"]
    everything = unmask.evaluate(scenes, init=path, split="all", out=tmp_path / "all").record
    assert (everything["images"], everything["pixels"]) == (16, 16 * HEIGHT * (WIDTH - 1))

    done = unmask.predict(scenes / "images", init=path, out=tmp_path / "p", sheet=3)
    assert (done.images, done.bad) == (16, [])
    predicted = pixels_of(tmp_path / "p" / "labels" / "03.png")
    labels = scene(3)[1]
    assert (predicted == labels)[labels != 255].mean() > 0.8
    assert pixels_of(tmp_path / "p" / "overlays" / "03.jpg").shape == (HEIGHT, WIDTH, 3)
    rows = rows_of(tmp_path / "p" / "shares.csv")
    assert rows[0] == ["path", *(f"share of {name}" for name in CLASSES)]
    assert [sum(map(float, row[1:])) for row in rows[1:]] == [pytest.approx(1)] * 16
    assert float(rows[4][2]) == pytest.approx((predicted == 1).mean())
    named = [row[:2] for row in rows_of(tmp_path / "p" / "classes.csv")]
    assert named == [["value", "name"], ["0", "ground"], ["1", "box"], ["2", "stripe"]]
    assert pixels_of(done.sheet).shape[1] > 300


@pytest.mark.parametrize("supervised", [False, True])
def test_a_frozen_encoder_stays_as_it_was(segment, encoder, stripes, tmp_path, supervised):
    if supervised:
        encoder = unmask.scratch(
            stripes, out=tmp_path / "labels", data_size=16, channels=3, workers=0, batch=8, steps=1,
            warmup_steps=0, precision="fp32", **{f"model_{n}": v for n, v in vars(ENCODER).items()},
        )  # fmt: skip
    before = weights(encoder)
    probe = replace(
        segment, scratch=False, init=str(encoder), head=SegmentHead(kind="linear", frozen=True)
    )
    path = unmask.segment(probe)
    after = weights(path)
    shared = [name for name in before if name.startswith("encoder.") and name in after]
    assert len(shared) > 20
    assert all(after[name].equal(before[name]) for name in shared)
    log = (path / "train.log").read_text()
    assert ("the encoder's final norm is new" in log) is supervised
    assert read_weights(path).encoder_only().state.keys() >= set(shared)


@pytest.mark.parametrize("layout", ["official", "safetensors"])
def test_a_frozen_encoder_is_exported_and_a_tuned_one_refused(tmp_path, layout):
    spec = SegmenterSpec(
        encoder=resolve_encoder(ENCODER, size=(16, 16), channels=3), classes=CLASSES, head="linear",
        relative_position=False, layer_scale=None,
    )  # fmt: skip
    image = image_spec(spec.encoder.image_size, 3)
    tuned = replace(spec, relative_position=True, layer_scale=1.0)
    for model, name in ((spec, "frozen"), (tuned, "tuned")):
        (tmp_path / name).mkdir()
        write_model(tmp_path / name, model.build().state_dict(), Description(model=model, image=image))
    path, difference = unmask.export(tmp_path / "frozen", to=layout)
    assert difference == 0
    assert "the segmentation head was left out" in read_weights(path).description.notes
    with pytest.raises(CheckpointError, match="the file that this training started from"):
        unmask.export(tmp_path / "tuned", to=layout)


def test_everything_is_trained_by_default(segment, encoder):
    before = weights(encoder)
    path = unmask.segment(replace(segment, scratch=False, init=str(encoder)))
    after = weights(path)
    changed = {n for n, v in after.items() if n in before and not v.equal(before[n])}
    assert {n for n in after if n in before} - changed == {"encoder.pos_embed"}
    with pytest.raises(CheckpointError, match="relative positions"):
        read_weights(path).encoder_only()
    with pytest.raises(ValueError, match="a segmenter gives no features"):
        unmask.embed(segment.data.source, init=path, out=encoder / "features.safetensors")


def test_it_says_where_to_begin(segment, encoder):
    with pytest.raises(ValueError, match="neither --init nor --scratch: write --init RUN"):
        unmask.segment(replace(segment, scratch=False))
    with pytest.raises(ValueError, match="both --init and --scratch"):
        unmask.segment(replace(segment, init=str(encoder)))


def test_the_loss_is_a_mean_over_labelled_pixels(segment):
    """However a batch is divided: images with few labels count less."""
    segment = replace(segment, head=replace(segment.head, drop_path=0, dropout=0))
    task, plan = Segment(segment), dry_run(Segment(segment))
    model = task.model(plan, None)[0].eval()
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    labels = torch.randint(3, (3, 16, 16), dtype=torch.uint8)
    labels[0, 1:], labels[1] = 255, 255
    draw = Draw(plan=plan, device=torch.device("cpu"), step=0, first=0)
    whole = task.step(model, MappedBatch(images, labels), draw)
    parts = [task.step(model, MappedBatch(images[i : i + 1], labels[i : i + 1]), draw) for i in range(3)]
    assert [part.weight for part in parts] == [16, 0, 256]
    assert whole.weight == 272
    total = sum(part.loss * part.weight for part in parts)
    torch.testing.assert_close(whole.loss * 272, total)


@pytest.mark.parametrize(("classes", "size"), [(3, (9, 7)), (40, (13, 20)), (17, (5, 6))])
def test_classes_are_the_likeliest_of_all_however_many_are_enlarged_at_once(classes, size):
    logits = torch.randn(2, classes, 5, 6)
    enlarged = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    assert most_probable_classes(logits, size).equal(enlarged.argmax(dim=1))


def test_batch_norm_needs_two_images(segment):
    alone = replace(segment, optim=replace(segment.optim, micro_batch=4))
    with pytest.raises(ValueError, match="leaves one alone"):
        unmask.segment(alone)


def grey_16_bits(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0].astype(np.uint16) * 257


def five_bands(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, pixels[..., :2]], axis=-1).astype(np.uint16) * 100


@pytest.mark.parametrize(
    ("as_image", "suffix", "channels"), [(grey_16_bits, "png", 1), (five_bands, "tif", 5)]
)
def test_images_of_other_kinds(segment, tmp_path, as_image, suffix, channels):
    folder = write_scenes(tmp_path / "others", 8, as_image, suffix)
    others = replace(segment, data=replace(segment.data, source=(str(folder),)))
    path = unmask.segment(others)
    description = read_weights(path).description
    assert (description.image.channels, description.image.dtype) == (channels, "float32")
    assert "colours are not distorted" in (path / "train.log").read_text()
    assert unmask.predict(folder / "images", init=path, out=tmp_path / "p").images == 8


def spoil_size(folder: Path) -> None:
    Image.new("L", (9, 9)).save(folder / "labels" / "05.png")


def spoil_value(folder: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT), 7).save(folder / "labels" / "05.png")


def remove_map(folder: Path) -> None:
    (folder / "labels" / "05.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "says", "workers"),
    [
        (spoil_size, "05.png has 9 x 9 pixels and its image", "0"),
        (spoil_size, "05.png has 9 x 9 pixels and its image", "1"),
        (spoil_value, "05.png holds the label 7 and there are 3 classes, from 0 to 2", "0"),
        (remove_map, "1 of 16 images have no label map in", "0"),
    ],
)
def test_24_bad_label_maps(scenes, tmp_path, capsys, spoil, says, workers):
    """A run stops with one sentence that names the file; check names it before."""
    folder = tmp_path / "spoilt"
    shutil.copytree(scenes, folder)
    spoil(folder)
    words = ["segment", str(folder), "--scratch", "--out", str(tmp_path / "run"), "--data.size", "16"]
    words += "--model.patch 4 --model.width 16 --model.depth 1 --model.heads 2 --head linear".split()
    words += ["--optim.steps", "4", "--optim.warmup-steps", "0", "--optim.batch", "12"]
    assert run([*words, "--data.workers", workers]) == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("unmask: ")
    assert says in error
    assert "Error" not in error
    code = run(["check", str(folder), "--data.size", "32", "--out", str(tmp_path / "check")])
    shown = capsys.readouterr()
    assert code == (3 if spoil is remove_map else 0)
    assert says in (shown.out + shown.err).replace("\n", " ")


def test_check_counts_pixels_of_classes(scenes, tmp_path, capsys):
    words = ["--device", "cpu", "--data.size", "32", "--out", str(tmp_path / "check")]
    assert run(["check", str(scenes), *words]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "images 16, of which" in output
    assert "16, of which 0 are bad" in output
    stripe = 8 / (WIDTH - 1)
    assert f"stripe {stripe:.2%}" in output
    assert f"unlabelled pixels {1 / WIDTH:.1%}" in output
    assert f"next: unmask pretrain {scenes / 'images'} --recipe laptop" in output
    assert f"next: unmask segment {scenes} --init RUN" in output


def test_a_class_that_the_model_does_not_know(segment, scenes, tmp_path):
    quick = replace(segment, optim=replace(segment.optim, steps=1, warmup_steps=0))
    path = unmask.segment(quick)
    folder = tmp_path / "more"
    shutil.copytree(scenes, folder)
    with pytest.raises(ValueError, match="--robustness a is of classifiers"):
        unmask.evaluate(folder, init=path, robustness="a", out=tmp_path / "e")
    for name in ("single_class", "label_column"):
        with pytest.raises(ValueError, match=r"--data.* thing is of .*detectors, and .* a segmenter"):
            unmask.evaluate(folder, init=path, out=tmp_path / "e", **{f"data_{name}": "thing"})
    with pytest.raises(ValueError, match="--top 2 is of classifiers"):
        unmask.predict(folder / "images", init=path, out=tmp_path / "p", top=2)
    with pytest.raises(ValueError, match="--robustness a is of classifiers"):
        unmask.evaluate(folder, init=path / "model.safetensors", robustness="a", out=tmp_path / "e")
    (folder / "classes.txt").write_text("ground\nbox\nstripe\nsky")
    with pytest.raises(DataError, match="has the class 'sky', which the model does not know"):
        unmask.evaluate(folder, init=path, out=tmp_path / "e")


@pytest.mark.slow
def test_a_sweep_of_heads(segment, tmp_path):
    study = unmask.segment(segment, sweep={"head.kind": ["upernet", "linear"]}, seeds=[0, 1], steps=2)
    assert len(list(Path(segment.out).glob("*/model.safetensors"))) == 4
    assert study is not None
