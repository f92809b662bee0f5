"""Label maps: pictures beside images in the usual layouts, masks of COCO's format."""

import errno
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.makers import write_header
from unmask.config.annotations import MapOptions
from unmask.config.segment import SegmentData
from unmask.data.label_maps import find_label_maps
from unmask.data.maps import pixel_counts
from unmask.errors import DataError

HEIGHT, WIDTH = 6, 8


def photo(place: Path, size=(WIDTH, HEIGHT)) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 8, 7)).save(place)


def label_map(place: Path, values, mode=None, palette=None) -> None:
    """Values [H, W] or [H, W, 3]; one number fills a map."""
    place.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values)
    array = np.full((HEIGHT, WIDTH), array) if array.ndim == 0 else array
    image = Image.fromarray(array.astype(np.uint16 if mode == "I;16" else np.uint8))
    if palette is not None:
        image = image.convert("L")
        image.putpalette(palette)
    image.save(place)


def stripes(*values) -> np.ndarray:
    """A map of vertical stripes, two pixels wide."""
    return np.tile(np.repeat(values, 2), (HEIGHT, 1))


def printed(split) -> str:
    return "\n".join([*map(str, split.findings), *split.notes])


def test_ade20k(tmp_path):
    """0 is no class there, and the first class has the value 1."""
    for part, count in (("training", 3), ("validation", 2)):
        for i in range(count):
            photo(tmp_path / "images" / part / f"{i}.jpg")
            label_map(tmp_path / "annotations" / part / f"{i}.png", stripes(0, 1, 3, i + 1))
    (tmp_path / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tName\n1\t0.2\t9\t9\twall\n2\t0.1\t9\t9\tbuilding, edifice\n"
        "3\t0.1\t9\t9\tsky\n"
    )
    split = find_label_maps((str(tmp_path),))
    assert split.training.classes == ("wall", "building", "sky")
    assert (len(split.training), len(split.validation)) == (3, 2)
    labels = split.training.labels(1)
    assert labels.dtype == np.int64
    assert labels.tolist() == stripes(255, 0, 2, 1).tolist()
    assert split.training.images.paths[1].endswith("training/1.jpg")
    assert "the first class has the value 1" in printed(split)
    assert split.training.palette is None
    counts = pixel_counts(split.validation)
    assert counts.tolist() == [36, 12, 24, 24]
    zero = find_label_maps((str(tmp_path),), options=MapOptions(label_offset=0, ignore_values=(3,)))
    assert zero.training.labels(1).tolist() == stripes(0, 1, 255, 2).tolist()


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}.jpg", "labels/{}.png"),
        ("images/{}.tif", "masks/{}_mask.png"),
        ("img/deep/{}.png", "annotations/deep/{}.tif"),
        ("JPEGImages/{}.jpg", "SegmentationClassPNG/{}.png"),
        ("train/images/{}.jpg", "train/masks/{}.png"),
    ],
)
def test_maps_beside_images_are_split_by_name(tmp_path, image, mask):
    for i in range(8):
        photo(tmp_path / image.format(i))
        label_map(tmp_path / mask.format(i), stripes(4, 7, 7, 255))
    label_map(tmp_path / mask.format("lone"), 1)
    split = find_label_maps((str(tmp_path),))
    assert (len(split.training), len(split.validation)) == (6, 2)
    assert split.training.classes == ("4", "7")
    assert split.validation.labels(1).tolist() == stripes(0, 1, 1, 255).tolist()
    assert "1 label maps without an image: left out" in printed(split)
    assert not {*split.training.images.paths} & {*split.validation.images.paths}


def test_one_class_in_black_and_white(tmp_path):
    for i in range(4):
        photo(tmp_path / "images" / f"{i}.jpg")
        label_map(tmp_path / "masks" / f"{i}.png", stripes(0, 255, 0, 0))
    split = find_label_maps((str(tmp_path),))
    assert split.training.classes == ("0", "255")
    assert split.training.labels(0).tolist() == stripes(0, 1, 0, 0).tolist()


