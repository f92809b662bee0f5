"""YOLO's format, as the tools write it that people label with."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.makers import all_pixels
from unmask.data.detections import find_boxes, find_detections, has_boxes
from unmask.errors import DataError

HEIGHT, WIDTH = 20, 40
CAT = "0 0.5 0.5 0.25 0.5\n"
BOX_OF_CAT = [15.0, 5.0, 25.0, 15.0]
DOG = "1 0.1 0.25 0.2 0.5\n"
BOX_OF_DOG = [0.0, 0.0, 8.0, 10.0]


def photo(place: Path, labels: Path | None = None, text: str = "", **options) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (9, 8, 7)).save(place, **options)
    if labels:
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text(text)


def names_of(part) -> list[str]:
    return [Path(path).name for path in part.images.paths]


def boxes_of(part, index: int) -> list[list[float]]:
    table = part.instances
    return table.boxes[table.starts[index] : table.starts[index + 1]].tolist()


def test_as_ultralytics_keeps_its_data_sets(tmp_path):
    photo(tmp_path / "images/first/a.jpg", tmp_path / "labels/first/a.txt", CAT + DOG)
    photo(tmp_path / "images/first/b.jpg")  # no labels: background
    photo(tmp_path / "images/second/c.jpg", tmp_path / "labels/second/c.txt", DOG)
    photo(tmp_path / "images/unused/d.jpg", tmp_path / "labels/unused/d.txt", DOG)
    file = tmp_path / "coco8.yaml"
    file.write_text(
        "# COCO8\npath: ../datasets/coco8 # root\ntrain: images/first\nval: images/second\ntest: #\n"
        "names:\n  0: cat\n  1: dog\ndownload: https://example.org/coco8.zip\n"
    )
    for word in (str(tmp_path), str(file)):
        assert has_boxes(word)
        parts = find_boxes((word,))
        assert parts.training is not None
        assert parts.validation is not None
        assert (names_of(parts.training), names_of(parts.validation)) == (["a.jpg", "b.jpg"], ["c.jpg"])
        assert parts.training.classes == ("cat", "dog")
        np.testing.assert_allclose(boxes_of(parts.training, 0), [BOX_OF_CAT, BOX_OF_DOG])
        assert parts.training.instances.labels.tolist() == [0, 1]
        assert not parts.training.instances.has_masks
        counts = {finding.what: finding.count for finding in parts.findings}
        assert counts == {
            f"images of no part that {file} names": 1,
            "images without objects": 1,
        }


def test_a_file_that_says_where_the_images_are(tmp_path):
    photo(tmp_path / "data/images/train/a.jpg", tmp_path / "data/labels/train/a.txt", CAT)
    file = tmp_path / "config.yml"
    file.write_text(f"path: {tmp_path / 'data'}\ntrain: [images/train]\nnames: [cat]\n")
    parts = find_boxes((str(file),))
    assert parts.training is not None
    assert names_of(parts.training) == ["a.jpg"]


def test_as_roboflow_exports_it(tmp_path):
    for part, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        photo(tmp_path / part / f"images/{name}.jpg", tmp_path / part / f"labels/{name}.txt", CAT)
    (tmp_path / "README.roboflow.txt").write_text("2 images\n")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
        "names: ['cat', 'dog']\n\nroboflow:\n  license: CC BY 4.0\n"
    )
    parts = find_boxes((str(tmp_path),))
    found = (parts.training, parts.validation, parts.test)
    assert [part and names_of(part) for part in found] == [["a.jpg"], ["b.jpg"], ["c.jpg"]]


def test_as_labelimg_writes_it(tmp_path):
    photo(tmp_path / "a.png", tmp_path / "a.txt", "1 0.500000 0.500000 0.250000 0.500000\n")
    photo(tmp_path / "b.png", tmp_path / "b.txt", "")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    parts = find_boxes((str(tmp_path),))
    assert parts.training is not None
    assert parts.training.classes == ("dog", "cat")
    assert boxes_of(parts.training, 0) == [BOX_OF_CAT]
    assert parts.training.instances.labels.tolist() == [1]


def test_as_label_studio_exports_it(tmp_path):
    photo(tmp_path / "images/1c2-a.jpg", tmp_path / "labels/1c2-a.txt", CAT.strip())
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "notes.json").write_text('{"categories": [{"id": 0, "name": "cat"}], "info": {}}')
    parts = find_boxes((str(tmp_path),))
    assert parts.training is not None
    assert boxes_of(parts.training, 0) == [BOX_OF_CAT]


def test_as_cvat_exports_it(tmp_path):
    photo(tmp_path / "obj_train_data/x/a.jpg", tmp_path / "obj_train_data/x/a.txt", CAT)
    (tmp_path / "obj.names").write_text("cat\n")
    (tmp_path / "obj.data").write_text("classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/x/a.jpg\n")
    parts = find_boxes((str(tmp_path),))
    assert parts.training is not None
    assert (names_of(parts.training), boxes_of(parts.training, 0)) == (["a.jpg"], [BOX_OF_CAT])


def test_lists_of_images(tmp_path):
    """With the folders of the machine that wrote them; an image of two parts is for training."""
    for name in "abc":
        photo(tmp_path / f"images/{name}.jpg", tmp_path / f"labels/{name}.txt", CAT)
    (tmp_path / "train.txt").write_text("./images/a.jpg\n/data/set/images/b.jpg\n")
    (tmp_path / "val.txt").write_text("C:\\data\\images\\c.jpg\nimages/b.jpg\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: {0: cat}\n")
    parts = find_boxes((str(tmp_path),))
    assert parts.training is not None
    assert parts.validation is not None
    assert (names_of(parts.training), names_of(parts.validation)) == (["a.jpg", "b.jpg"], ["c.jpg"])


def test_outlines_become_masks(tmp_path):
    outline = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n"
    photo(tmp_path / "images/train/a.png", tmp_path / "labels/train/a.txt", outline + DOG)
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    parts = find_boxes((str(tmp_path),))
    assert parts.training is not None
    table = parts.training.instances
    assert table.boxes.tolist() == [[10.0, 5.0, 30.0, 15.0], BOX_OF_DOG]
    outlined, bare = all_pixels(table[0], (HEIGHT, WIDTH))
    assert outlined.sum() == 200
    assert outlined[5:15, 10:30].all()
    assert not bare.any()
    assert "objects without a mask" in [finding.what for finding in parts.findings]


def test_a_photograph_that_is_turned(tmp_path):
    """Shares are those of the image as it is shown."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / "a.jpg", tmp_path / "a.txt", "0 0.5 0.25 1 0.5\n", exif=exif)
    (tmp_path / "classes.txt").write_text("cat\n")
    parts = find_boxes((str(tmp_path),))
    assert parts.training is not None
    assert parts.training.sizes.tolist() == [[WIDTH, HEIGHT]]
    assert boxes_of(parts.training, 0) == [[0.0, 0.0, 20.0, 20.0]]


