"""Objects in images: COCO's and PASCAL VOC's formats, tables of boxes; a report of what is odd."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.makers import all_pixels
from unmask.data.annotations import refuse_wrong_sizes
from unmask.data.detections import find_boxes, find_detections
from unmask.errors import DataError

HEIGHT, WIDTH = 20, 30


def photo(*places: Path, size=(WIDTH, HEIGHT)) -> None:
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (9, 8, 7)).save(place)


def square(left, top, side) -> list[float]:
    return [left, top, left + side, top, left + side, top + side, left, top + side]


def annotation(image, category, box, **more) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}


def coco(file: Path, images: list[str], annotations: list[dict], names=((1, "cat"), (3, "dog"))) -> str:
    """Images are numbered from 10."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "info": {"year": 2017, "tags": ["a", {"b": "}]"}]},
        "annotations": annotations,
        "images": [
            {"id": 10 + i, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for i, name in enumerate(images)
        ],
        "categories": [{"id": i, "name": name} for i, name in names],
    }
    file.write_text(json.dumps(content, indent=1))
    return str(file)


def printed(findings) -> str:
    return "\n".join(map(str, findings))


@pytest.fixture
def official(tmp_path):
    """As COCO itself is laid out; the order of the file is not that of the names."""
    photo(*(tmp_path / "train2017" / f"{i}.jpg" for i in range(3)), tmp_path / "val2017" / "9.jpg")
    mask = {"segmentation": [square(2, 3, 4)]}
    coco(
        tmp_path / "annotations" / "instances_train2017.json",
        ["2.jpg", "0.jpg", "1.jpg"],
        [
            annotation(11, 3, [1, 2, 5, 6], segmentation=[square(1, 2, 5)]),
            annotation(10, 1, [2, 3, 4, 4], **mask),
            annotation(11, 1, [0, 0, 9, 9], segmentation=[square(0, 0, 2), square(7, 7, 2)]),
        ],
    )
    coco(
        tmp_path / "annotations" / "instances_val2017.json",
        ["9.jpg"],
        [annotation(10, 7, [2, 3, 4, 4], **mask)],
        names=[(7, "dog")],
    )
    (tmp_path / "annotations" / "captions_val2017.json").write_text('{"images": [], "annotations": []}')
    return tmp_path


def test_coco_as_it_is_published(official):
    split = find_detections((str(official),))
    training = split.training
    assert training.classes == split.validation.classes == ("cat", "dog")
    assert [Path(path).name for path in training.images.paths] == ["0.jpg", "1.jpg", "2.jpg"]
    assert training.image_ids.tolist() == [11, 12, 10]
    assert training.category_ids == (1, 3)
    assert training.sizes.tolist() == [[HEIGHT, WIDTH]] * 3
    first = training.instances[0]
    assert first.boxes.tolist() == [[1, 2, 6, 8], [0, 0, 9, 9]]
    assert first.boxes.dtype == np.float32
    assert first.labels.tolist() == [1, 0]
    assert all_pixels(first, (HEIGHT, WIDTH)).sum(axis=(1, 2)).tolist() == [25, 8]
    assert len(training.instances[1]) == 0
    assert training.instances[1].boxes.shape == (0, 4)
    assert split.validation.instances[0].labels.tolist() == [1], "classes are matched by their names"
    assert split.validation.category_ids[1] == 7
    assert "gaps in the category ids" in printed(split.findings)
    assert "images without objects: kept, as background" in printed(split.findings)
    assert split.counts == "3 images for training and 1 image for validation"
    assert "3 objects for training and 1 object for validation" in split.notes
    one = training.subset(np.array([2, 0]))
    assert one.instances[0].pixels(0, (HEIGHT, WIDTH))[3:7, 2:6].all()
    assert one.instances[1].boxes.tolist() == first.boxes.tolist()
    assert one.image_ids.tolist() == [10, 11]
    refuse_wrong_sizes(training)


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("train/_annotations.coco.json", "train"),
        ("annotations.json", "images"),
        ("annotations.json", "."),
        ("labels/train.json", "train"),
        ("labels/boxes.json", "images"),
        ("annotations/instances_train2014.json", "images/train2014"),
    ],
)
def test_where_coco_images_are(tmp_path, file, folder):
    photo(*(tmp_path / folder / f"{i}.png" for i in range(8)))
    names = [f"{i}.png" for i in range(8)]
    boxes = [annotation(10 + i, 1, [1, 1, 5, 5]) for i in range(8)]
    path = coco(tmp_path / file, names, boxes)
    for source in (str(tmp_path), path):
        split = find_detections((source,))
        assert (len(split.training), len(split.validation)) == (6, 2)
        assert "25% of the images are held out" in split.notes[0]
        assert split.training.instances[0].masks is None
        assert split.training.images.paths[0].startswith(str(tmp_path / folder))
    fewer = find_detections((coco(tmp_path / file, names[:7], boxes[:7]),))
    assert len({*fewer.validation.images.paths} ^ {*split.validation.images.paths}) <= 1


