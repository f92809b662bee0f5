"""Detection runs: exact resume, samples, where a run begins, what is refused, and use."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unmask
from tests_support import image_spec, mae_spec, random_weights, stopped_after
from unmask.cli.main import run
from unmask.cli.tables import show_predict
from unmask.config.detect import (
    DetectConfig,
    DetectData,
    DetectOptim,
    DetectorParts,
    DetectRun,
    NewEncoder,
)
from unmask.data.decode.pictures import DecodedPicture
from unmask.data.detections import find_detections
from unmask.data.placement import Placement
from unmask.data.sampler import SampleKey, generator
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.errors import DataError
from unmask.evals.objects import FoundObjects
from unmask.interop.weights import read_weights, write_model
from unmask.runs.run import dry_run
from unmask.tasks.detect import Detect
from unmask.tasks.detections import DetectionFigures, Finder, true_objects
from unmask.tasks.objects import ObjectSamples, placed
from unmask.use.detect import Detected

pytestmark = pytest.mark.usefixtures("blank_charts")

HEIGHT, WIDTH = 40, 56
NAMES = ("box", "disc")


def scene(number: int) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Dark noise with a green box and, mostly, a red disc; every seventh image is empty."""
    rng = np.random.default_rng(number)
    image, objects = rng.integers(0, 60, (HEIGHT, WIDTH, 3)), []
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for label in range(2 if number % 7 else 0):
        side = rng.integers(12, 20)
        top, left = rng.integers(0, HEIGHT - side), rng.integers(0, WIDTH - side)
        inside = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
        if label:
            middle = (side - 1) / 2
            inside = (y - top - middle) ** 2 + (x - left - middle) ** 2 <= (side / 2) ** 2
        image[inside] = (220, 30, 30) if label else (30, 220, 30)
        objects = [(k, mask & ~inside) for k, mask in objects] + [(label, inside)]
    return image.astype(np.uint8), [(k, mask) for k, mask in objects if mask.any()]


def run_lengths(mask: np.ndarray) -> dict:
    flat = mask.T.ravel().astype(np.int8)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    counts = np.diff(np.concatenate([[0], changes, [] if changes[-1] == flat.size else [flat.size]]))
    return {"size": list(mask.shape), "counts": counts.astype(int).tolist()}


def box_of(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]


def write_scenes(folder: Path, parts: dict[str, int], masks: bool = True, names=NAMES) -> Path:
    first = 0
    for part, count in parts.items():
        (folder / part).mkdir(parents=True)
        images, annotations = [], []
        for i in range(first, first + count):
            pixels, objects = scene(i)
            Image.fromarray(pixels).save(folder / part / f"{i:03}.png")
            images.append({"id": i, "file_name": f"{i:03}.png", "height": HEIGHT, "width": WIDTH})
            for label, mask in objects:
                row = {"id": len(annotations) + 1, "image_id": i, "category_id": label + 1}
                row |= {"bbox": box_of(mask), "area": int(mask.sum()), "iscrowd": 0}
                annotations.append(row | ({"segmentation": run_lengths(mask)} if masks else {}))
        categories = [{"id": k + 1, "name": name} for k, name in enumerate(names)]
        content = {"images": images, "categories": categories, "annotations": annotations}
        (folder / f"{part}.json").write_text(json.dumps(content))
        first += count
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """14 small images to train on and 4 to validate on, with masks of two classes."""
    return write_scenes(tmp_path_factory.mktemp("objects") / "scenes", {"train": 14, "val": 4})


@pytest.fixture
def detect(scenes, tmp_path) -> DetectConfig:
    """A tiny detector from scratch in fp32, with everything random switched on."""
    return tiny_detector(scenes, tmp_path / "run")


