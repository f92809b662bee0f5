"""The colours that data give their classes are stored with a segmenter; its predictions carry them."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unmask
from conftest import ENCODER
from unmask.config.annotations import MapOptions
from unmask.config.classify import LabelledRun
from unmask.config.segment import SegmentConfig, SegmentData, SegmentHead, SegmentOptim
from unmask.data.label_maps import find_label_maps
from unmask.data.sources.cityscapes import CLASSES as CITYSCAPES
from unmask.errors import CheckpointError
from unmask.interop.weights import read_weights, write_model
from unmask.storage import unsealed
from unmask.viz.palette import palette

pytestmark = pytest.mark.usefixtures("blank_charts")

HEIGHT, WIDTH = 16, 20
VOC = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
"""Of its first four classes; the map holds 0, 1 and 3."""


def pictures(count: int = 4) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Noise, and a map of three stripes of the values 0, 1 and 2."""
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        yield Image.fromarray(noise), np.tile(np.arange(WIDTH) * 3 // WIDTH, (HEIGHT, 1))


def write(place: Path, image: Image.Image) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    image.save(place)


def indexed(values: np.ndarray, colours) -> Image.Image:
    image = Image.fromarray(values.astype(np.uint8), mode="P")
    image.putpalette(np.array(colours, np.uint8).tobytes())
    return image


def like_voc(folder: Path, colours=VOC) -> Path:
    for i, (image, stripes) in enumerate(pictures()):
        write(folder / "JPEGImages" / f"{i}.jpg", image)
        write(folder / "SegmentationClass" / f"{i}.png", indexed(np.array([0, 1, 3])[stripes], colours))
    return folder


def like_cityscapes(folder: Path) -> Path:
    for i, (image, stripes) in enumerate(pictures()):
        city = "train/ulm" if i < 3 else "val/bonn"
        labels = Image.fromarray(np.array([7, 26, 0])[stripes].astype(np.uint8))
        write(folder / "leftImg8bit" / city / f"{i}_leftImg8bit.png", image)
        write(folder / "gtFine" / city / f"{i}_gtFine_labelIds.png", labels)
    return folder


def like_cvat(folder: Path) -> Path:
    colours = np.array([(0, 0, 0), (51, 221, 255), (250, 50, 83)], np.uint8)
    for i, (image, stripes) in enumerate(pictures()):
        write(folder / "JPEGImages" / f"{i}.png", image)
        write(folder / "SegmentationClass" / f"{i}.png", Image.fromarray(colours[stripes]))
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip("xyz", colours.tolist(), strict=True)]
    (folder / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]))
    return folder