@pytest.mark.parametrize(
    "written", ["images\\{}.png", "/data/upload/1/{}.png", "C:\\work\\{}.png", "{}.png"]
)
def test_names_of_coco_images_from_other_machines(tmp_path, written):
    """As labelling tools write them; a class may be called like a key of another format."""
    photo(*(tmp_path / "images" / f"{i}.png" for i in range(8)))
    names = [written.format(i) for i in range(8)]
    boxes = [annotation(10 + i, 1, [1, 1, 5, 5]) for i in range(8)]
    coco(tmp_path / "result.json", names, boxes, names=[(0, "shapes"), (1, "flags")])
    split = find_detections((str(tmp_path),))
    assert (len(split.training), len(split.validation)) == (6, 2)
    assert split.training.classes == ("shapes", "flags")
    paths = [*split.training.images.paths, *split.validation.images.paths]
    assert sorted(paths) == [str(tmp_path / "images" / f"{i}.png") for i in range(8)]


def test_classes_that_all_parts_share_are_reported_once(tmp_path):
    """As Roboflow exports them: the first category is the name of the project."""
    names = [(0, "animals"), (1, "cat"), (2, "cat"), (4, "cow")]
    for part, category in (("train", 1), ("valid", 4), ("test", 1)):
        photo(*(tmp_path / part / f"{part}{i}.jpg" for i in range(2)))
        boxes = [annotation(10, category, [1, 1, 5, 5], segmentation=[])]
        images = [f"{part}{i}.jpg" for i in range(2)]
        coco(tmp_path / part / "_annotations.coco.json", images, boxes, names)
    report = printed(find_detections((str(tmp_path),)).findings)
    assert (
        "1 gaps in the category ids: classes are numbered without them; such as '4 follows 2'" in report
    )
    assert "1 categories of one name: treated as one class; such as 'cat'" in report
    assert "2 classes without objects to train on: kept; such as 'animals', 'cow'" in report
    assert "3 images without objects" in report


def test_names_that_only_their_folders_tell_apart_are_not_shortened(tmp_path):
    photo(tmp_path / "images" / "0.png")
    coco(tmp_path / "a.json", ["/data/a/0.png", "/data/b/0.png"], [annotation(10, 1, [1, 1, 5, 5])])
    with pytest.raises(
        DataError, match=r"none of the 2 images .* are there, the first is /data/a/0\.png"
    ):
        find_boxes((str(tmp_path),))