def test_key_points_behind_a_box_are_left_out(tmp_path):
    photo(tmp_path / "images/a.jpg", tmp_path / "labels/a.txt", CAT.strip() + " 0.1 0.1 2 0.2 0.2 2\n")
    (tmp_path / "pose.yaml").write_text("train: images\nnames: [cat]\nkpt_shape: [2, 3]\n")
    parts = find_boxes((str(tmp_path),))
    assert parts.training is not None
    assert boxes_of(parts.training, 0) == [BOX_OF_CAT]


def test_24_odd_lines_are_reported(tmp_path):
    lines = [CAT, "0 0.5 0.5 0.5\n", "cat 0.5 0.5 1 1\n", "0 nan 0.5 1 1\n", "0 .1 .1 .2 .2 .9 .9 .5\n"]
    lines += ["1 20 10 5 5\n", "0 0 0 1e300 0 1 1\n"]  # pixels; and what would not fit into memory
    photo(tmp_path / "a.jpg", tmp_path / "a.txt", "".join(lines) + "\n" + DOG.strip() + " 0.83\n")
    photo(tmp_path / "b.jpg", tmp_path / "b.txt", CAT)
    (tmp_path / "b.jpg").write_bytes(b"broken")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    parts = find_boxes((str(tmp_path),))
    assert parts.training is not None
    np.testing.assert_allclose(boxes_of(parts.training, 0), [BOX_OF_CAT, BOX_OF_DOG])
    counts = {finding.what: finding.count for finding in parts.findings}
    what = "lines that are neither a box nor an outline, in shares of the image's size"
    assert counts[what] == 6
    assert counts["boxes with a confidence, as a model writes them"] == 1


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("names: [dog]\n", r"a.txt, line 1, has the class 1, and .*data.yaml names 1 from 0: add"),
        ("names: {1: cat, 2: dog}\n", "not numbered 0, 1, 2 and so on"),
        ("names: [cat, cat]\n", "lists the class 'cat' twice"),
        ("names: 3\n", r"data.yaml has no names of classes: write them as in 'names: \[cat, dog\]'"),
        ("names: [{a: b}]\n", "has no names of classes"),
        ("names: [cat, dog]\n\tnc: 2\n", "data.yaml cannot be read as YAML .*correct it"),
        ("names: [cat, dog]\npath: !!bool foo\n", "data.yaml cannot be read as YAML"),
        ("names: [cat, dog]\nval: {a: b}\n", "data.yaml has no folder for val"),
    ],
)
def test_24_classes_that_cannot_be_used(tmp_path, names, says):
    photo(tmp_path / "images/a.jpg", tmp_path / "labels/a.txt", DOG)
    (tmp_path / "data.yaml").write_text("train: images\n" + names)
    with pytest.raises(DataError, match=says):
        find_boxes((str(tmp_path),))