def test_palettes_and_deep_maps(tmp_path):
    colours = [0, 0, 0, 200, 10, 10, 10, 200, 10]
    for i, (mode, palette) in enumerate([(None, colours), ("I;16", None), (None, None), (None, None)]):
        photo(tmp_path / "images" / f"{i}.jpg")
        label_map(tmp_path / "masks" / f"{i}.png", stripes(0, 1, 2, 1), mode, palette)
    split = find_label_maps((str(tmp_path),), val_share=0.5)
    for part in split[:2]:
        assert part.palette.tolist() == np.reshape(colours, (3, 3)).tolist()
        assert all(part.labels(i).tolist() == stripes(0, 1, 2, 1).tolist() for i in range(2))


def test_maps_in_colour(tmp_path):
    colours = np.array([(9, 9, 9), (0, 128, 255), (255, 0, 0)])
    for i in range(4):
        photo(tmp_path / "images" / f"{i}.jpg")
        label_map(tmp_path / "masks" / f"{i}.png", colours[stripes(0, 2, 1, 2)])
    with pytest.raises(DataError, match=r"masks/0\.png is in colour: give the colours"):
        find_label_maps((str(tmp_path),))
    rows = "Name;R;G;B\r\nsoil ;9;9;9\r\nsea;0;128;255\r\nroof;255;0;0\r\n"
    (tmp_path / "class_dict.csv").write_bytes(rows.encode("utf-16"))
    split = find_label_maps((str(tmp_path),))
    assert split.training.classes == ("soil", "sea", "roof")
    assert split.training.palette.tolist() == colours.tolist()
    assert split.training.labels(0).tolist() == stripes(0, 2, 1, 2).tolist()
    label_map(tmp_path / "masks" / "0.png", (colours + 1)[stripes(0, 2, 1, 2)])
    with pytest.raises(DataError, match=r"0\.png has the colour 10, 10, 10, which is that of no class"):
        [part.labels(i) for part in split[:2] for i in range(len(part))]


def test_24_bad_maps_are_named(tmp_path):
    for i in range(4):
        photo(tmp_path / "images" / f"{i}.jpg")
        label_map(tmp_path / "labels" / f"{i}.png", stripes(0, 1, 1, 255))
    (tmp_path / "classes.txt").write_text("soil\n\nsea\n")
    options = {"val": (str(tmp_path),)}
    with pytest.raises(DataError, match="4 images are for training and for validation"):
        find_label_maps((str(tmp_path),), **options)
    split = find_label_maps((str(tmp_path),), val_share=0.25)
    bad = Path(split.training.images.paths[1]).stem
    place = tmp_path / "labels" / f"{bad}.png"
    label_map(place, stripes(0, 1, 2, 255))
    with pytest.raises(DataError, match=rf"{bad}\.png holds the label 2 and there are 2 classes"):
        split.training.labels(1)
    label_map(place, np.zeros((HEIGHT, WIDTH + 1)))
    with pytest.raises(DataError, match=rf"{bad}\.png has 6 x 9 pixels .*{bad}\.jpg 6 x 8"):
        pixel_counts(split.training)
    place.write_bytes(place.read_bytes()[:45])
    with pytest.raises(DataError, match=rf"label map .*{bad}\.png cannot be read"):
        split.training.labels(1)
    place.unlink()
    with pytest.raises(DataError, match=rf"1 of 4 images have no label map .*: add {bad}\.png"):
        find_label_maps((str(tmp_path),))


