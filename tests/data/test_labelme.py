"""labelme's files of shapes, as label maps and as objects."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.makers import all_pixels, png_header
from unmask.config.annotations import MapOptions
from unmask.data.detections import find_boxes, find_detections, has_boxes
from unmask.data.label_maps import find_label_maps
from unmask.data.maps import pixel_counts
from unmask.errors import DataError

HEIGHT, WIDTH = 6, 8


def photo(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (9, 8, 7)).save(place)


def printed(split) -> str:
    return "\n".join([*map(str, split.findings), *split.notes])


def labelme(file: Path, *shapes, image=None) -> None:
    """As labelme writes it."""
    image = image or f"{file.stem}.jpg"
    photo(file.parent / image)
    shapes = [
        {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}
        for label, kind, points, more in shapes
    ]
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None}
    file.write_text(json.dumps(content | {"imageHeight": HEIGHT, "imageWidth": WIDTH}, indent=2))


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def broken_png() -> bytes:
    """Behind its header and some pixels stands no chunk."""
    return png_header(WIDTH, HEIGHT) + b"\0\0\0\4\0\0\0\0abcdefgh"


def test_labelme(tmp_path):
    mask = io.BytesIO()
    Image.fromarray(np.array([[0, 255], [255, 255]], dtype=np.uint8)).save(mask, "PNG")
    stored = {"mask": base64.b64encode(mask.getvalue()).decode()}
    labelme(
        tmp_path / "train" / "0.json",
        ("mat", "polygon", [[0, 0], [6, 0], [6, 4], [0, 4]], {}),
        ("cat", "rectangle", [[3, 3], [1, 1]], {}),
        ("mat", "mask", [[6, 4], [7, 5]], stored),
        ("__ignore__", "rectangle", [[0, 5], [8, 5]], {}),
        ("cat", "linestrip", [[0, 0], [3, 3], [4, 4]], {}),
    )
    labelme(tmp_path / "val" / "1.json", ("dot", "circle", [[4, 3], [4, 5]], {}))
    split = find_label_maps((str(tmp_path),))
    assert split.training.classes == ("background", "cat", "dot", "mat")
    wanted = np.zeros((HEIGHT, WIDTH))
    wanted[:5, :7] = 3  # outlines are part of a shape
    wanted[1:4, 1:4] = 1
    wanted[4, 7] = 3
    wanted[5] = 255
    assert np.array_equal(split.training.labels(0), wanted)
    circle = split.validation.labels(0)
    assert (circle == 2).sum() == 21
    assert circle[3, 2:7].tolist() == [2] * 5
    assert "1 points and lines, which have no area: left out" in printed(split)
    assert pixel_counts(split.training).sum() == HEIGHT * WIDTH
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nmat\ncat\ndot\n")
    listed = find_label_maps((str(tmp_path),))
    assert listed.training.classes == ("_background_", "mat", "cat", "dot")
    assert listed.training.labels(0)[0, 0] == 1
    (tmp_path / "labels.txt").write_text("mat\ndot\n")
    with pytest.raises(DataError, match=r"0\.json has the label 'cat', which is not in the list"):
        find_label_maps((str(tmp_path),))


def rewritten(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    "written", ["C:\\work\\0.jpg", "..\\photos\\0.jpg", "/home/someone/0.jpg", "renamed.png", None]
)
def test_an_image_is_found_by_its_name_or_that_of_the_file(tmp_path, written):
    """Files move between machines, and images are renamed with their files."""
    for i in range(2):
        labelme(tmp_path / f"{i}.json", ("a", "rectangle", [[0, 0], [3, 3]], {}))
    rewritten(tmp_path / "0.json", imagePath=written, imageHeight=None)
    split = find_label_maps((str(tmp_path),), val_share=0.5)
    paths = [*split.training.images.paths, *split.validation.images.paths]
    assert sorted(paths) == [str(tmp_path / f"{i}.jpg") for i in range(2)]
    assert all(part.labels(0).shape == (HEIGHT, WIDTH) for part in split[:2])
    (tmp_path / "0.jpg").unlink()
    rewritten(tmp_path / "0.json", imageData="/9j/")
    with pytest.raises(
        DataError, match=r"is not there: write out the copy in the file with labelme_json"
    ):
        find_label_maps((str(tmp_path),))


def test_shapes_that_reach_beyond_the_image_are_cut(tmp_path):
    stored = io.BytesIO()
    Image.fromarray(np.full((4, 4), 255, dtype=np.uint8)).save(stored, "PNG")
    mask = {"mask": base64.b64encode(stored.getvalue()).decode()}
    for i in range(2):
        labelme(
            tmp_path / f"{i}.json",
            ("a", "mask", [[-2, -3], [1, 0]], mask),
            ("b", "mask", [[6, 5], [9, 8]], mask),
            ("c", "circle", [[8, 0], [9, 0]], {}),
            ("d", "rectangle", [[-5, 3], [1, 99]], {}),
        )
    maps = find_label_maps((str(tmp_path),), val_share=0.5).training
    wanted = np.zeros((HEIGHT, WIDTH), dtype=int)
    wanted[0, :2] = 1
    wanted[5, 6:] = 2
    wanted[0, 7] = 3
    wanted[3:, :2] = 4
    assert maps.labels(0).tolist() == wanted.tolist()


def test_labelmes_shapes_as_objects(tmp_path):
    """Shapes of one group are one object, rectangles are boxes, and what is ignored is of any class."""
    stored = io.BytesIO()
    Image.fromarray(np.array([[0, 255], [255, 255]], dtype=np.uint8)).save(stored, "PNG")
    mask = {"mask": base64.b64encode(stored.getvalue()).decode()}
    labelme(
        tmp_path / "train" / "0.json",
        ("cat", "rectangle", [[5, 4], [1.5, 1]], {}),
        ("dog", "polygon", [[0, 0], [2, 0], [2, 2], [0, 2]], {"group_id": 1}),
        ("cat", "circle", [[5, 3], [5, 4.5]], {"group_id": 1}),
        ("dog", "polygon", [[6, 4], [8, 4], [8, 6], [6, 6]], {"group_id": 1}),
        ("dog", "mask", [[6, 0], [7, 1]], mask),
        ("cat", "point", [[1, 1]], {}),
        ("_background_", "polygon", [[0, 0], [2, 0], [2, 2]], {}),
        ("__ignore__", "rectangle", [[0, 4], [3, 6]], {}),
        ("dog", "polygon", [[0, 0], [1, 1]], {}),
    )
    labelme(tmp_path / "train" / "1.json")
    labelme(tmp_path / "val" / "2.json", ("dog", "mask", [[6, 4]], mask))
    split = find_detections((str(tmp_path),))
    assert split.training.classes == ("cat", "dog")
    objects = split.training.instances[0]
    assert objects.crowd.tolist() == [False] * 4 + [True] * 2
    assert objects.labels.tolist() == [0, 1, 0, 1, 0, 1]
    boxes = [[1.5, 1, 5, 4], [0, 0, 8, 6], [3.5, 1.5, 6.5, 4.5], [6, 0, 8, 2], *[[0, 4, 3, 6]] * 2]
    assert objects.boxes.tolist() == boxes
    pixels = all_pixels(objects, (HEIGHT, WIDTH))
    assert pixels.sum(axis=(1, 2)).tolist()[:2] == [0, 8], "a rectangle is a box without a mask"
    assert np.argwhere(pixels[3]).tolist() == [[0, 7], [1, 6], [1, 7]]
    report = printed(split)
    for words in (
        "1 points and lines, which have no area: left out",
        "1 shapes that cannot be drawn: left out",
        "1 regions of __ignore__: neither learnt nor counted as background",
        "1 images without objects: kept, as background",
        "4 objects for training and 1 object for validation",
    ):
        assert words in report, words
    assert "crowd" not in report
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\nrat\ncat\n")
    assert find_boxes((str(tmp_path),)).training.classes == ("dog", "rat", "cat")
    (tmp_path / "labels.txt").write_text("dog\n")
    with pytest.raises(
        DataError, match=r"0\.json has the label '_background_', which is not in the list"
    ):
        find_boxes((str(tmp_path),))


def test_flags_alone_are_no_shapes(tmp_path):
    """labelme's files that classify whole images."""
    labelme(tmp_path / "0.json")
    rewritten(tmp_path / "0.json", flags={"cat": True})
    with pytest.raises(DataError, match="has no boxes: give a folder with COCO's or labelme's"):
        find_boxes((str(tmp_path),))
    with pytest.raises(DataError, match="has no label maps"):
        find_label_maps((str(tmp_path),))