def tiny_detector(scenes: Path, out: Path) -> DetectConfig:
    return DetectConfig(
        out=str(out),
        scratch=True,
        data=DetectData(source=(str(scenes),), size=(32, 48), scale=(0.5, 1.5), workers=0),
        model=NewEncoder(patch=(8,), width=16, depth=4, heads=2),
        detector=DetectorParts(
            window=2, global_blocks=2, channels=8, head_norm="layer", head_width=16, anchor_scale=2.0,
            sampled_anchors=16, sampled_proposals=12, proposals=20, drop_path=0.3, detections=5,
            relative_position="decomposed",
        ),
        optim=DetectOptim(
            steps=5, warmup_steps=1, batch=5, micro_batch=3, base_lr=0.02, layer_decay=0.75, ema=0.9
        ),
        run=DetectRun(precision="fp32", log_every=1, evaluate_every=5, checkpoint_every=2),
    )  # fmt: skip


@pytest.fixture
def encoder(tmp_path) -> Path:
    """A run directory of pre-training with random weights."""
    dimensions = {"width": 16, "depth": 4, "heads": 2, "patch_size": (8, 8), "channels": 3}
    decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    random = random_weights(mae_spec(image_size=(32, 32), **decoder, **dimensions))
    (tmp_path / "encoder").mkdir()
    write_model(tmp_path / "encoder", random.state, random.description)
    return tmp_path / "encoder"


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    """Figures take longer than tiny runs."""
    monkeypatch.setattr(DetectionFigures, "run", lambda self, model, processes: iter(()))


def losses(path: Path) -> list:
    return [(r["step"], r["loss"]) for r in read_metrics(RunDirectory(path)) if r.get("loss")]


def test_01_resume_is_exact_in_mid_epoch(no_pictures, detect, tmp_path, monkeypatch):
    detect = replace(detect, run=replace(detect.run, device="cpu"))
    whole = unmask.detect(replace(detect, out=str(tmp_path / "whole")))
    stopped_after(monkeypatch, 3, lambda: unmask.detect(detect))
    resumed = unmask.detect(replace(detect, data=replace(detect.data, cache_gib=-1.0)))
    assert losses(resumed) == losses(whole)
    first, second = (load_file(path / "model.safetensors") for path in (whole, resumed))
    assert not [name for name in first if not first[name].equal(second[name])]
    last = read_metrics(RunDirectory(whole))[-1]
    assert last["detection/box_ap"] >= 0
    assert last["detection/mask_ap50"] >= 0
    assert last["loss"] == pytest.approx(sum(v for n, v in last.items() if n.startswith("loss/")))


@pytest.mark.slow
def test_the_loss_does_not_depend_on_how_a_batch_is_divided(no_pictures, detect, tmp_path):
    """Drop path, anchors and proposals are drawn for an image by its place in the whole batch."""
    runs = [
        unmask.detect(
            replace(
                detect,
                out=str(tmp_path / str(micro_batch)),
                optim=replace(detect.optim, micro_batch=micro_batch, steps=3),
            )
        )
        for micro_batch in (5, 2)
    ]
    one, other = (np.array(losses(path)) for path in runs)
    assert other == pytest.approx(one, rel=1e-4)
    assert len(set(one[:, 1])) == 3


def test_an_object_moves_with_its_pixels(detect, scenes):
    """Where a sample is green or red, there are the mask and the box of that class, and no others."""
    split = find_detections((str(scenes),))
    plan = dry_run(Detect(detect))
    samples = ObjectSamples(detect, plan, split.training, masks=True)
    seen, dropped = 0, 0
    for i in range(len(split.training)):
        pixels = torch.from_numpy(scene(i)[0]).permute(2, 0, 1)
        for epoch in range(6):
            rng = generator(0, epoch, i)
            sample = samples.sample(DecodedPicture(pixels), SampleKey(epoch, i), rng)
            green = (sample.image[1] > 140) & (sample.image[0] < 100)
            red = (sample.image[0] > 140) & (sample.image[1] < 100)
            target, found = sample.target, torch.zeros_like(green)
            masks = target["masks"][torch.arange(len(target["boxes"]))]
            assert masks.shape[1:] == sample.image.shape[1:]
            for box, label, mask in zip(target["boxes"], target["labels"], masks, strict=True):
                colour = (green, red)[label]
                left, top, right, bottom = box.tolist()
                outline = 2 * (right - left + bottom - top)
                assert (mask ^ colour).sum() <= outline, "the same but for the blurred edge"
                rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
                assert top - 1 <= rows.min() <= rows.max() < bottom + 1
                assert left - 1 <= columns.min() <= columns.max() < right + 1
                found |= mask
                seen += 1
            assert (green | red)[~found].float().mean() < 0.1
            dropped += len(scene(i)[1]) - len(target["labels"])
    assert seen > 80
    assert dropped > 0, "what is cropped away is no target"


