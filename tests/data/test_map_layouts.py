"""Label maps in the layouts of published data sets and labelling tools."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.cli.main import run
from unmask.config.annotations import MapOptions
from unmask.data.label_maps import find_label_maps
from unmask.data.sources.find import find_images
from unmask.errors import DataError

pytestmark = pytest.mark.usefixtures("blank_charts")

HEIGHT, WIDTH = 24, 32
BOXES = """<annotation><filename>{0}.jpg</filename><size><width>32</width><height>24</height></size>
<object><name>cat</name><bndbox><xmin>9</xmin><ymin>0</ymin><xmax>17</xmax><ymax>24</ymax></bndbox></object>
</annotation>"""


def picture(place: Path, pixels=None) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(place.name)).integers(0, 256, (HEIGHT, WIDTH, 3))
    Image.fromarray((noise if pixels is None else pixels).astype(np.uint8)).save(place)


def stripes(*values) -> np.ndarray:
    """Four vertical stripes."""
    return np.tile(np.repeat(values, WIDTH // len(values)), (HEIGHT, 1))


def printed(split) -> str:
    return "\n".join([*map(str, split.findings), *split.notes])


@pytest.fixture
def voc(tmp_path) -> Path:
    """Boxes of six images, maps of five, of which the lists of segmentation name four."""
    for i in range(6):
        picture(tmp_path / "JPEGImages" / f"{i}.jpg")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{i}.xml").write_text(BOXES.format(i))
        if i < 5:
            picture(tmp_path / "SegmentationClass" / f"{i}.png", stripes(0, 15, 255, 0))
            picture(tmp_path / "SegmentationObject" / f"{i}.png", stripes(0, 1, 255, 2))
    for purpose, training, validation in (("Main", "0123", "45"), ("Segmentation", "013", "4")):
        lists = tmp_path / "ImageSets" / purpose
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("\n".join(training))
        (lists / "val.txt").write_text("\n".join(validation))
    return tmp_path


def test_voc_is_divided_as_its_lists_say(voc):
    split = find_label_maps((str(voc),))
    names = [[Path(path).stem for path in part.images.paths] for part in split[:2]]
    assert names == [["0", "1", "3"], ["4"]]
    assert split.training.classes == ("0", "15")
    assert split.validation.labels(0).tolist() == stripes(0, 1, 255, 0).tolist()
    assert "1 images without a label map: left out" in printed(split)
    assert "1 label maps that ImageSets/Segmentation does not list: left out" in printed(split)


def test_check_finds_boxes_and_maps_beside_each_other(voc, capsys):
    assert run(["check", str(voc), "--data.size", "16", "--out", str(voc / "check")]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "objects 6 in 6 images" in output
    assert "label maps 4, of which 0 are bad" in output
    assert f"next: unmask detect {voc} --init RUN" in output
    assert f"next: unmask segment {voc} --init RUN" in output
    assert "other files 6 .xml" in output, "annotations are not ignored"


def test_masks_as_cvat_exports_them(tmp_path):
    """Colours, which are listed with the classes; a class may have a colon in its name."""
    listed = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad: wet:51,221,255::\n"
    colours = np.array([(0, 0, 0), (51, 221, 255)])
    for i in range(4):
        picture(tmp_path / "JPEGImages" / f"{i}.png")
        picture(tmp_path / "SegmentationClass" / f"{i}.png", colours[stripes(0, 1, 0, 1)])
    (tmp_path / "labelmap.txt").write_text(listed)
    split = find_label_maps((str(tmp_path),))
    assert split.training.classes == ("background", "road: wet")
    assert split.training.palette.tolist() == colours.tolist()
    assert split.training.labels(0).tolist() == stripes(0, 1, 0, 1).tolist()
    for line, says in (("road", "a line that is not name:r,g,b"), ("a:1,2::", "a colour that is none")):
        (tmp_path / "labelmap.txt").write_text(f"{listed}{line}\n")
        with pytest.raises(DataError, match=says):
            find_label_maps((str(tmp_path),))


@pytest.fixture
def cityscapes(tmp_path) -> Path:
    """Two cities to train on and one to validate on; the test part has images alone."""
    for city, part in (("train/bonn", 3), ("train/ulm", 2), ("val/koeln", 2), ("test/berlin", 1)):
        for i in range(part):
            name = f"{city}/{city.rpartition('/')[2]}_{i}"
            picture(tmp_path / "leftImg8bit" / f"{name}_leftImg8bit.png")
            if not city.startswith("test"):
                maps = tmp_path / "gtFine" / f"{name}_gtFine"
                picture(Path(f"{maps}_labelIds.png"), stripes(0, 7, 33, 3))
                for other in ("color", "instanceIds"):
                    picture(Path(f"{maps}_{other}.png"))
                Path(f"{maps}_polygons.json").write_text('{"imgHeight": 24, "objects": []}')
    return tmp_path


def test_masks_as_roboflow_exports_them(tmp_path):
    """Beside their images, with a list of the values in each part."""
    for part, name in (("train", "a"), ("train", "b"), ("valid", "c"), ("test", "d")):
        picture(tmp_path / part / f"{name}.jpg")
        picture(tmp_path / part / f"{name}_mask.png", stripes(0, 2, 1, 0))
        (tmp_path / part / "_classes.csv").write_text(
            "Pixel Value, Class\n0, background\n1, cat\n2, dog\n"
        )
    split = find_label_maps((str(tmp_path),))
    names = [[Path(path).name for path in part.images.paths] for part in split[:2]]
    assert names == [["a.jpg", "b.jpg"], ["c.jpg"]]
    assert split.training.classes == ("background", "cat", "dog")
    assert split.training.labels(0).tolist() == stripes(0, 2, 1, 0).tolist()
    (tmp_path / "train" / "b_mask.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 images have no label map .*add train/b_mask.png there"):
        find_label_maps((str(tmp_path),))


def test_check_lists_the_images_among_label_maps(tmp_path, capsys):
    """Label maps are no images to pre-train on."""
    for i in range(6):
        picture(tmp_path / "set" / f"{i}.jpg")
        picture(tmp_path / "set" / f"{i}_mask.png", stripes(0, 1))
    out = tmp_path / "check"
    assert run(["check", str(tmp_path / "set"), "--data.size", "16", "--out", str(out)]) == 0
    assert f"next: unmask pretrain {out / 'images.jsonl'} " in capsys.readouterr().out
    listed = find_images((str(out / "images.jsonl"),))
    assert [Path(path).name for path in listed.paths] == [f"{i}.jpg" for i in range(6)]


def test_masks_beside_the_images_of_one_folder(tmp_path):
    """Wherever that lies."""
    folder = tmp_path / "val" / "tumours"
    for i in range(4):
        picture(folder / f"{i}.png")
        picture(folder / f"{i}_mask.png", stripes(0, 255, 0, 0))
    split = find_label_maps((str(folder),))
    assert len(split.training.images) + len(split.validation.images) == 4
    assert split.training.classes == ("0", "255")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("value,name\n1,cat\n2,dog\n", [[255, 1, 0, 255]]),  # 0 is no class
        ("name,value\ndog,2\ncat,1\n", [[255, 1, 0, 255]]),
        ("value,name\n0,nothing\n1,cat\n2,dog\n", [[0, 2, 1, 0]]),  # although it looks like ADE20K
    ],
)
def test_the_values_of_listed_classes(tmp_path, rows, expected):
    for part in ("training", "validation"):
        picture(tmp_path / "images" / part / "a.jpg")
        picture(tmp_path / "annotations" / part / "a.png", stripes(0, 2, 1, 0))
    (tmp_path / "classes.csv").write_text(rows)
    split = find_label_maps((str(tmp_path),))
    assert split.training.labels(0)[::HEIGHT, :: WIDTH // 4].tolist() == expected
    assert split.training.classes[-2:] == ("cat", "dog")


def test_listed_values_in_colour(tmp_path):
    colours = {1: (9, 8, 7), 5: (1, 2, 3)}
    for name in "abcd":
        picture(tmp_path / "images" / f"{name}.jpg")
        picture(tmp_path / "masks" / f"{name}.png", np.array([[*colours.values()] * 16] * HEIGHT))
    (tmp_path / "classes.csv").write_text("value,name,r,g,b\n1,cat,9,8,7\n5,dog,1,2,3\n")
    split = find_label_maps((str(tmp_path),))
    assert split.training.labels(0)[0, :4].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("value,name\n1,cat\n3,dog\n", "holds the label 2 and there are 2 classes, from 1 to 3"),
        ("value,name\n1,cat\n1,dog\n", "below 0, or one twice"),
        ("value,name\nx,cat\n1,dog\n", "no integer"),
    ],
)
def test_24_listed_values_that_cannot_be_used(tmp_path, rows, says):
    picture(tmp_path / "images" / "a.jpg")
    picture(tmp_path / "masks" / "a.png", stripes(0, 2, 1, 0))
    picture(tmp_path / "images" / "b.jpg")
    picture(tmp_path / "masks" / "b.png", stripes(0, 2, 1, 0))
    (tmp_path / "classes.csv").write_text(rows)
    with pytest.raises(DataError, match=says):
        find_label_maps((str(tmp_path),)).training.labels(0)


def test_cityscapes_as_it_is_published(cityscapes):
    """The 19 classes that count, by their names; the rest is ignored."""
    split = find_label_maps((str(cityscapes),))
    assert (len(split.training), len(split.validation)) == (5, 2)
    assert len(split.training.classes) == 19
    assert (split.training.classes[0], split.training.classes[-1]) == ("road", "bicycle")
    wanted = stripes(255, 0, 18, 255).tolist()
    assert split.training.labels(0).tolist() == wanted
    assert split.training.palette[0].tolist() == [128, 64, 128]
    assert "1 images without a label map: left out" in printed(split)
    assert "label maps without an image" not in printed(split), "of the other pictures"
    assert "the 19 classes are those of Cityscapes, and other values are ignored" in printed(split)
    for file in sorted(cityscapes.glob("gtFine/*/*/*_labelIds.png")):
        picture(Path(str(file).replace("labelIds", "labelTrainIds")), stripes(255, 0, 18, 255))
    again = find_label_maps((str(cityscapes),))
    assert again.training.classes == split.training.classes
    assert again.training.labels(0).tolist() == wanted
    assert again.training.maps.name(0).endswith("_gtFine_labelTrainIds.png")
    options = MapOptions(label_offset=0, ignore_values=(0,))
    raw = find_label_maps((str(cityscapes),), options=options)
    assert raw.training.classes == ("18", "255"), "what is said goes before what is usual"


def test_cityscapes_names_in_other_folders(tmp_path):
    for i in range(4):
        picture(tmp_path / "images" / f"a_{i}_leftImg8bit.png")
        picture(tmp_path / "masks" / f"a_{i}_gtFine_labelIds.png", stripes(7, 8, 8, 26))
    split = find_label_maps((str(tmp_path),))
    assert split.training.labels(0).tolist() == stripes(0, 1, 1, 13).tolist()
    (tmp_path / "masks" / "a_2_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match="1 of 4 images have no label map"):
        find_label_maps((str(tmp_path),))


def test_black_and_white_masks_with_soft_edges_are_reported(tmp_path):
    """Resizing made them of 0 and 255; a map of many classes with a border of 255 is none of these."""
    soft, classes = stripes(0, 255, 255, 0), stripes(*range(16))
    soft[:, 7:9], soft[:, 23:25] = np.arange(3, 51, 2).reshape(-1, 1), 200
    classes[0] = 255
    for folder, labels in (("soft", soft), ("many", classes + 1)):
        labels[1] = 255
        for i in range(4):
            picture(tmp_path / folder / "images" / f"{i}.png")
            picture(tmp_path / folder / "masks" / f"{i}.png", labels)
    says = "values between black and white on few pixels, as soft edges have"
    assert says in printed(find_label_maps((str(tmp_path / "soft"),)))
    assert says not in printed(find_label_maps((str(tmp_path / "many"),)))
    (tmp_path / "soft" / "classes.txt").write_text("\n".join(map(str, range(256 - 1))))
    assert says not in printed(find_label_maps((str(tmp_path / "soft"),)))


@pytest.mark.parametrize("part", ["", "train"])
def test_maps_in_jpeg_are_refused_by_that_name(tmp_path, part):
    picture(tmp_path / part / "images" / "0.jpg")
    picture(tmp_path / part / "masks" / "0.jpg", stripes(0, 1))
    with pytest.raises(DataError, match=r"masks are JPEG, which changes labels: store PNG"):
        find_label_maps((str(tmp_path),))
