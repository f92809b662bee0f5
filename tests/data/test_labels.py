"""Labels of folders and lists; splits and subsets that depend on the images' names alone."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.config.image import PixelFormat
from unmask.data.images import Images
from unmask.data.labels import find_every, find_labelled
from unmask.data.paths import PathList
from unmask.data.records import Labelled
from unmask.data.sources.find import find_images
from unmask.data.split import class_weights, take_fraction
from unmask.errors import DataError

ODD_NAMES = (
    "<script>alert(1)",
    "two\nlines",
    os.fsdecode(b"\xff\xfe"),
    "a b",
    "caf\u00e9\u2028",
)

FANCY = f'"{ODD_NAMES[-1]}"'


def touch(folder: Path, *names: str) -> str:
    """Files without content: labels are read without opening images."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


def classes_of_files(labelled: Labelled, root: Path) -> dict[str, str]:
    """From each path within `root` to the name of its class."""
    names = (os.path.relpath(path, root) for path in labelled.images.paths)
    return dict(zip(names, (labelled.classes[i] for i in labelled.labels), strict=True))


def printed(split) -> str:
    return "; ".join(split.notes)


def test_folders_of_classes(tmp_path):
    files = [f"{name}/{deep}{i}.png" for name in ODD_NAMES for deep in ("", "x/y/") for i in range(10)]
    source = touch(tmp_path, *files, "loose.png", "empty/notes.txt", ".hidden/1.png")
    split = find_labelled((source,), val_share=0.2)
    training, validation = (classes_of_files(part, tmp_path) for part in split[:2])
    assert training | validation == {file: file.split("/")[0] for file in files}
    assert not set(training) & set(validation)
    assert split.training.classes == split.validation.classes == tuple(sorted(ODD_NAMES))
    assert split.training.labels.dtype == np.int64
    assert np.bincount(split.validation.labels).tolist() == [4] * 5
    assert "1 images of" in printed(split)
    assert "'empty'" in printed(split)
    assert "20% of the images of each class are held out" in printed(split)
    assert split.counts == "80 images for training and 20 images for validation"
    assert "\n" not in printed(split)


def test_folders_of_parts(tmp_path):
    source = touch(
        tmp_path, "Train/b/1.png", "Train/a/2.png", "val/a/3.png", "val/b/c/1.png", "test/b/9.png"
    )
    touch(tmp_path, "other/z/1.png")
    split = find_labelled((source,))
    assert classes_of_files(split.training, tmp_path) == {"Train/a/2.png": "a", "Train/b/1.png": "b"}
    assert classes_of_files(split.validation, tmp_path) == {"val/a/3.png": "a", "val/b/c/1.png": "b"}
    assert "1 images of the test part are left out" in printed(split)
    assert "'other'" in printed(split)

    explicit = find_labelled((source,), val=(str(tmp_path / "test"), str(tmp_path / "val")))
    assert set(classes_of_files(explicit.validation, tmp_path)) == {
        *("test/b/9.png", "val/a/3.png", "val/b/c/1.png")
    }
    assert classes_of_files(explicit.training, tmp_path) == classes_of_files(split.training, tmp_path)
    assert "2 images that the data keep for validation are left out" in printed(explicit)


def test_validation_may_lack_a_class(tmp_path):
    """As in a list; a class that only validation has is refused."""
    files = [f"train/{c}/{i}.png" for c in "abc" for i in range(2)]
    split = find_labelled((touch(tmp_path, *files, "val/a/1.png", "val/c/1.png"),))
    assert split.validation.classes == split.training.classes == ("a", "b", "c")
    assert split.validation.labels.tolist() == [0, 2]
    assert "1 of 3 classes have no images for validation: 'b'" in printed(split)