def test_samples_are_stacked_on_whole_patches(detect, scenes):
    split = find_detections((str(scenes),))
    samples = ObjectSamples(detect, dry_run(Detect(detect)), split.training, masks=True)
    rows = [
        samples.sample(
            DecodedPicture(torch.full((3, HEIGHT, WIDTH), 9, dtype=torch.uint8)),
            SampleKey(0, i),
            generator(i),
        )
        for i in range(3)
    ]
    batch = samples.collate(rows)
    h, w = batch.images.shape[2:]
    assert (h % 8, w % 8) == (0, 0)
    assert max(size[0] for size in batch.sizes) in range(h - 7, h + 1)
    for image, (height, width) in zip(batch.images, batch.sizes, strict=True):
        assert (image[:, :height, :width] == 9).all()
        assert image.sum() == 9 * 3 * height * width
    with pytest.raises(ValueError, match=f"12 x 56 pixels, and its annotations say {HEIGHT} x {WIDTH}"):
        samples.sample(
            DecodedPicture(torch.zeros(3, 12, WIDTH, dtype=torch.uint8)), SampleKey(0, 1), generator(0)
        )


def test_crowds_are_ignored_and_unknown_masks_are_empty(tmp_path):
    folder = write_scenes(tmp_path / "d", {"train": 3, "val": 2})
    content = json.loads((folder / "train.json").read_text())
    first, second = (a for a in content["annotations"] if a["image_id"] == 1)
    first["iscrowd"] = 1
    del second["segmentation"]
    (folder / "train.json").write_text(json.dumps(content))
    split = find_detections((str(folder),))
    assert split.training.instances[1].crowd.tolist() == [True, False]
    placement = Placement(
        source=(HEIGHT, WIDTH), resized=(80, 112), crop=(0, 0, 80, 112), canvas=(80, 112)
    )
    target = placed(split.training.instances[1], placement, True)
    left, top, w, h = second["bbox"]
    assert target["boxes"].tolist() == [[2 * left, 2 * top, 2 * (left + w), 2 * (top + h)]]
    assert len(target["masks"]) == 1
    assert target["masks"][torch.tensor([0])].equal(torch.zeros(1, 80, 112, dtype=torch.bool))
    assert len(target["ignored"]) == 1
    truth = true_objects(split.training.instances[1], (HEIGHT, WIDTH), masks=True)
    assert truth.areas[1] == w * h, "it counts as if it filled its box"


def test_more_objects_than_average_precision_counts_are_noted(detect, monkeypatch):
    task = Detect(detect)
    plan, data = dry_run(task), task.find()
    assert not any("average precision" in note for note in task.check(plan, data))
    monkeypatch.setattr("unmask.tasks.detect.MOST_DETECTIONS", 1)
    (note,) = (note for note in task.check(plan, data) if "average precision" in note)
    assert "has 2 objects, and average precision counts the 1 most confident" in note
    assert "--detector.detections 2 finds more" in note