def test_maps_over_the_most_megapixels_are_refused_before_they_are_decoded(tmp_path):
    for i in range(4):
        photo(tmp_path / "images" / f"{i}.jpg")
        label_map(tmp_path / "labels" / f"{i}.png", stripes(0, 1, 1, 0))
    split = find_label_maps((str(tmp_path),), val_share=0.25)
    bad = tmp_path / "labels" / f"{Path(split.training.images.paths[1]).stem}.png"
    write_header(bad, 60_000, 50_000)
    says = rf"{bad.name} has 60000 x 50000 pixels, over --data.max-megapixels 200: .* to 3000$"
    for read in (lambda: split.training.labels(1), lambda: find_label_maps((str(tmp_path),))):
        with pytest.raises(DataError, match=says):
            read()
    options = SegmentData(max_megapixels=4000)
    with pytest.raises(DataError, match="cannot be read"):
        find_label_maps((str(tmp_path),), options=options)
    few = SegmentData(max_megapixels=0.001)
    label_map(bad, np.zeros((40, 26)))
    with pytest.raises(DataError, match=r"26 x 40 pixels, over --data.max-megapixels 0.001"):
        find_label_maps((str(tmp_path),), options=few)


def test_maps_are_read_as_small_as_they_are_stored(tmp_path):
    side = 500
    photo(tmp_path / "images" / "0.jpg", (side, side))
    photo(tmp_path / "images" / "1.jpg", (side, side))
    for i in range(2):
        label_map(tmp_path / "labels" / f"{i}.png", np.zeros((side, side)))
    maps = find_label_maps((str(tmp_path),)).training
    tracemalloc.start()
    labels = maps.labels(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert labels.dtype == np.int64
    assert peak < 16 * side**2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("classes.txt", "a\nb\na\n", "lists the class 'a' twice"),
        ("classes.txt", "\n", "lists no classes"),
        ("palette.csv", "name,r,g,b\na,1,2,3\nb,1,2,3\n", "have the same colour"),
        ("palette.csv", "name,r,g,b\na,1,2,300\n", "a colour that is none"),
        ("palette.csv", "id,r,g,b\na,1,2,3\n", "no column name"),
    ],
)
def test_bad_lists_of_classes(tmp_path, name, content, says):
    photo(tmp_path / "images" / "0.jpg")
    label_map(tmp_path / "masks" / "0.png", 0)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=says):
        find_label_maps((str(tmp_path),))


def test_validation_maps_of_other_values(tmp_path):
    """Classes that are called by their values are matched by them."""
    for folder, values in (("a", (0, 1, 3, 3)), ("b", (3, 3, 0, 0)), ("c", (0, 2, 2, 2))):
        for i in range(2):
            photo(tmp_path / folder / "images" / f"{i}.jpg")
            label_map(tmp_path / folder / "masks" / f"{i}.png", stripes(*values))
    a, b, c = (str(tmp_path / name) for name in "abc")
    split = find_label_maps((a,), val=(b,))
    assert split.validation.classes == ("0", "1", "3")
    assert split.validation.labels(0).tolist() == stripes(2, 2, 0, 0).tolist()
    with pytest.raises(DataError, match="only validation has '2'"):
        find_label_maps((a,), val=(c,))
    with pytest.raises(DataError, match="has no label maps"):
        find_label_maps((str(tmp_path),))
    with pytest.raises(DataError, match="takes one folder"):
        find_label_maps((a, b))