EXAMPLES = Path("/usr/share/doc/labelme-examples/examples")
"""Of Debian's package labelme-examples: photographs under the GPL, so they are used and not shipped."""


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="Debian's package labelme-examples is not installed")
def test_labelmes_own_examples():
    """The maps are those that labelme itself draws of them."""
    folder = EXAMPLES / "semantic_segmentation"
    options = MapOptions(classes=str(folder / "labels.txt"))
    drawn = find_label_maps((str(folder / "data_annotated"),), options=options)
    theirs = find_label_maps((str(folder / "data_dataset_voc"),))
    assert drawn.training.classes == theirs.training.classes
    for part, own in zip(drawn[:2], theirs[:2], strict=True):
        for i in range(len(part)):
            same = part.labels(i) == own.labels(i)
            assert same.mean() > 0.9999


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="Debian's package labelme-examples is not installed")
def test_objects_of_labelmes_own_examples():
    """The boxes that labelme's converters write of them, and the masks to the pixel."""
    drawn = find_boxes((str(EXAMPLES / "bbox_detection" / "data_annotated"),)).training
    theirs = find_boxes((str(EXAMPLES / "bbox_detection" / "data_dataset_voc"),)).training
    assert drawn.instances.boxes.tolist() == theirs.instances.boxes.tolist()
    folder = EXAMPLES / "instance_segmentation"
    drawn = find_boxes((str(folder / "data_annotated"),)).training
    theirs = find_boxes((str(folder / "data_dataset_coco"),)).training
    for i, size in enumerate(map(tuple, drawn.sizes.tolist())):
        ours, own = drawn.instances[i], theirs.instances[i]
        pixels = {mask.tobytes() for mask in all_pixels(ours, size)[~ours.crowd]}
        assert pixels == {mask.tobytes() for mask in all_pixels(own, size)}


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (("a", "polygon", [[0, 0], [1, 1]], {}), r"1\.json has a shape of the type 'polygon' with 2"),
        (("a", "mask", [[0, 0], [1, 1]], {"mask": "!"}), r"1\.json has a shape that cannot be drawn"),
        (
            ("a", "mask", [[0, 0], [1, 1]], {"mask": base64_of(png_header(60_000, 60_000))}),
            r"1\.json has .* \(its mask has 60000 x 60000 pixels and its image 8 x 6\)",
        ),
        (
            ("a", "mask", [[0, 0], [1, 1]], {"mask": base64_of(broken_png())}),
            r"1\.json has a shape that cannot be drawn \(broken PNG",
        ),
    ],
)
def test_bad_shapes_are_named(tmp_path, shape, says):
    for i in range(2):
        labelme(tmp_path / f"{i}.json", ("a", "rectangle", [[0, 0], [3, 3]], {}))
    labelme(tmp_path / "1.json", shape)
    split = find_label_maps((str(tmp_path),))
    with pytest.raises(DataError, match=says):
        [part.labels(0) for part in split[:2]]
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"the image .*1\.jpg that .*1\.json is about is not there"):
        find_label_maps((str(tmp_path),))