def test_where_a_run_begins(no_pictures, detect, encoder, scenes, tmp_path, capsys):
    nowhere = replace(detect, scratch=False)
    with pytest.raises(ValueError, match=r"neither --init nor --scratch: write --init RUN"):
        unmask.detect(nowhere)
    with pytest.raises(ValueError, match=r"both --init and --scratch: write --init RUN"):
        unmask.detect(replace(detect, init=str(encoder)))
    short = replace(nowhere, init=str(encoder), optim=replace(detect.optim, steps=1))
    with pytest.raises(ValueError, match=r"--data\.size 32 40"):
        unmask.detect(replace(short, data=replace(detect.data, size=(30, 40))))
    path = unmask.detect(short)
    printed = capsys.readouterr().out
    assert "positions interpolated from 4 x 4 to 4 x 6" in printed
    assert "the section model changes nothing here" in printed
    again = unmask.detect(replace(short, init=str(path), out=str(tmp_path / "again")))
    assert "pyramid and heads of the detector were left out" in capsys.readouterr().out
    assert read_weights(again).description.model.classes == NAMES
    with pytest.raises(ValueError, match=r"--detector.global-blocks is 5"):
        unmask.detect(
            replace(short, out=str(tmp_path / "x"), detector=replace(short.detector, global_blocks=5))
        )


@pytest.mark.slow
def test_what_is_learnt_is_what_the_data_have(no_pictures, detect, tmp_path, capsys):
    """Boxes alone; all objects as one class; nothing to measure."""
    folder = write_scenes(tmp_path / "boxes", {"train": 6, "val": 2}, masks=False)
    data = replace(detect.data, source=(str(folder),), single_class="thing")
    short = replace(detect, data=data, optim=replace(detect.optim, steps=1, micro_batch=None))
    path = unmask.detect(short)
    assert "no masks: the data have none" in capsys.readouterr().out
    spec = read_weights(path).description.model
    assert (spec.classes, spec.masks) == (("thing",), False)
    last = read_metrics(RunDirectory(path))[-1]
    assert "detection/box_ap" in last
    assert "detection/mask_ap" not in last
    result = unmask.evaluate(str(folder), init=str(path), out=str(tmp_path / "e"), split="all")
    assert result.record["images"] == 8
    assert any("all objects are taken as 'thing'" in note for note in result.notes)
    content = json.loads((folder / "val.json").read_text())
    (folder / "val.json").write_text(json.dumps({**content, "annotations": []}))
    unmask.detect(replace(short, out=str(tmp_path / "other")))
    assert "no validation image has an object" in capsys.readouterr().out
    content = json.loads((folder / "train.json").read_text())
    (folder / "train.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(DataError, match="annotations with boxes"):
        unmask.detect(replace(short, out=str(tmp_path / "third")))


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory) -> Path:
    """A run of one step."""
    detect = tiny_detector(scenes, tmp_path_factory.mktemp("trained") / "run")
    return unmask.detect(replace(detect, optim=replace(detect.optim, steps=1)))


def test_evaluate_tells_what_training_measured(trained, scenes, tmp_path, capsys):
    out = tmp_path / "e"
    assert run(["evaluate", str(scenes), "--init", str(trained), "--out", str(out)]) == 0
    scores = json.loads((out / "scores.json").read_text())
    last = read_metrics(RunDirectory(trained))[-1]
    for name in ("box_ap", "box_ap50", "mask_ap"):
        assert scores[name] == last[f"detection/{name}"]
    assert {row["class"] for row in scores["per_class"]} == set(NAMES)
    assert (out / "precision-recall-masks.png").exists()
    assert "Box recall at an overlap of 0.4" in capsys.readouterr().out
    weights = str(trained / "model.safetensors")
    words = ["evaluate", str(scenes), "--init", weights, "--out", str(out)]
    assert run([*words, "--robustness", "a"]) == 2
    assert "is of classifiers" in capsys.readouterr().err
    assert run([*words, "--data.size", "64"]) == 2
    assert "leave them out" in capsys.readouterr().err


