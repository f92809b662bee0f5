"""Evaluation gives training's numbers, and takes other libraries' classifiers; robustness by folders."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

import unmask
from tests_support import mae_spec, random_classifier
from unmask.config.classify import Augment, Head, LabelledData, LabelledRun, TuneOptim
from unmask.config.commands import EvaluateConfig, EvaluateData, ScratchConfig
from unmask.config.output import MARKER, claim_output
from unmask.config.settings import Encoder, View
from unmask.data.centre_crops import load_centre_crops
from unmask.data.normalize import normalize
from unmask.data.sources.find import find_images
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError, DataError
from unmask.evals.robustness import ALEXNET_ERRORS, class_subset
from unmask.interop.official import to_official
from unmask.interop.weights import write_model
from unmask.use.classes import imagenet_folders

SMALL = mae_spec(image_size=(8, 8), patch_size=(4, 4), channels=3, width=8, depth=1, heads=1)
CLASSES = ("cat <b>", "=dog()", "zebra\n\x1b[31m")


def picture(number: int, height: int = 12, width: int = 10) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8))


def write_folders(folder: Path, classes: tuple[str, ...], each: int) -> Path:
    for i, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for j in range(each):
            picture(i * each + j).save(folder / name / f"{j}.png")
    return folder


def write_classifier(folder: Path, classes: tuple[str, ...], **head) -> Path:
    """A run directory as far as its users see it."""
    head = dict(**{"classes": classes, "pool": "mean", "eval_crop": 0.75, **head})
    weights = random_classifier(SMALL, head)
    weights.state["head.weight"] *= 20  # so that many classes are predicted
    folder.mkdir()
    write_model(folder, weights.state, weights.description)
    return folder


def config(data: Path, run: Path, tmp_path: Path, **changes) -> EvaluateConfig:
    names = ("val_share", "size")
    of_data = {name: changes.pop(name) for name in names if name in changes}
    d = EvaluateData(source=(str(data),), workers=0, **of_data)
    return EvaluateConfig(**{"init": str(run), "out": str(tmp_path / "scores"), "data": d, **changes})


@pytest.fixture(scope="module")
def animals(tmp_path_factory) -> Path:
    return write_folders(tmp_path_factory.mktemp("evaluate") / "animals", CLASSES, 12)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("evaluate") / "run", tuple(sorted(CLASSES)))


def expected_logits(run: Path, folder: Path) -> torch.Tensor:
    """By way of the public functions alone, in the order of the files' names."""
    model = unmask.load(run)
    with torch.inference_mode():
        return model(unmask.read(folder, model).images)


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take most of the time, and one test looks at them."""
    from unmask.use import evaluate

    monkeypatch.setattr(evaluate, "pictures", lambda labelled, image, scored: iter(()))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_runs_own_numbers(animals, tmp_path, precision):
    """Of the running average, bit for bit."""
    training = ScratchConfig(
        out=str(tmp_path / "run"),
        data=LabelledData(source=(str(animals),), size=(8, 12), workers=0),
        model=Encoder(patch=(4,), width=16, depth=2, heads=2),
        head=Head(batch_norm=precision == "fp32"),
        augment=Augment(mixup=0, cutmix=0),
        optim=TuneOptim(steps=5, warmup_steps=1, batch=8, base_lr=0.5, ema=0.5),
        run=LabelledRun(precision=precision),
    )
    run = unmask.scratch(training)
    last = read_metrics(RunDirectory(run))[-1]
    record = unmask.evaluate(config(animals, run, tmp_path)).record
    measured = {name: value for name, value in last.items() if name.startswith("val/")}
    assert measured == {name: record[name.removeprefix("val/")] for name in measured}
    assert len(measured) == 8
    assert record["images"] == 9
    same_size = unmask.evaluate(config(animals, run, tmp_path, size=(8, 12))).record
    assert same_size["nll"] == record["nll"]


@pytest.mark.usefixtures("undrawn")
def test_data_are_divided_as_in_training(animals, tmp_path):
    """Otherwise images that a run was trained on would count as validation images."""
    data = LabelledData(source=(str(animals),), size=(8, 12), workers=0, val_share=0.6)
    training = ScratchConfig(
        out=str(tmp_path / "run"),
        data=data,
        model=Encoder(patch=(4,), width=16, depth=1, heads=2),
        augment=Augment(mixup=0, cutmix=0),
        optim=TuneOptim(steps=1, warmup_steps=0, batch=4),
        run=LabelledRun(precision="fp32"),
    )
    run = unmask.scratch(training)
    result = unmask.evaluate(config(animals, run, tmp_path))
    assert result.record["images"] == 21
    assert "divided as in training: --data.val-share 0.6" in result.notes
    other = unmask.evaluate(config(animals, run, tmp_path, val_share=0.75))
    assert other.record["images"] == 27
    assert any("it may have seen some of these images" in note for note in other.notes)


@pytest.mark.usefixtures("undrawn")
def test_all_images_may_be_of_one_class(classifier, tmp_path):
    folder = write_folders(tmp_path / "one", CLASSES[:1], 2)
    assert unmask.evaluate(config(folder, classifier, tmp_path, split="all")).record["images"] == 2


def test_threads_are_those_of_the_run(classifier, tmp_path):
    """Sums depend on them; on a machine with too few cores they stay as they are."""
    from unmask.use.trained import read_trained

    run = Path(shutil.copytree(classifier, tmp_path / "run"))
    for asked, used in ((2, 2), (4096, 1)):
        (run / "env.json").write_text(json.dumps({"threads": asked}))
        trained = read_trained("evaluate", str(run), view=View(), device="cpu")
        if trained.machine.cores < asked < 4096:
            pytest.skip("this machine has one core")
        with trained.arithmetic():
            assert torch.get_num_threads() == used
        assert torch.get_num_threads() == 1


def test_what_is_left_behind(animals, classifier, tmp_path):
    result = unmask.evaluate(config(animals, classifier, tmp_path, split="all"))
    names = {path.name for path in result.path.iterdir()}
    assert names == {
        ".unmask",
        "calibration.png",
        "confusion.png",
        "errors.csv",
        "mistakes.png",
        "predictions.csv",
        "report.html",
        "scores.json",
    }
    scores = json.loads((result.path / "scores.json").read_text())
    assert scores["images"] == 36
    logits = expected_logits(classifier, animals)
    labels = torch.arange(3).repeat_interleave(12)
    right = logits.argmax(dim=1) == labels
    assert scores["top1"] == pytest.approx(right.double().mean().item())
    assert 0 < scores["top1"] < 1
    by_name = {row["class"]: row["recall"] for row in scores["per_class"]}
    assert by_name == {
        name: right[labels == i].double().mean() for i, name in enumerate(sorted(CLASSES))
    }
    page = (result.path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "<b>" not in page
    assert "\x1b" not in page
    for row in table(result.path / "errors.csv")[:24]:
        assert Path(row["path"]).name in page


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("undrawn")
def test_a_row_for_each_image_and_each_error(tmp_path):
    """File, true class, predicted class and probability; the most confident error first."""
    folder = write_folders(tmp_path / "data", ("a", "b", "c"), 6)
    (folder / "a" / "broken.png").write_bytes(b"no image")
    run = write_classifier(tmp_path / "run", ("a", "b", "c"))
    asked = config(folder, run, tmp_path, split="all")
    result = unmask.evaluate(replace(asked, data=replace(asked.data, max_bad_share=0.1)))
    shares = expected_logits(run, folder).softmax(dim=1)
    rows, files = table(result.path / "predictions.csv"), sorted(folder.rglob("[0-9].png"))
    assert [row["path"] for row in rows] == [str(file) for file in files]
    for row, file, share in zip(rows, files, shares, strict=True):
        assert (row["class"], row["predicted class"]) == (file.parent.name, "abc"[share.argmax()])
        assert float(row["probability"]) == pytest.approx(share.max().item(), abs=1e-5)
        truth = share["abc".index(row["class"])].item()
        assert float(row["probability of the class"]) == pytest.approx(truth, abs=1e-5)
        assert row["correct"] == str(int(row["class"] == row["predicted class"]))
    wrong = [row for row in rows if row["correct"] == "0"]
    errors = table(result.path / "errors.csv")
    assert errors == sorted(wrong, key=lambda row: -float(row["probability"]))
    assert 0 < len(errors) < len(rows)
    (shown,) = (found for found in result.tables if found.caption.startswith("Most confident errors"))
    assert [row[0] for row in shown.rows] == [row["path"][-100:] for row in errors]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("split", "images"), [("val", 9), ("train", 27), ("all", 36)])
def test_parts_of_the_data(animals, classifier, tmp_path, split, images):
    assert unmask.evaluate(config(animals, classifier, tmp_path, split=split)).record["images"] == images


def test_parts_that_are_stored_differently(classifier, tmp_path):
    """Two containers open their images each in its own way."""
    from unmask.data.images import Images
    from unmask.data.records import Labelled
    from unmask.data.sources.idx import ArrayImages, numbered
    from unmask.use.evaluate import joined

    def labelled(name: str, grey: int) -> Labelled:
        array = np.full((2, 4, 4), grey, np.uint8)
        images = Images(name, numbered(name, 2), opener=ArrayImages(array, "IDX"))
        return Labelled(images, np.array([0, 1]), ("a", "b"))

    from unmask.config.image import PixelFormat

    both = joined(labelled("train", 10), labelled("test", 20))
    values = [both.images.decode(i, PixelFormat(channels=1)).unique().item() for i in range(4)]
    assert values == [10, 10, 20, 20]
    assert both.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("to", "pool"), [("timm", "mean"), ("hf", "class"), ("official", "mean")])
def test_classifiers_of_other_libraries(animals, tmp_path, to, pool):
    run = write_classifier(tmp_path / "run", tuple(sorted(CLASSES)), pool=pool)
    other = unmask.export(run, to=to).path
    records = [
        unmask.evaluate(config(animals, path, tmp_path, split="all")).record for path in (run, other)
    ]
    assert records[1]["init"] == str(other)
    assert records[0]["nll"] == pytest.approx(records[1]["nll"], rel=1e-5)
    assert str(records[0]["per_class"]) == str(records[1]["per_class"])  # which holds NaN


@pytest.mark.usefixtures("undrawn")
def test_the_classifier_may_know_more(animals, tmp_path):
    run = write_classifier(tmp_path / "run", ("ape", *sorted(CLASSES), "yak"))
    result = unmask.evaluate(config(animals, run, tmp_path, split="all"))
    predicted = expected_logits(run, animals).argmax(dim=1)
    labels = torch.arange(1, 4).repeat_interleave(12)
    assert {0, 4} & set(predicted.tolist()), "other classes are predicted too"
    assert result.record["top1"] == pytest.approx((predicted == labels).double().mean().item())
    assert any("knows 2 more classes" in note for note in result.notes)


@pytest.mark.usefixtures("undrawn")
def test_unknown_names_are_taken_in_order(animals, tmp_path):
    run = write_classifier(tmp_path / "run", ("0", "1", "2"))
    named = write_classifier(tmp_path / "named", tuple(sorted(CLASSES)))
    assert load_file(run / "model.safetensors").keys() == load_file(named / "model.safetensors").keys()
    results = [unmask.evaluate(config(animals, path, tmp_path, split="all")) for path in (run, named)]
    assert str(results[0].record["per_class"]) == str(results[1].record["per_class"])
    assert any(
        "no names of classes agree, so they are taken in their order" in n for n in results[0].notes
    )


@pytest.mark.usefixtures("undrawn")
def test_broken_images_are_listed(animals, classifier, tmp_path):
    folder = Path(shutil.copytree(animals, tmp_path / "animals"))
    (folder / CLASSES[0] / "broken.png").write_bytes(b"nothing")
    result = unmask.evaluate(config(folder, classifier, tmp_path, split="all"))
    assert result.record["unreadable"] == 1
    assert "broken.png" in (result.path / "report.html").read_text()
    for path in folder.glob("*/?.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"more than --data\.max-bad-share"):
        unmask.evaluate(config(folder, classifier, tmp_path, split="all"))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["a", "r", "sketch"])
def test_variants_of_imagenet(tmp_path, name):
    """ImageNet-A and -R choose among their 200 classes, -Sketch among all."""
    run = write_classifier(tmp_path / "run", imagenet_folders())
    folders = imagenet_folders() if name == "sketch" else class_subset(f"imagenet-{name}")
    folder = write_folders(tmp_path / name, folders, 1)
    result = unmask.evaluate(config(folder, run, tmp_path, robustness=name))
    logits = expected_logits(run, folder)[:, [imagenet_folders().index(name) for name in folders]]
    nll = torch.nn.functional.cross_entropy(logits, torch.arange(len(folders))).item()
    assert result.record["images"] == len(folders)
    assert result.record["nll"] == pytest.approx(nll, rel=1e-4)
    assert result.record["split"] == "all"
    shutil.rmtree(folder / folders[3])
    with pytest.raises(DataError, match=f"1 are missing, the first is {folders[3]}"):
        unmask.evaluate(config(folder, run, tmp_path, robustness=name))


def test_corruptions(tmp_path, monkeypatch):
    """A classifier that always says the first class, on pictures of two, which are taken whole."""
    from unmask.use import robustness

    crops, original = set(), robustness.CentreCrops
    monkeypatch.setattr(
        robustness,
        "CentreCrops",
        lambda images, image, **rest: crops.add(image.eval_crop) or original(images, image, **rest),
    )
    run = write_classifier(tmp_path / "run", imagenet_folders())
    weights = unmask.load(run)
    state = weights.state_dict()
    state["head.weight"].zero_()
    state["head.bias"].zero_()[0] = 1
    write_model(run, state, weights.description)
    first, second = imagenet_folders()[:2]
    for corruption in ALEXNET_ERRORS:
        for severity in range(1, 6):
            both = (first, second) if severity < 5 else (second,)
            write_folders(tmp_path / "c" / corruption / str(severity), both, 1)
    (tmp_path / "c" / "saturate").mkdir()  # of the further corruptions, which mCE leaves out
    claim_output(tmp_path / "scores")
    (tmp_path / "scores" / "confusion.png").write_bytes(b"of an earlier measurement")
    result = unmask.evaluate(config(tmp_path / "c", run, tmp_path, robustness="c"))
    assert {path.name for path in result.path.iterdir()} == {MARKER, "report.html", "scores.json"}
    record = json.loads((result.path / "scores.json").read_text())
    assert record["corruptions"]["fog"]["severities"] == [0.5, 0.5, 0.5, 0.5, 1]
    assert record["corruptions"]["fog"]["error"] == pytest.approx(0.6)
    assert record["mce"] == pytest.approx(np.mean([0.6 / error for error in ALEXNET_ERRORS.values()]))
    assert record["images"] == 15 * 9
    assert crops == {1.0}
    assert "jpeg_compression" in (result.path / "report.html").read_text()
    shutil.rmtree(tmp_path / "c" / "fog" / "3")
    with pytest.raises(DataError, match=r"1 of its 75 folders .*/fog/3; give the folder"):
        unmask.evaluate(config(tmp_path / "c", run, tmp_path, robustness="c"))


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"init": ""}, ValueError, "evaluate needs a model: write --init RUN"),
        ({"init": "nowhere"}, CheckpointError, "no file or run directory"),
        ({"val_share": 1.5}, ValueError, "--data.val-share is 1.5"),
        ({"robustness": "r"}, DataError, "is not ImageNet-R: it holds"),
        ({"robustness": "c"}, DataError, "is not ImageNet-C: 75 of its 75"),
    ],
)
def test_mistakes(animals, classifier, tmp_path, changes, error, says):
    with pytest.raises(error, match=says):
        unmask.evaluate(config(animals, classifier, tmp_path, **changes))
    assert not (tmp_path / "scores").exists()


def test_models_and_folders_that_do_not_suit(animals, classifier, tmp_path, tiny, photos):
    pretrained = unmask.pretrain(replace(tiny, optim=replace(tiny.optim, steps=1, warmup_steps=0)))
    with pytest.raises(CheckpointError, match="has no head that knows classes: train one with unmask"):
        unmask.evaluate(config(animals, pretrained, tmp_path))
    with pytest.raises(DataError, match=r"knows 3 classes .* and not 2 of the 2 of the data"):
        unmask.evaluate(config(photos, classifier, tmp_path))
    with pytest.raises(CheckpointError, match="holds a run or a model: choose another --out"):
        unmask.evaluate(config(animals, classifier, tmp_path, out=str(classifier)))


def test_a_perfect_classifier_has_no_mistakes_to_draw(tmp_path):
    folder = write_folders(tmp_path / "data", ("a", "b"), 8)
    for path in (folder / "a").iterdir():
        Image.new("RGB", (8, 8), "black").save(path)
    for path in (folder / "b").iterdir():
        Image.new("RGB", (8, 8), "white").save(path)
    run = write_classifier(tmp_path / "run", ("a", "b"))
    model = unmask.load(run)
    with torch.inference_mode():
        features = model.features(unmask.read(folder, model).images)
    dark, bright = features[0], features[-1]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["head.weight"] = torch.stack([dark - bright, bright - dark])
    state["head.bias"] = torch.tensor([-1.0, 1.0]) * (dark.square().sum() - bright.square().sum()) / 2
    write_model(run, state, model.description)
    assert unmask.evaluate(config(folder, run, tmp_path)).record["top1"] == 1


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("listed", [False, True])
def test_outputs_without_names_follow_the_sorted_folders(tmp_path, listed):
    """Eleven numbered folders, in ImageFolder's order: 0, 1, 10, 2; the same as a list, by value."""
    folders = [str(i) for i in range(11)]
    weights = random_classifier(SMALL, {"classes": tuple(folders), "pool": "mean", "eval_crop": 1.0})
    weights.state["head.weight"] *= 20
    torch.save({"model": to_official(weights.state)}, tmp_path / "bare.pth")
    model, data = unmask.load(tmp_path / "bare.pth"), tmp_path / "data"
    write_folders(tmp_path / "unsorted", ("all",), 60)
    files = sorted((tmp_path / "unsorted" / "all").iterdir())
    image = model.description.image
    crops = load_centre_crops(find_images((str(tmp_path / "unsorted"),)), image)
    with torch.inference_mode():
        chosen = model(normalize(crops, image.mean, image.std)).argmax(dim=1).tolist()
    assert len(set(chosen)) > 5
    for name in folders:
        (data / name).mkdir(parents=True)
        picture(int(name), 8, 8).save(data / name / "any.png")
    for file, output in zip(files, chosen, strict=True):
        shutil.copy(file, data / torchvision.datasets.ImageFolder(str(data)).classes[output])
    if listed:
        rows = [f"{file},{output}" for file, output in zip(files, chosen, strict=True)]
        rows += [f"{data / name / 'any.png'},{name}" for name in folders]
        (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
        data = tmp_path / "list.csv"
    result = unmask.evaluate(data, init=tmp_path / "bare.pth", split="all", out=tmp_path / "scores")
    assert result.record["top1"] >= 60 / 71
    assert any("assigned to the sorted classes: 0 for '0'" in note for note in result.notes)