def test_test_images_validate_where_nothing_else_does(tmp_path):
    split = find_labelled(
        (touch(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/1.png"),)
    )
    assert len(split.validation) == 2
    assert "test/" in split.validation.images.paths[0]
    assert "2 images of the test part are for validation" in printed(split)


def test_a_share_in_place_of_the_datas_own_part(tmp_path):
    files = [f"{part}/{c}/{i}.png" for part in ("train", "val") for c in "ab" for i in range(10)]
    split = find_labelled((touch(tmp_path, *files),), val_share=0.2)
    assert (len(split.training), len(split.validation)) == (16, 4)
    assert not any("/val/" in path for part in split[:2] for path in part.images.paths)
    assert "20 images that the data keep for validation are left out" in printed(split)


def test_every_image_and_a_single_class(tmp_path):
    source = touch(tmp_path, "train/a/1.png", "val/a/2.png", "val/a/3.png")
    parts, _ = find_every((source,), root="", download=False, label_column="label")
    assert [len(part) for part in parts] == [1, 2]
    assert all(part.classes == ("a",) for part in parts)


def test_test_images_without_classes_are_left_out(tmp_path):
    files = [f"train/{c}/{i}.png" for c in "ab" for i in range(4)]
    split = find_labelled((touch(tmp_path, *files, "test/1.png", "test/2.png"),))
    assert (len(split.training), len(split.validation)) == (6, 2)
    assert "2 images of" in printed(split)


def test_a_class_may_be_called_train(tmp_path):
    files = [f"{c}/{i}.png" for c in ("train", "bus", "val-d-isere") for i in range(4)]
    assert find_labelled((touch(tmp_path, *files),)).training.classes == ("bus", "train", "val-d-isere")


@pytest.mark.parametrize("deeper", ["", "train/"])
def test_the_split_depends_on_names_alone(tmp_path, deeper):
    files = [f"{c}/{i}.png" for c in "abc" for i in range(40)]

    def held_out(folder, files):
        random.Random(len(files)).shuffle(files)
        split = find_labelled((touch(tmp_path / folder, *(f"{deeper}{file}" for file in files)),))
        return set(classes_of_files(split.validation, tmp_path / folder / deeper))

    before = held_out("here", files)
    assert len(before) == 30
    assert held_out("there/deeper", files) == before
    after = held_out("here", [*files, "a/new.png"])
    assert len(before ^ after) <= 2
    assert {file for file in after if file[0] != "a"} == {file for file in before if file[0] != "a"}


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    return str(folder / name)


def test_lists_have_labels(tmp_path):
    odd = [f'"{name}"' for name in ODD_NAMES]
    rows = [f"pictures/{i}.png,{name}" for name in odd for i in range(2)]
    rows = [row.replace("pictures/", f"pictures/{n}-") for n, row in enumerate(rows)]
    split = find_labelled(
        (write(tmp_path, "a.csv", "file,label\r\n" + "\r\n".join(rows)),), val_share=0.5
    )
    assert split.training.classes == tuple(sorted(ODD_NAMES))
    both = classes_of_files(split.training, tmp_path) | classes_of_files(split.validation, tmp_path)
    assert both["pictures/3-1.png"] == "two\nlines"
    assert both["pictures/9-1.png"] == "caf\u00e9\u2028"


def test_json_holds_anything(tmp_path):
    rows = [f'{{"path": "{i}.png", "label": {("true", FANCY)[i % 2]}}}' for i in range(4)]
    split = find_labelled((write(tmp_path, "a.jsonl", "\r\n".join(rows)),), val_share=0.5)
    assert split.training.classes == ("caf\u00e9\u2028", "true")


def test_numbers_are_ordered_by_value(tmp_path):
    text = "".join(f'{{"path": "{i}.png", "kind": {i // 4 - 1}}}\n' for i in range(48))
    split = find_labelled((write(tmp_path, "a.jsonl", text),), label_column="kind")
    assert split.training.classes == tuple(map(str, range(-1, 11)))
    assert split.validation.labels.tolist() == list(range(12))


def test_a_column_splits(tmp_path):
    text = "path\tlabel\tsplit\n1.png\tb\ttrain\n2.png\ta\tTraining\n3.png\tb\tval\n4.png\ta\ttest\n"
    split = find_labelled((write(tmp_path, "a.tsv", text),))
    assert classes_of_files(split.training, tmp_path) == {"1.png": "b", "2.png": "a"}
    assert classes_of_files(split.validation, tmp_path) == {"3.png": "b"}
    assert "1 of 2 classes have no images for validation: 'a'" in printed(split)
    moved = text.replace("val", "test")
    assert len(find_labelled((write(tmp_path, "a.tsv", moved),)).validation) == 2


def test_new_rows_hardly_change_the_split(tmp_path):
    rows = [f"img/{i}.png,{i % 2}" for i in range(80)]

    def held_out(rows):
        source = write(tmp_path, "a.csv", "\n".join(["path,label", *rows]))
        return set(classes_of_files(find_labelled((source,)).validation, tmp_path))

    before = held_out(rows)
    assert held_out(rows[::-1]) == before
    assert len(before ^ held_out([*rows, "../elsewhere/new.png,0"])) <= 2
    assert held_out([str(tmp_path / row) for row in rows]) == before


def test_folders_and_lists_go_together(tmp_path):
    folder = touch(tmp_path / "folder", *(f"{c}/{i}.png" for c in "ab" for i in range(4)))
    listed = write(tmp_path, "a.csv", "path,label\n" + "".join(f"{i}.png,c\n" for i in range(4)))
    split = find_labelled((folder, listed))
    assert split.training.classes == ("a", "b", "c")
    assert split.training.images.name == "folder-a"
    assert len(split.validation) == 3


def test_parts_of_several_sources_go_together(tmp_path):
    """A test part of one does not validate if another has a validation part."""
    folder = touch(tmp_path / "folder", *(f"{p}/{c}/1.png" for p in ("train", "val") for c in "ab"))
    rows = "path,label,split\n" + "".join(f"{i}.png,{c},test\n" for i, c in enumerate("aba"))
    listed = write(tmp_path, "more.csv", rows)
    split = find_labelled((folder, listed))
    assert (len(split.training), len(split.validation)) == (2, 2)
    assert "3 images of the test part are left out" in printed(split)
    other = write(tmp_path, "other.csv", "path,label\n1.png,a\n")
    with pytest.raises(DataError, match=r"1\.png stands twice, as 'a' and 'b'"):
        find_labelled((folder, other, listed))
    with pytest.raises(DataError, match=r"1\.png stands twice, as 'train' and 'val'"):
        find_labelled((folder, str(tmp_path / "folder" / "val")))


TABLE = (("Path", " Label ", "Split"), ("1.png", "caf\u00e9", "train"), (" 2.png ", "dog ", "Train"),
         ("3.png", " dog", "val"), ("4.png", "caf\u00e9", "val"))  # fmt: skip


def table(delimiter: str, end: str = "\r\n", quoted: bool = False) -> str:
    """The table above with a space or two too many, as people type them."""
    cells = [[f'"{cell}"' if quoted else cell for cell in row] for row in TABLE]
    return "".join(delimiter.join(row) + end for row in cells)


SPREADSHEETS = {
    "excel.csv": table(";").encode("utf-8-sig"),
    "excel-that-says-so.csv": ("sep=|\r\n" + table("|")).encode("utf-8-sig"),
    "excel unicode text.csv": table("\t").encode("utf-16"),
    "excel unicode text.tsv": table("\t").encode("utf-16-le").join([b"\xff\xfe", b""]),
    "excel unicode text.txt": table("\t").encode("utf-16"),
    "big-endian.csv": b"\xfe\xff" + table(";").encode("utf-16-be"),
    "libreoffice.csv": table(",", "\n", quoted=True).encode(),
    "libreoffice-tab.csv": table("\t", "\n").encode(),
    "old-mac.csv": table(";", "\r").encode(),
    "pandas.csv": "".join(
        f"{i - 1 if i else ''},{line}\n" for i, line in enumerate(table(",", "\n").splitlines())
    ).encode(),
    "empty-cells.csv": table(";", ";;\r\n").encode() + b";;;;\r\n ;;;;\r\n",
}


@pytest.mark.parametrize("name", SPREADSHEETS)
def test_lists_as_spreadsheets_write_them(tmp_path, name):
    (tmp_path / name).write_bytes(SPREADSHEETS[name])
    split = find_labelled((str(tmp_path / name),))
    assert classes_of_files(split.training, tmp_path) == {"1.png": "caf\u00e9", "2.png": "dog"}
    assert classes_of_files(split.validation, tmp_path) == {"3.png": "dog", "4.png": "caf\u00e9"}
    assert f"{name} that differ only in spaces around them are one class: 'dog'" in printed(split)
    images = find_images((str(tmp_path / name),))
    assert [os.path.relpath(path, tmp_path) for path in images.paths] == [
        f"{i}.png" for i in (1, 2, 3, 4)
    ]


def test_a_files_own_spaces_stay(tmp_path):
    touch(tmp_path, "1.png ", "2.png")
    listed = write(tmp_path, "a.csv", "path,label\n1.png ,a\n2.png ,b\n")
    assert [os.path.basename(path) for path in find_images((listed,)).paths] == ["1.png ", "2.png"]


def test_utf_16_that_is_cut_short(tmp_path):
    (tmp_path / "a.csv").write_bytes("path,label\n1.png,a\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match="not whole UTF-16"):
        find_labelled((str(tmp_path / "a.csv"),))


BAD_LISTS = {
    "no column 'label' among path, kind": "path,kind\n1.png,a\n",
    "'2.png' in .* has no class in the column label but ' '": "path,label\n1.png,a\n2.png, \n",
    "one class, 'a'": "path,label\n1.png,a\n2.png,a\n",
    "no rows": "path,label\n",
    "a row without a path": "path,label\n,a\n",
    "row 2, has not as many": "path,label\n1.png,a,more\n",
    "no column of paths": "label\na\n",
    "1.png stands twice, as 'a' and 'b'": "path,label\n1.png,a\n1.png,b\n",
    "1.png stands twice, as 'train' and 'val'": "path,label,split\n1.png,a,train\n1.png,a,val\n",
    "the split 'later'": "path,label,split\n1.png,a,later\n",
    "no part for training": "path,label,split\n1.png,a,val\n",
    "no class has two images": "path,label\n1.png,a\n2.png,b\n",
    "only validation has 'c'": "path,label,split\n1.png,a,train\n2.png,b,train\n3.png,c,val\n",
    "close its quotes": 'path,label\n1.png,"' + "x" * 200_000,
}


@pytest.mark.parametrize("says", BAD_LISTS)
def test_lists_without_labels(tmp_path, says):
    with pytest.raises(DataError, match=says):
        find_labelled((write(tmp_path, "a.csv", BAD_LISTS[says]),))


@pytest.mark.parametrize("value", ["null", "[1]", "{}", "NaN", '""'])
def test_labels_that_are_none(tmp_path, value):
    text = f'{{"path": "1.png", "label": 1}}\n{{"path": "2.png", "label": {value}}}\n'
    with pytest.raises(DataError, match=r"'2\.png'.*has no class"):
        find_labelled((write(tmp_path, "a.jsonl", text),))


BAD_FOLDERS = {
    "no folder for each class": ["1.png", "2.png"],
    "no images in": ["a/notes.txt"],
    "one class, 'a'": ["a/1.png", "a/2.png"],
    "only validation has 'c'": [*("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png")],
}


@pytest.mark.parametrize("says", BAD_FOLDERS)
def test_folders_without_classes(tmp_path, says):
    with pytest.raises(DataError, match=says):
        find_labelled((touch(tmp_path, *BAD_FOLDERS[says]),))


def test_other_bad_sources(tmp_path):
    source = touch(tmp_path / "x", *(f"{c}/{i}.png" for c in "ab" for i in range(4)))
    for wrong, says in (
        ((), "no images were named"),
        (("nowhere",), "no folder or file nowhere"),
        ((f"{source}/a/1.png",), "has no labels"),
        ((write(tmp_path, "a.txt", "x/a/1.png"),), "has no labels"),
        ((source, "elpv"), "give it alone"),
    ):
        with pytest.raises(DataError, match=says):
            find_labelled(wrong)
    with pytest.raises(DataError, match=r"8 images are for training and for validation"):
        find_labelled((source,), val=(os.path.relpath(source),))
    split = find_labelled((source,), val=(touch(tmp_path / "y", "a/1.png"),))
    assert "1 of 2 classes have no images for validation: 'b'" in printed(split)
    with pytest.raises(ValueError, match="share between 0 and 1"):
        find_labelled((source,), val_share=1.0)


def many(counts, weights=False) -> Labelled:
    labels = np.repeat(np.arange(len(counts)), counts)
    paths = PathList(f"all/{label}/{i}.png" for i, label in enumerate(labels))
    each = np.arange(len(labels), dtype=np.float32) if weights else None
    return Labelled(Images("many", paths), labels, tuple(map(str, range(len(counts)))), each)


def test_smaller_choices_of_labels_are_part_of_larger_ones():
    labelled = many([1000, 300, 3], weights=True)
    chosen = {
        f: take_fraction(labelled, fraction=f, per_class=None, seed=3) for f in (0.01, 0.1, 0.5, 1.0)
    }
    few = take_fraction(labelled, fraction=None, per_class=5, seed=3)
    assert np.bincount(chosen[0.01].labels).tolist() == [10, 3, 1]
    assert np.bincount(chosen[0.1].labels).tolist() == [100, 30, 1]
    assert np.bincount(few.labels).tolist() == [5, 5, 3]
    paths = [set(part.images.paths) for part in chosen.values()]
    assert paths[0] < paths[1] < paths[2] < paths[3] == set(labelled.images.paths)
    for part in (*chosen.values(), few):
        numbers = [int(path.split("/")[2][:-4]) for path in part.images.paths]
        assert part.labels.tolist() == labelled.labels[numbers].tolist()
        assert part.weights.tolist() == numbers, "weights follow along, in the old order"
    other = take_fraction(labelled, fraction=0.1, per_class=None, seed=4)
    assert len(set(other.images.paths) & paths[1]) < 40
    assert take_fraction(labelled, fraction=None, per_class=None, seed=3) is labelled


def test_chosen_labels_do_not_depend_on_order_or_place():
    labelled = many([50, 50])
    moved = Labelled(
        Images("moved", PathList(f"/mnt/{path}" for path in list(labelled.images.paths)[::-1])),
        labelled.labels[::-1],
        labelled.classes,
    )
    here, there = (take_fraction(x, fraction=0.2, per_class=None, seed=0) for x in (labelled, moved))
    assert {f"/mnt/{path}" for path in here.images.paths} == set(there.images.paths)


@pytest.mark.parametrize(
    ("fraction", "per_class", "says"),
    [
        (0.5, 3, "exclude each other"),
        (0.0, None, "above 0"),
        (1.5, None, "at most 1"),
        (None, 0, "too few"),
    ],
)
def test_bad_fractions(fraction, per_class, says):
    with pytest.raises(ValueError, match=says):
        take_fraction(many([5, 5]), fraction=fraction, per_class=per_class, seed=0)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(any))
def test_class_weights(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = class_weights(labels, len(counts))
    assert weights.dtype == np.float32
    assert weights[labels].mean() == pytest.approx(1, rel=1e-5)
    sums = weights * counts
    present = sums[np.array(counts) > 0]
    assert present == pytest.approx(np.full(len(present), present[0])), "each class weighs the same"
    assert not weights[np.array(counts) == 0].any()


def test_labelled_images_can_be_trained_on(photos):
    """A labelled split's images are Images like any other: pre-training may leave out validation."""
    folders = {c: photos / c for c in ("near", "deeper")}
    split = find_labelled((str(photos),))
    assert split.training.classes == tuple(sorted(folders))
    training, held_out = split.training.images.split(4)
    assert len(training) == len(split.training) - 4
    assert held_out.decode(0, PixelFormat(channels=3)).shape == (3, 30, 44)
    assert not {*training.paths, *held_out.paths} & {*split.validation.images.paths}