def test_classes_that_the_detector_does_not_know(trained, tmp_path):
    other = write_scenes(tmp_path / "other", {"train": 4, "val": 3}, names=("box", "kite"))
    with pytest.raises(DataError, match=r"class 'kite'.*knows box, disc.*--data.single-class NAME"):
        unmask.evaluate(str(other), init=str(trained), out=str(tmp_path / "e"))


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools and NumPy 2
def test_predict_writes_coco_and_pictures(trained, scenes, tmp_path, capsys):
    from pycocotools.coco import COCO

    out = tmp_path / "p"
    words = ["predict", str(scenes / "val"), "--init", str(trained), "--out", str(out)]
    assert run([*words, "--sheet", "2", "--tile", "32", "--top", "3"]) == 0
    printed = capsys.readouterr().out
    assert "--top changes nothing here" in printed
    assert "wrote predictions of 4 images" in printed
    assert f"\npictures: {out / 'pictures'}" in printed
    assert "contact sheet" not in printed
    assert len(list((out / "pictures").glob("*.png"))) == 2
    found = COCO(str(out / "detections.json"))
    assert [c["name"] for c in found.loadCats(found.getCatIds())] == list(NAMES)
    assert [Path(i["file_name"]).stem for i in found.loadImgs(found.getImgIds())] == [
        "014", "015", "016", "017",
    ]  # fmt: skip
    rows = found.loadAnns(found.getAnnIds())
    for row in rows:
        assert 0 < row["score"] <= 1
        assert found.annToMask(row).shape == (HEIGHT, WIDTH)
        assert found.annToMask(row).sum() == row["area"]


def test_predict_says_that_nothing_was_found(tmp_path, capsys):
    show_predict(Detected(path=tmp_path, rows=[], images=3, bad=[], notes=(), sheet=None))
    assert capsys.readouterr().out.splitlines() == [
        "no objects with a score of 0.5 or more",
        f"wrote predictions of 3 images to {tmp_path}, 0 left out",
    ]


def test_large_images_are_seen_in_tiles():
    """A detector that finds one bright square wherever it looks."""

    def model(images, sizes):
        (image,) = images
        rows, columns = (image[0] > 0.5).any(dim=1).nonzero(), (image[0] > 0.5).any(dim=0).nonzero()
        boxes = torch.zeros(0, 4)
        if len(rows):
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxes = torch.tensor([[float(edge) for edge in edges]])
        n = len(boxes)
        return [{"boxes": boxes, "labels": torch.zeros(n).long(), "scores": torch.ones(n)}]

    image = torch.zeros(1, 3, 70, 90)
    image[..., 30:38, 41:50] = 1
    for tile, canvas in ((None, (140, 180)), (32, (32, 32)), (32, (64, 64)), (500, (70, 90))):
        found = Finder(model, canvas, tile=tile)(image)
        assert isinstance(found, FoundObjects)
        torch.testing.assert_close(found.boxes, torch.tensor([[41.0, 30, 50, 38]]), atol=1, rtol=0)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_the_backbone_is_exported(trained, tmp_path):
    timm = pytest.importorskip("timm")
    done = unmask.export(trained, to="timm", out=tmp_path / "timm")
    model = timm.create_model(f"local-dir:{done.path}", pretrained=True).eval()
    state = load_file(trained / "model.safetensors")
    assert model.blocks[2].mlp.fc1.weight.equal(state["encoder.blocks.2.mlp.fc1.weight"])
    notes = read_weights(done.path).description.notes
    assert any("nor the relative positions" in note for note in notes)


@pytest.mark.parametrize("command", ["embed", "knn"])
def test_a_detector_gives_no_features_of_whole_images(trained, stripes, tmp_path, capsys, command):
    out = tmp_path / ("f.safetensors" if command == "embed" else "knn")
    assert run([command, str(stripes), "--init", str(trained), "--out", str(out)]) == 4
    assert "a detector gives no features of whole images" in capsys.readouterr().err


def test_image_spec_of_a_run(trained):
    d = read_weights(trained).description
    assert d.image.size == (32, 48)
    assert d.image.channels == image_spec((32, 48)).channels
    loaded = unmask.load(trained)
    (found,) = loaded(torch.zeros(1, 3, 20, 30), [(20, 30)])
    assert set(found) == {"boxes", "labels", "scores", "masks"}