def like_labelme(folder: Path) -> Path:
    folder.mkdir()
    for i, (image, _) in enumerate(pictures()):
        image.save(folder / f"{i}.png")
        shape = {"label": "cat", "shape_type": "rectangle", "points": [[2, 2], [9, 9]], "flags": {}}
        sheet = {"version": "5.4.1", "flags": {}, "shapes": [shape], "imagePath": f"{i}.png"}
        sheet |= {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
        (folder / f"{i}.json").write_text(json.dumps(sheet))
    return folder


def trained(data: Path, out: Path) -> Path:
    """One step of a linear head."""
    config = SegmentConfig(
        out=str(out),
        scratch=True,
        data=SegmentData(source=(str(data),), size=(16,), workers=0),
        model=ENCODER,
        head=SegmentHead(kind="linear"),
        optim=SegmentOptim(steps=1, warmup_steps=0, batch=2),
        run=LabelledRun(precision="fp32"),
    )
    return unmask.segment(config)


def predicted(images: Path, run: Path, out: Path) -> list[list[int]]:
    """The colours that all files of a prediction agree on; its own are in `out`."""
    unmask.predict(images, init=run, out=out)
    with (out / "classes.csv").open(newline="") as file:
        listed = [[int(row[channel]) for channel in "rgb"] for row in csv.DictReader(file)]
    files = sorted(out.glob("labels/**/*.png"))
    assert len(files) == 4
    for file in files:
        with Image.open(file) as image:
            assert image.mode == "P"
            stored = np.reshape(image.getpalette("RGB"), (-1, 3))[: len(listed)]
        assert stored.tolist() == listed
    return listed


def test_label_maps_like_vocs_carry_its_colours(tmp_path):
    data = like_voc(tmp_path / "voc")
    run = trained(data, tmp_path / "run")
    wanted = [list(VOC[value]) for value in (0, 1, 3)]
    assert predicted(data / "JPEGImages", run, tmp_path / "p") == wanted
    description = unsealed(json.loads((run / "model.json").read_text()))
    assert description["model"]["colours"] == wanted
    unmask.evaluate(data, init=run, out=tmp_path / "e")
    samples = sorted(run.glob("samples/segmentation-*.png"))
    own, ours = ({tuple(colour) for colour in some} for some in (wanted, palette(3).tolist()))
    for sheet in (*samples, tmp_path / "e" / "segmentation.png"):
        assert own <= colours_in(sheet), sheet
        assert not ours & colours_in(sheet), sheet
    assert samples
    assert not ours & colours_in(tmp_path / "p" / "sheet.png")

    del description["model"]["colours"]
    (run / "model.json").write_text(json.dumps(description))
    before = predicted(data / "JPEGImages", run, tmp_path / "before")
    assert before == palette(3).tolist(), "of a model that an earlier version wrote"
    for wrong in (wanted[:2], [*wanted[:2], [0, 0, 256]]):
        description["model"]["colours"] = wrong
        (run / "model.json").write_text(json.dumps(description))
        with pytest.raises(
            CheckpointError, match=r"model\.json does not describe a model: 'colours' is"
        ):
            unmask.predict(data / "JPEGImages", init=run, out=tmp_path / "wrong")


def colours_in(file: Path) -> set[tuple[int, ...]]:
    with Image.open(file) as image:
        return set(map(tuple, np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()))


def test_label_maps_like_cityscapes_carry_its_colours(tmp_path):
    data = like_cityscapes(tmp_path / "cities")
    run = trained(data, tmp_path / "run")
    wanted = [list(colour) for _, colour in CITYSCAPES.values()]
    assert predicted(data / "leftImg8bit", run, tmp_path / "p") == wanted


def test_label_maps_like_cvats_carry_its_colours(tmp_path):
    data = like_cvat(tmp_path / "cvat")
    run = trained(data, tmp_path / "run")
    wanted = [[0, 0, 0], [51, 221, 255], [250, 50, 83]]
    assert predicted(data / "JPEGImages", run, tmp_path / "p") == wanted


def test_classes_of_the_same_colour_have_ours(tmp_path):
    data = like_voc(tmp_path / "voc", colours=[(0, 0, 0)] * 4)
    run = trained(data, tmp_path / "run")
    assert predicted(data / "JPEGImages", run, tmp_path / "p") == palette(3).tolist()


def test_a_palette_of_greys_is_no_choice_of_colours(tmp_path):
    """Libraries write it into maps of indices without one."""
    data = like_voc(tmp_path / "grey", colours=np.arange(256)[:, None].repeat(3, axis=1))
    assert find_label_maps((str(data),)).training.palette is None
    own = like_voc(tmp_path / "own", colours=[(i, i, 10 * i) for i in range(4)])
    assert find_label_maps((str(own),)).training.palette.tolist() == [[0, 0, 0], [1, 1, 10], [3, 3, 30]]


def test_the_background_of_shapes_is_white_and_not_tinted(tmp_path):
    data = like_labelme(tmp_path / "shapes")
    run = trained(data, tmp_path / "run")
    weights = read_weights(run)
    state = dict(weights.state)
    (bias,) = [n for n, v in state.items() if n.startswith("decode_head") and v.shape == (2,)]
    for sure, place in enumerate(("background", "cat")):
        (tmp_path / place).mkdir()
        state[bias] = 100 * torch.eye(2)[sure]
        write_model(tmp_path / place, state, weights.description)
        listed = predicted(data, tmp_path / place, tmp_path / "p" / place)
        assert listed == [[255, 255, 255], palette(2)[1].tolist()]
        tint = np.array(listed[1]) if sure else None
        for i, (image, _) in enumerate(pictures()):
            with Image.open(tmp_path / "p" / place / "overlays" / f"{i}.jpg") as overlay:
                made = np.asarray(overlay.convert("RGB")).astype(float)
            grey = (np.asarray(image) @ np.array([0.299, 0.587, 0.114]))[..., None]
            wanted = grey if tint is None else 0.35 * grey + 0.65 * tint
            assert np.abs(made - wanted).mean() < 8, "JPEG's errors"


def test_listed_colours_are_those_of_shapes_too(tmp_path):
    data = like_labelme(tmp_path / "shapes")
    (data / "classes.csv").write_text("name,r,g,b\nbackground,0,0,0\ncat,1,2,3\n")
    split = find_label_maps((str(data),))
    assert split.validation.palette.tolist() == [[0, 0, 0], [1, 2, 3]]
    (data / "classes.csv").write_text("name,r,g,b\ncat,1,2,3\n")
    assert find_label_maps((str(data),)).training.palette is None, "the background has none"


def test_listed_colours_are_those_of_cocos_masks_too(tmp_path):
    sizes = {"width": WIDTH, "height": HEIGHT}
    outline = {"category_id": 1, "bbox": [2, 2, 4, 4], "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]]}
    for i, (image, _) in enumerate(pictures()):
        write(tmp_path / "coco" / f"{i}.png", image)
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", **sizes} for i in range(4)],
        "annotations": [{"id": i, "image_id": i, "area": 16, "iscrowd": 0, **outline} for i in range(4)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "coco" / "a.json").write_text(json.dumps(content))
    options = MapOptions(classes=str(tmp_path / "palette.csv"))
    Path(options.classes).write_text("name,r,g,b\ncat,1,2,3\nbackground,0,0,0\n")
    split = find_label_maps((str(tmp_path / "coco"),), options=options)
    assert split.validation.palette.tolist() == [[1, 2, 3], [0, 0, 0]]
    assert find_label_maps((str(tmp_path / "coco"),)).training.palette is None


def test_maps_of_other_classes_have_no_colours(tmp_path):
    """Since these are in the order of their own."""
    maps = find_label_maps((str(like_cvat(tmp_path / "cvat")),)).training
    assert maps.with_classes(maps.classes).palette is maps.palette
    assert maps.with_classes(maps.classes[::-1]).palette is None