def test_24_oddities_of_coco_are_reported(tmp_path):
    photo(*(tmp_path / f"{i}.jpg" for i in range(4)))
    path = coco(
        tmp_path / "a.json",
        ["0.jpg", "1.jpg", "2.jpg", "gone.jpg", "0.jpg", "3.jpg"],
        [
            annotation(10, 1, [1, 2, 5, 6]),
            annotation(10, 1, [1, 2, 5, 6]),  # again
            annotation(10, 1, [3, 3, 0, 6]),  # no area
            annotation(10, 1, [3, 3, -4, 6]),
            annotation(10, 1, [3, 3, float("nan"), 6]),
            annotation(11, 1, [40, 3, 4, 6]),  # outside
            annotation(11, 3, [25, 15, 10, 10]),  # reaches beyond
            annotation(11, 3, [20, 15, 10.5, 5]),  # by rounding
            annotation(13, 1, [1, 2, 5, 6]),  # of the missing image
            annotation(14, 3, [1, 2, 5, 6]),  # of the image that is listed twice
            annotation(99, 1, [1, 2, 5, 6]),  # of none
            annotation(12, 1, [0, 0, 30, 20], iscrowd=1, segmentation={
                "size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}),
            annotation(12, 1, [1, 1, 3, 3], segmentation={"size": [5, 5], "counts": [25]}),
            annotation(12, 3, [1, 1, 3, 3], segmentation=[[1, 2, 3, 4]]),
        ],
        names=[(1, "cat"), (3, "dog"), (4, "dog"), (5, "cow")],
    )  # fmt: skip
    found = find_boxes((path,))
    report = printed(found.findings)
    for words in (
        "1 images listed twice: taken once",
        "1 images whose files are missing: left out",
        "1 objects of images that are not listed: left out; such as 'image 99 in",
        "3 boxes without area: left out",
        "1 boxes outside their image: left out",
        "1 boxes that reach beyond their image: cut at its edge",
        "1 objects listed twice: taken once",
        "1 regions of crowds",
        "1 masks of another size than their image",
        "1 masks that cannot be read",
        "1 images without objects",
        "1 categories of one name: treated as one class; such as 'dog'",
        "1 gaps in the category ids",
        "objects without a mask: their boxes are learnt",
    ):
        assert words in report, words
    data = found.training
    assert len(data) == 4
    assert data.classes == ("cat", "dog", "cow")
    assert data.instances[0].boxes.tolist() == [[1, 2, 6, 8], [1, 2, 6, 8]]
    assert data.instances[0].labels.tolist() == [0, 1]
    assert data.instances[1].boxes.tolist() == [[25, 15, 30, 20], [20, 15, 30, 20]]
    third = data.instances[2]
    assert third.crowd.tolist() == [True, False, False]
    assert third.masks[0] is not None
    assert third.masks[1:] == (None, None)
    assert all_pixels(third, (HEIGHT, WIDTH)).sum(axis=(1, 2)).tolist() == [HEIGHT * WIDTH, 0, 0]


def test_compressed_run_lengths_and_boxes_from_masks(tmp_path):
    library = pytest.importorskip("pycocotools.mask")
    wanted = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    wanted[4:9, 11:25] = 1
    text = library.encode(np.asfortranarray(wanted))["counts"].decode()
    photo(tmp_path / "0.jpg")
    segmentation = {"size": [HEIGHT, WIDTH], "counts": text}
    path = coco(
        tmp_path / "a.json",
        ["0.jpg"],
        [annotation(10, 1, None, segmentation=segmentation), annotation(10, 3, [], segmentation=[
            square(2, 3, 4)])],
    )  # fmt: skip
    instances = find_boxes((path,)).training.instances[0]
    assert np.array_equal(instances.pixels(0, (HEIGHT, WIDTH)), wanted)
    assert instances.boxes.tolist() == [[11, 4, 25, 9], [2, 3, 6, 7]]


BAD_COCO = {
    "not JSON, or not whole": lambda text: text[:-40],
    "'x' at character": lambda text: text.replace('"categories":', '"categories" x'),
    "has 2 images and 0 categories": lambda text: text.replace('"categories"', '"kinds"'),
    "have the category 3, which is not among": lambda text: text.replace('"id": 3', '"id": 4'),
    "one of its annotations is .*KeyError": lambda text: text.replace('"category_id"', '"category"'),
    "none of the 2 images .* the first is .*x1.png: put": lambda text: text.replace(".jpg", "x1.png"),
}


@pytest.mark.parametrize("says", BAD_COCO)
def test_24_coco_that_cannot_be_used(tmp_path, says):
    photo(tmp_path / "0.jpg", tmp_path / "1.jpg")
    boxes = [annotation(10, 3, [1, 1, 5, 5]), annotation(11, 3, [1, 1, 5, 5])]
    path = Path(coco(tmp_path / "a.json", ["0.jpg", "1.jpg"], boxes))
    assert len(find_detections((str(path),)).training) == 1
    path.write_text(BAD_COCO[says](path.read_text()))
    with pytest.raises(DataError, match=says) as refusal:
        find_detections((str(path),))
    assert str(path) in str(refusal.value)


def test_splits_that_cannot_be_made(tmp_path, official):
    photo(tmp_path / "one" / "0.jpg")
    alone = coco(tmp_path / "one" / "a.json", ["0.jpg"], [annotation(10, 1, [1, 1, 5, 5])])
    stranger = coco(
        tmp_path / "one" / "b.json", ["0.jpg"], [annotation(10, 1, [1, 1, 5, 5])], names=[(1, "emu")]
    )
    empty = coco(tmp_path / "train2017" / "c.json", ["0.jpg", "1.jpg"], [])
    for sources, options, says in (
        ((alone,), {}, "one image alone"),
        ((str(official / "annotations" / "instances_train2017.json"),), {"val": (stranger,)}, "'emu'"),
        ((alone,), {"val": (alone,)}, "1 images are for training and for validation"),
        ((empty,), {}, "has an object"),
        ((str(tmp_path / "one"),), {}, "are both for train: give one of them"),
        ((str(tmp_path / "nowhere"),), {}, "has no boxes"),
        ((alone, empty), {}, "takes one folder or file"),
    ):
        with pytest.raises(DataError, match=says):
            find_detections(sources, **options)
    with pytest.raises(ValueError, match="share between 0 and 1"):
        find_detections((alone,), val_share=1.5)
    split = find_detections((str(official),), val_share=0.5)
    assert (len(split.training), len(split.validation)) in ((1, 2), (2, 1))
    assert "1 images that the data keep for validation are left out" in split.notes


def test_images_that_are_not_those_that_were_annotated(tmp_path):
    photo(tmp_path / "0.jpg", size=(HEIGHT, WIDTH))
    path = coco(tmp_path / "a.json", ["0.jpg"], [annotation(10, 1, [1, 1, 5, 5])])
    with pytest.raises(DataError, match=r"0\.jpg has 30 x 20 pixels .* for 20 x 30"):
        refuse_wrong_sizes(find_boxes((path,)).training)


def voc(file: Path, name: str, objects, database="", size=(HEIGHT, WIDTH)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    boxes = "".join(
        f"<object><name>{label}</name><difficult>{int(difficult)}</difficult><bndbox><xmin>{x0}</xmin>"
        f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for label, (x0, y0, x1, y1), difficult in objects
    )
    file.write_text(
        f"<annotation><filename>{name}</filename><source><database>{database}</database></source>"
        f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>{boxes}"
        f"</annotation>"
    )


def test_voc_as_it_is_published(tmp_path):
    """Its pixels count from 1, and a box holds its last one."""
    photo(*(tmp_path / "JPEGImages" / f"{i}.jpg" for i in range(4)))
    for i in range(4):
        objects = [("cat", (1, 1, 30, 20), False), ("dog", (3, 4, 5, 6), i == 0)]
        voc(tmp_path / "Annotations" / f"{i}.xml", f"{i}.jpg", objects, "The VOC2007 Database")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n")
    (lists / "val.txt").write_text("2\n")
    (lists / "cat_train.txt").write_text("0 1\n1 -1\n")
    split = find_detections((str(tmp_path),))
    assert [Path(path).name for path in split.training.images.paths] == ["0.jpg", "1.jpg"]
    assert len(split.validation) == 1
    instances = split.training.instances[0]
    assert instances.boxes.tolist() == [[0, 0, 30, 20], [2, 3, 5, 6]]
    assert instances.crowd.tolist() == [False, True], "difficult ones count neither way"
    assert instances.masks is None
    assert "ImageSets/Main does not list: left out" in printed(split.findings)


@pytest.mark.parametrize("folder", ["", "../images/", "deep/"])
def test_voc_as_labelling_tools_write_it(tmp_path, folder):
    names = [*(f"train/{i}" for i in range(3)), "val/3"]
    for name in names:
        place = tmp_path / "data" / name
        beside = place if folder != "../images/" else tmp_path / "data" / "images" / name
        photo(beside.with_suffix(".PNG" if folder else ".jpg"))
        objects = [("tree", (1.5, 1, 30, 20), False)]
        voc(place.with_suffix(".xml"), f"{place.stem}.jpg", objects, size=(0, 0))
    (tmp_path / "data" / "train" / "broken.xml").write_text("<annotation><object>")
    (tmp_path / "data" / "train" / "other.xml").write_text("<project/>")
    split = find_detections((str(tmp_path / "data"),))
    assert (len(split.training), len(split.validation)) == (3, 1)
    assert split.training.instances[0].boxes.tolist() == [[1.5, 1, 30, 20]]
    assert split.training.sizes.tolist() == [[HEIGHT, WIDTH]] * 3, "as the images' headers say"
    assert "2 annotation files that cannot be read: left out" in printed(split.findings)


TABLE = "Image_Path;XMin; ymin;xmax;ymax;Label;split\r\n{}"


def test_a_table_of_boxes(tmp_path):
    photo(*(tmp_path / f"{i}.png" for i in range(4)))
    rows = [
        "0.png;1;2;5;6;cat ;train",
        "0.png;3;2;50;6;2;train",
        "1.png;;;;;;train",
        "2.png;1;2;3,5;4;cat;val",
    ]
    (tmp_path / "a.csv").write_text(TABLE.format("\r\n".join(rows)))
    with pytest.raises(DataError, match=r"row 5, has no box .*'3,5'"):
        find_detections((str(tmp_path / "a.csv"),))
    (tmp_path / "a.csv").write_text(TABLE.format("\r\n".join(rows).replace("3,5", "3.5")))
    split = find_detections((str(tmp_path / "a.csv"),))
    assert split.training.classes == ("2", "cat")
    assert split.training.instances[0].boxes.tolist() == [[1, 2, 5, 6], [3, 2, WIDTH, 6]]
    assert split.training.instances[0].labels.tolist() == [1, 0]
    assert len(split.training.instances[1]) == 0
    assert split.validation.instances[0].boxes.tolist() == [[1, 2, 3.5, 4]]
    assert "1 boxes that reach beyond" in printed(split.findings)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("0.png;1;2;5;6;;train", "row 2, has a box and no class"),
        ("0.png;1;2;5;6;cat;later", "row 2, has the split 'later'"),
        ("0.png;1;2;;6;cat;train", "row 2, has no box"),
    ],
)
def test_tables_that_hold_no_boxes(tmp_path, rows, says):
    photo(tmp_path / "0.png")
    (tmp_path / "a.csv").write_text(TABLE.format(rows))
    with pytest.raises(DataError, match=says):
        find_boxes((str(tmp_path / "a.csv"),))


def test_a_set_without_a_single_object_is_read(tmp_path):
    photo(tmp_path / "0.jpg", tmp_path / "1.jpg")
    found = find_boxes((coco(tmp_path / "a.json", ["0.jpg", "1.jpg"], []),))
    assert len(found.training.instances[1]) == 0
    assert "2 images without objects" in printed(found.findings)


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ("annotations", 5),
        ("annotations", annotation(10, 1, ["a", "b", "c", "d"])),
        ("annotations", annotation(10, 1, [10**400, 0, 5, 5])),
        ("annotations", annotation(10, [1], [0, 0, 5, 5])),
        ("annotations", annotation(10, 1e30, [0, 0, 5, 5])),
        ("annotations", annotation([10], 1, [0, 0, 5, 5])),
        ("images", 5),
        ("images", {"id": [3], "file_name": "0.jpg"}),
        ("images", {"id": 3, "file_name": "0.jpg", "height": float("inf"), "width": 3}),
        ("categories", {"id": 10**30, "name": "cat"}),
    ],
    ids=str,
)
def test_24_values_that_no_coco_file_has_are_a_sentence(tmp_path, section, wrong):
    photo(tmp_path / "0.jpg")
    file = coco(tmp_path / "a.json", ["0.jpg"], [annotation(10, 1, [0, 0, 5, 5])])
    content = json.loads(Path(file).read_text())
    content[section].append(wrong)
    Path(file).write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"not in COCO's format: one of its {section} is "):
        find_boxes((file,))