def test_what_is_none(tmp_path):
    """Captions, notes and lists of classes beside images are no boxes; nor is anybody's .yaml."""
    photo(tmp_path / "a.jpg", tmp_path / "a.txt", "a cat on a mat\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "README.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "broken.yaml").write_text("{[")
    (tmp_path / "other.yaml").write_text("names: 3\n")
    assert not has_boxes(str(tmp_path))
    assert not has_boxes(str(tmp_path / "broken.yaml"))
    with pytest.raises(DataError, match="has no boxes"):
        find_detections((str(tmp_path),))


def test_paths_of_other_machines_and_other_folders(tmp_path, monkeypatch):
    """Whether the data set is named from inside or outside, and its parts absolutely or not."""
    photo(tmp_path / "set/images/a.jpg", tmp_path / "set/labels/a.txt", CAT)
    photo(tmp_path / "set/others/b.jpg")
    photo(tmp_path / "images/wrong.jpg")  # what '../images' is from the data set
    (tmp_path / "cfg").mkdir()
    monkeypatch.chdir(tmp_path)
    for place, train in (
        ("set/data.yaml", tmp_path / "set" / "images"),
        ("set/data.yaml", "../images"),
        ("set/data.yaml", "D:\\data\\set\\images"),
        ("cfg/data.yaml", tmp_path / "set" / "images"),
        ("cfg/data.yaml", "../set/images"),
    ):
        for file in ("set/data.yaml", "cfg/data.yaml"):
            Path(file).unlink(missing_ok=True)
        Path(place).write_text(f"train: {train}\nnames: [cat]\n")
        words = ["set", "set/data.yaml", str(tmp_path / "set")] if place.startswith("set") else [place]
        for word in words:
            parts = find_boxes((word,))
            assert parts.training is not None
            assert (names_of(parts.training), boxes_of(parts.training, 0)) == (["a.jpg"], [BOX_OF_CAT])


def test_24_parts_that_are_not_there(tmp_path):
    photo(tmp_path / "images/train/a.jpg", tmp_path / "labels/train/a.txt", CAT)
    photo(tmp_path / "images/val/b.jpg", tmp_path / "labels/val/b.txt", CAT)
    (tmp_path / "train.txt").write_text("images/train/a.jpg\nimages/train/gone.jpg\n")
    file = tmp_path / "data.yaml"
    file.write_text("train: train.txt\nval: images/valid\nnames: [cat]\n")
    parts = find_boxes((str(tmp_path),))
    said = {finding.what: finding.examples for finding in parts.findings}
    assert said == {
        f"places that {file} names and that are not there": (
            "images/train/gone.jpg",
            "val: images/valid",
        ),
        f"images of no part that {file} names": (str(tmp_path / "images/val/b.jpg"),),
    }
    file.write_text("train: images/first\nval: images/val\nnames: [cat]\n")
    with pytest.raises(
        DataError, match="training images are 'images/first', which is not there: correct"
    ):
        find_boxes((str(tmp_path),))