def ring(left, top, right, bottom) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def test_masks_of_coco(tmp_path):
    """Small objects lie over large ones; what has no mask is ignored."""
    objects = [
        (1, ring(1, 1, 3, 3), None),
        (2, ring(0, 0, 6, 4), None),
        (2, None, [6, 4, 2, 2]),
    ]
    for i in range(2):
        photo(tmp_path / "images" / f"{i}.png")
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(2)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "mat"}],
        "annotations": [
            {"image_id": 0, "category_id": k, "bbox": box, "segmentation": shape and [shape]}
            for k, shape, box in objects
        ]
        + [{"image_id": 1, "category_id": 1, "bbox": None, "segmentation": [ring(0, 0, 8, 1)]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    split = find_label_maps((str(tmp_path),), val_share=0.5)
    assert split.training.classes == ("background", "cat", "mat")
    maps = {Path(p.images.paths[0]).stem: p.labels(0) for p in split[:2]}
    wanted = np.zeros((HEIGHT, WIDTH))
    wanted[:4, :6] = 2
    wanted[1:3, 1:3] = 1
    wanted[4:, 6:] = 255
    assert np.array_equal(maps["0"], wanted)
    assert maps["1"].sum() == WIDTH
    assert "objects without a mask: the pixels of their boxes are ignored" in printed(split)
    assert "pixels without an object are the class 'background'" in printed(split)
    content["annotations"] = [{"image_id": 0, "category_id": 1, "bbox": [1, 1, 3, 3]}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="have boxes and no masks"):
        find_label_maps((str(tmp_path),))


@pytest.mark.parametrize("format_", ["pictures", "labelme"])
def test_20_a_label_map_is_tried_again_as_an_image_is(tmp_path, monkeypatch, format_):
    """What fails for a moment ends no run; what goes on failing is a sentence."""
    import unmask.data.images as images
    from unmask.data.sources import labelme, map_pictures

    for i in range(4):
        photo(tmp_path / "images" / f"{i}.png")
        if format_ == "pictures":
            label_map(tmp_path / "masks" / f"{i}.png", stripes(0, 1, 1, 0))
        else:
            shape = {"label": "cat", "points": [[2, 0], [5, 5]], "shape_type": "rectangle"}
            content = {"shapes": [shape], "flags": {}, "imagePath": f"{i}.png"}
            (tmp_path / "images" / f"{i}.json").write_text(json.dumps(content))
    training = find_label_maps((str(tmp_path),)).training
    wanted = training.labels(0)
    module, name = (map_pictures, "_stored") if format_ == "pictures" else (labelme, "read_regular")
    read, failures, calls = getattr(module, name), [errno.ESTALE, errno.EIO], list[str]()

    def shaky(path, *more):
        calls.append(path)
        if failures:
            raise OSError(failures.pop(), "Stale file handle")
        return read(path, *more)

    monkeypatch.setattr(module, name, shaky)
    monkeypatch.setattr(images, "SECONDS_BETWEEN_TRIES", (0.0, 0.0))
    assert np.array_equal(training.labels(0), wanted)
    assert len(calls) == 3
    failures[:] = [errno.EIO] * 3
    with pytest.raises(DataError, match="Stale file handle"):
        training.labels(0)
    failures[:], calls[:] = [errno.EACCES], []
    with pytest.raises(DataError):
        training.labels(0)
    assert len(calls) == 1, "what does not pass is not waited for"


@pytest.mark.parametrize("wrong", [10**30, float("inf"), None, [1]], ids=str)
@pytest.mark.parametrize("column", ["value", "r"])
def test_classes_with_a_value_that_is_none(tmp_path, column, wrong):
    photo(tmp_path / "images" / "0.png")
    label_map(tmp_path / "masks" / "0.png", 0)
    row = {"name": "cat", "value": 0, "r": 0, "g": 0, "b": 0} | {column: wrong}
    (tmp_path / "classes.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"classes\.jsonl has a |hold no class from"):
        find_label_maps((str(tmp_path),), options=MapOptions(classes=str(tmp_path / "classes.jsonl")))


def test_sizes_in_coco_over_the_most_megapixels_are_refused(tmp_path):
    photo(tmp_path / "0.jpg")
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "segmentation": [ring(1, 1, 4, 4)]}
    content = {"categories": [{"id": 1, "name": "a"}], "annotations": [box]}
    image = {"id": 1, "file_name": "0.jpg", "height": 60_000, "width": 60_000}
    (tmp_path / "a.json").write_text(json.dumps(content | {"images": [image]}))
    with pytest.raises(DataError, match=r"over --data.max-megapixels 200"):
        find_label_maps((str(tmp_path),))