def test_24_sizes_ids_and_corners_beyond_all_images(tmp_path):
    photo(*(tmp_path / f"{i}.jpg" for i in range(4)))
    far = {"segmentation": [square(1e30, 0, 5)]}
    turned = {"segmentation": {"size": [-2, -3], "counts": [6]}}
    objects = [annotation(10, 1, [0, 0, 5, 5], **far), annotation(11, 1, [0, 0, 5, 5], **turned)]
    file = coco(tmp_path / "a.json", [f"{i}.jpg" for i in range(4)], objects)
    content = json.loads(Path(file).read_text())
    content["images"][0]["height"], content["images"][1]["width"] = 3e9, -1
    content["images"][2]["id"] = 10**30
    Path(file).write_text(json.dumps(content))
    parts = find_boxes((file,))
    assert parts.training.sizes.tolist() == [[HEIGHT, WIDTH]] * 4
    assert "2 images for which the annotations give a size that none has" in printed(parts.findings)
    assert "2 masks that cannot be read" in printed(parts.findings)
    assert parts.training.instances.labels.tolist() == [0, 0]


VOC = "<annotation><filename>{}</filename>{}<object><name>cat</name>{}</object></annotation>"
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
SIZE = "<size><height>{}</height><width>30</width></size>"


def test_24_oddities_of_voc(tmp_path):
    sizes = {"0": "20", "1": "3000000000", "2": "3e9", "3": "1e400", "4": "-5"}
    for name, height in sizes.items():
        photo(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.xml").write_text(VOC.format(f"{name}.jpg", SIZE.format(height), BOX))
    declared = '<?xml version="1.0" encoding="foo"?>' + VOC.format("0.jpg", "", BOX)
    (tmp_path / "5.xml").write_text(declared)
    far = BOX.replace("<xmin>1<", "<xmin>-1e400<")
    (tmp_path / "6.xml").write_text(VOC.format("0.jpg", "", far))
    parts = find_boxes((str(tmp_path),))
    said = printed(parts.findings)
    assert parts.training.sizes.tolist() == [[HEIGHT, WIDTH]] * 3
    assert "3 annotation files that cannot be read: left out" in said
    assert "2 images for which the annotations give a size that none has" in said
    assert "1 boxes without area" in said
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"train\.txt cannot be read .* save it as UTF-8"):
        find_boxes((str(tmp_path),))