def test_json_that_cannot_be_read_is_left_out(tmp_path):
    """Links to themselves and to nothing: photographs beside them are no annotations."""
    photo(tmp_path / "0.jpg")
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "gone.json").symlink_to("nowhere")
    assert not has_boxes(str(tmp_path))
    for name in ("0", "1", "2", "3"):
        labelme(tmp_path / f"{name}.json", ("cat", "polygon", [[0, 0], [6, 0], [6, 4]], {}))
    for split in (find_detections((str(tmp_path),)), find_label_maps((str(tmp_path),))):
        assert "2 .json files that cannot be read: left out" in printed(split)
        assert "gone.json" in printed(split)


def test_values_that_no_image_has(tmp_path):
    """Corners beyond all numbers are left out, or a sentence; the image has its own size."""
    for i in range(4):
        labelme(tmp_path / f"{i}.json", ("cat", "polygon", [[0, 0], [6, 0], [6, 4]], {}))
    rewritten(tmp_path / "1.json", imageHeight=3_000_000_000)
    split = find_label_maps((str(tmp_path),))
    assert {split.training.labels(i).shape for i in range(3)} == {(HEIGHT, WIDTH)}
    for far in (10**400, 1e300, 1e9):
        labelme(tmp_path / "0.json", ("cat", "polygon", [[0, 0], [far, 0], [6, 4]], {}))
        assert "1 shapes that cannot be drawn: left out" in printed(find_detections((str(tmp_path),)))
        parts = find_label_maps((str(tmp_path),))[:2]
        with pytest.raises(DataError, match=r"0\.json has a shape that cannot be drawn"):
            [part.labels(i) for part in parts for i in range(len(part.images))]


@pytest.mark.parametrize("find", [find_label_maps, find_boxes])
def test_sizes_over_the_most_megapixels_are_refused(tmp_path, find):
    labelme(tmp_path / "0.json", ("a", "rectangle", [[0, 0], [3, 3]], {}))
    rewritten(tmp_path / "0.json", imageHeight=60_000, imageWidth=60_000)
    with pytest.raises(DataError, match=r"0\.json has 60000 x 60000 pixels, over --data.max-megapixels"):
        find((str(tmp_path),))