def test_as_darknet_keeps_it(tmp_path):
    for name in "ab":
        photo(tmp_path / f"data/obj/{name}.jpg", tmp_path / f"data/obj/{name}.txt", CAT)
    (tmp_path / "data/obj.names").write_text("cat\ndog\n")
    (tmp_path / "data/obj.data").write_text(
        "classes = 2\ntrain  = data/train.txt\nvalid = data/test.txt\n"
    )
    (tmp_path / "data/train.txt").write_text("data/obj/a.jpg\n")
    (tmp_path / "data/test.txt").write_text("data/obj/b.jpg\n")
    for word in (tmp_path, tmp_path / "data"):
        parts = find_boxes((str(word),))
        assert parts.training is not None
        assert parts.validation is not None
        assert (names_of(parts.training), names_of(parts.validation)) == (["a.jpg"], ["b.jpg"])


def test_numbers_of_classes_however_they_are_written(tmp_path):
    photo(tmp_path / "images/a.jpg", tmp_path / "labels/a.txt", CAT.replace("0 ", "0.0 ", 1))
    (tmp_path / "data.yaml").write_text("names: {'0': cat, '1': dog}\n")
    parts = find_boxes((str(tmp_path),))
    assert parts.training is not None
    assert (parts.training.classes, boxes_of(parts.training, 0)) == (("cat", "dog"), [BOX_OF_CAT])


def test_which_list_of_classes_counts(tmp_path):
    photo(tmp_path / "images/a.jpg", tmp_path / "labels/a.txt", CAT)
    (tmp_path / "labels/classes.txt").write_text("cow\n")  # labelImg's, in the folder that it saves to

    def classes() -> tuple[str, ...]:
        parts = find_boxes((str(tmp_path),))
        assert parts.training is not None
        return parts.training.classes

    assert classes() == ("cow",)
    for name in ("coco", "set", "data"):
        if name == "data":
            with pytest.raises(DataError, match=r"coco.yaml and .*set.yaml both name classes: give"):
                classes()
        (tmp_path / f"{name}.yaml").write_text(f"names: [{name}]\n")
    assert classes() == ("data",)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "set.yaml").unlink()
    (tmp_path / "coco.yaml").unlink()
    (tmp_path / "labels/classes.txt").write_text("cow\n\ncat\n")
    with pytest.raises(DataError, match=r"line 2 of .*classes.txt is empty"):
        classes()


@pytest.mark.timeout(20)
def test_24_aliases_that_unfold_without_end(tmp_path):
    photo(tmp_path / "images/a.jpg", tmp_path / "labels/a.txt", CAT)
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
    for key in ("names", "path", "train"):
        names = "" if key == "names" else "names: [cat]\n"
        (tmp_path / "data.yaml").write_text(f"a0: &a0 [x]\n{levels}{names}{key}: *a9\n")
        if key == "path":
            assert find_boxes((str(tmp_path),)).training is not None
            continue
        with pytest.raises(DataError, match="has no"):
            find_boxes((str(tmp_path),))


def test_labels_without_the_names_of_classes(tmp_path):
    """A part of a data set, as to pre-train on: the list stands above it."""
    photo(tmp_path / "images/a.jpg", tmp_path / "labels/a.txt", CAT)
    assert not has_boxes(str(tmp_path))


def test_xml_of_others_beside_them(tmp_path):
    photo(tmp_path / "a.jpg", tmp_path / "a.txt", CAT)
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / ".idea").mkdir()
    (tmp_path / ".idea/workspace.xml").write_text('<?xml version="1.0"?><project version="4"/>')
    parts = find_boxes((str(tmp_path),))
    assert parts.training is not None
    assert boxes_of(parts.training, 0) == [BOX_OF_CAT]
