"""Labels of IDX files, torchvision, Hugging Face and ELPV, read without decoding an image."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from unmask.config.image import PixelFormat
from unmask.data.labels import find_labelled
from unmask.data.sources.find import find_images
from unmask.data.split import take_fraction
from unmask.errors import DataError

GREY, COLOUR = PixelFormat(channels=1), PixelFormat(channels=3)


def write_idx(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "wb") as stream:
        stream.write(header + array.astype(np.uint8).tobytes())


def write_mnist(folder: Path, labels=range(10), *, suffix: str = "", test: bool = True) -> None:
    """Images whose pixels all are the label; twice for training and once for validation."""
    for name, times in (("train", 2), ("t10k", 1))[: 1 + test]:
        values = np.repeat(labels, times)
        pixels = np.broadcast_to(values[:, None, None], (len(values), 4, 4))
        write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", pixels)
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", values)


def test_fashion_mnist(tmp_path):
    write_mnist(tmp_path / "fashion-mnist", suffix=".gz")
    split = find_labelled(("fashion-mnist",), root=str(tmp_path))
    assert split.training.classes[0] == "T-shirt/top"
    assert split.training.classes[-1] == "Ankle boot"
    assert split.training.labels.tolist() == np.repeat(range(10), 2).tolist()
    assert split.validation.labels.tolist() == [*range(10)]
    assert split.validation.images.decode(7, GREY).eq(7).all()
    assert split.validation.images.licence_note == "Fashion-MNIST, MIT"
    library = find_labelled(("torchvision:FashionMNIST",), root=str(_as_torchvision(tmp_path)))
    assert library.training.classes == split.training.classes
    assert library.training.labels.tolist() == split.training.labels.tolist()
    assert library.validation.labels.tolist() == split.validation.labels.tolist()
    with pytest.raises(DataError, match="no class has two images"):  # it is not its own validation
        find_labelled(("torchvision:FashionMNIST:test",), root=str(tmp_path / "library"))


def _as_torchvision(root: Path) -> Path:
    write_mnist(root / "library" / "FashionMNIST" / "raw")
    return root / "library"


def test_idx_folder(tmp_path):
    write_mnist(tmp_path, labels=[3, 11, 5])
    split = find_labelled((str(tmp_path),))
    assert split.training.classes == ("3", "5", "11")
    assert split.training.labels.tolist() == [0, 0, 2, 2, 1, 1]
    assert len(split.validation) == 3
    files = [str(tmp_path / f"{name}-images-idx3-ubyte") for name in ("t10k", "train")]
    turned = find_labelled((files[0],), val=(files[1],))
    assert (len(turned.training), len(turned.validation)) == (3, 6)


def test_idx_without_test_images_is_split(tmp_path):
    write_mnist(tmp_path / "here", test=False)
    write_mnist(tmp_path / "there", test=False, suffix=".gz")
    here, there = (find_labelled((str(tmp_path / place),)) for place in ("here", "there"))
    assert (len(here.training), len(here.validation)) == (10, 10)
    numbers = [[path.split("#")[1] for path in split.validation.images.paths] for split in (here, there)]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (None, "are not beside it: put .*train-labels-idx1-ubyte"),
        ([1, 2, 3], "20 images and .* 3 labels"),
    ],
)
def test_idx_without_labels(tmp_path, labels, says):
    write_mnist(tmp_path, test=False)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    if labels:
        write_idx(tmp_path / "train-labels-idx1-ubyte", np.array(labels))
    with pytest.raises(DataError, match=says):
        find_labelled((str(tmp_path),))


def test_fashion_mnist_has_ten_classes(tmp_path):
    write_mnist(tmp_path / "fashion-mnist", labels=[0, 1, 10])
    with pytest.raises(DataError, match=r"2 of 6 labels .* the first is 10 and there are 10 classes"):
        find_labelled(("fashion-mnist",), root=str(tmp_path))


def photo(file: Path, value: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 5), (value, 2, 3)).save(file)


def empty(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_imagenet(tmp_path):
    """The first of several names; all of them, and a number, where they would be the same."""
    names = {
        "n1": ("tench", "Tinca tinca"),
        "n2": ("crane",),
        "n3": ("maillot",),
        "n4": ("maillot", "tank suit"),
        "n5": ("crane",),
    }
    torch.save((names, []), tmp_path / "meta.bin")
    for wnid in names:
        empty(tmp_path / "train" / wnid / "1.JPEG")
        empty(tmp_path / "val" / wnid / "2.JPEG")
    split = find_labelled(("torchvision:ImageNet",), root=str(tmp_path))
    assert split.training.classes == ("tench", "crane (1)", "maillot", "maillot, tank suit", "crane (4)")
    assert split.validation.labels.tolist() == [*range(5)]
    assert split.validation.images.paths[3].endswith("val/n4/2.JPEG")


def test_inaturalist_in_any_order_of_the_disk(tmp_path, monkeypatch):
    for part, number in (("2021_train", 3), ("2021_valid", 1)):
        for i in range(3):
            for n in range(number):
                empty(tmp_path / part / f"{i:05d}_A_B_C_D_E_F_species{i}" / f"{n}.jpg")
    import os

    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listed(path), reverse=True))
    split = find_labelled(("torchvision:inaturalist",), root=str(tmp_path))
    assert split.training.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(split.training.images.paths) == sorted(split.training.images.paths)
    assert split.training.classes[1] == "00001_A_B_C_D_E_F_species1"
    assert "2021_valid" in split.validation.images.paths[0]
    assert "torchvision:inaturalist:2021_valid is for validation" in split.notes


def test_places365(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.Places365, "_check_integrity", lambda *_: True)
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n/z/zoo 1\n")
    (tmp_path / "places365_train_standard.txt").write_text("/z/zoo/1.jpg 1\n/a/airfield/1.jpg 0\n")
    (tmp_path / "places365_val.txt").write_text("2.jpg 1\n1.jpg 0\n")
    photo(tmp_path / "val_large" / "2.jpg", 200)
    split = find_labelled(("torchvision:Places365",), root=str(tmp_path))
    assert split.training.classes == ("/a/airfield", "/z/zoo")
    assert split.training.labels.tolist() == split.validation.labels.tolist() == [0, 1], "sorted by path"
    assert split.validation.images.decode(1, COLOUR)[0, 0, 0] > 190
    assert find_images(("torchvision:Places365",), root=str(tmp_path)).paths[1].endswith("zoo/1.jpg")


def write_cifar(cls: type, root: Path, key: str, count: int) -> None:
    folder = root / cls.base_folder
    folder.mkdir()
    for files, start in ((cls.train_list, 0), (cls.test_list, 100)):
        for name, _ in files:
            pixels = np.full((count, 3072), start, dtype=np.uint8)
            (folder / name).write_bytes(pickle.dumps({"data": pixels, key: list(range(count))}))
    names = {cls.meta["key"]: [f"thing {i}" for i in range(count)]}
    (folder / cls.meta["filename"]).write_bytes(pickle.dumps(names))


@pytest.mark.parametrize(
    ("name", "key", "files"), [("CIFAR10", "labels", 5), ("CIFAR100", "fine_labels", 1)]
)
def test_cifar(tmp_path, monkeypatch, name, key, files):
    cls = getattr(datasets, name)
    write_cifar(cls, tmp_path, key, count=4)
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)
    split = find_labelled((f"torchvision:{name}",), root=str(tmp_path))
    assert split.training.classes == ("thing 0", "thing 1", "thing 2", "thing 3")
    assert split.training.labels.tolist() == [0, 1, 2, 3] * files
    assert split.validation.labels.tolist() == [0, 1, 2, 3]
    assert split.validation.images.decode(2, COLOUR).eq(100).all()
    named = find_labelled(
        (f"torchvision:{name}:test",), root=str(tmp_path), val=(f"torchvision:{name}:train",)
    )
    assert named.training.images.decode(0, COLOUR).eq(100).all()
    assert named.validation.images.decode(0, COLOUR).eq(0).all()


def test_flowers102(tmp_path, monkeypatch):
    scipy = pytest.importorskip("scipy.io")
    folder = tmp_path / "flowers-102"
    for i in range(1, 7):
        empty(folder / "jpg" / f"image_{i:05d}.jpg")
    scipy.savemat(folder / "imagelabels.mat", {"labels": np.array([1, 2, 102, 1, 2, 3])})
    scipy.savemat(folder / "setid.mat", {"trnid": [3, 1], "valid": [2, 4], "tstid": [5, 6]})
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)
    split = find_labelled(("torchvision:Flowers102",), root=str(tmp_path))
    assert split.training.labels.tolist() == [0, 101]
    assert split.validation.labels.tolist() == [1, 0]
    assert len(set(split.training.classes)) == 102
    assert "torchvision:Flowers102:val is for validation" in split.notes


class Fake:
    """What many of torchvision's data sets have in common."""

    default = "train"
    parts = ("train", "val", "test")

    def __init__(self, root, split=None):
        self.split = split or self.default
        datasets.utils.verify_str_arg(self.split, "split", self.parts)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise AssertionError("an image was decoded")


def fake(monkeypatch, **attributes) -> None:
    default = attributes.get("default", "train")

    class SVHN(Fake):
        def __init__(self, root, split=default):
            super().__init__(root, split)

    for name, value in attributes.items():
        setattr(SVHN, name, value)
    monkeypatch.setattr(datasets, "SVHN", SVHN)


@pytest.mark.parametrize(
    "attributes",
    [
        {"targets": [0, 1, 2, 1]},
        {"targets": torch.tensor([0, 1, 2, 1])},
        {"labels": np.array([0, 1, 2, 1])},
        {"_labels": [0, 1, 2, 1]},
        {"y": [0, 1, 2, 1]},
        {"_samples": [("c", 0), ("b", 1), ("a", 2), ("d", 1)]},
        {"samples": [(torch.zeros(2), label) for label in (0, 1, 2, 1)]},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_labels_wherever_torchvision_keeps_them(monkeypatch, attributes):
    fake(monkeypatch, **attributes)
    split = find_labelled(("torchvision:SVHN",))
    expected = [2, 1, 0, 1] if "_samples" in attributes else [0, 1, 2, 1]
    assert split.training.labels.tolist() == split.validation.labels.tolist() == expected
    assert split.training.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("attributes", "words", "chosen"),
    [
        ({}, "SVHN", "val"),
        ({"parts": ("train", "valid", "test")}, "SVHN", "valid"),
        ({"parts": ("train", "test")}, "SVHN", "test"),
        ({"parts": ("train", "val", "trainval", "test"), "default": "trainval"}, "SVHN", "test"),
        ({"parts": ("train", "val", "trainval", "test"), "default": "trainval"}, "SVHN:train", "val"),
        ({"parts": ("train",)}, "SVHN", None),
        ({"parts": ("train", "extra", "test")}, "SVHN:extra", None),
        ({}, "SVHN:test", None),
    ],
)
def test_the_part_for_validation(monkeypatch, attributes, words, chosen):
    fake(monkeypatch, targets=[0, 1, 0, 1], **attributes)
    split = find_labelled((f"torchvision:{words}",))
    if chosen is None:
        assert (len(split.training), len(split.validation)) == (2, 2)
        assert "held out for validation" in " ".join(split.notes)
    else:
        assert (len(split.training), len(split.validation)) == (4, 4)
        assert f"torchvision:SVHN:{chosen} is for validation" in split.notes


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"targets": ["boxes.txt"] * 4}, "one class for each image"),
        ({"targets": np.zeros((4, 40), int)}, "one class for each image"),
        ({}, "one class for each image"),
        ({"labels": [0, 1, -1, None]}, "2 of 4 labels in torchvision:SVHN are out of range"),
        ({"labels": [0, 1, 2, 3], "classes": ["a", "b"]}, "there are 2 classes"),
    ],
)
def test_torchvision_without_labels(monkeypatch, attributes, says):
    fake(monkeypatch, **attributes)
    with pytest.raises(DataError, match=says):
        find_labelled(("torchvision:SVHN",))


def test_splits_of_torchvision_that_are_none(monkeypatch):
    fake(monkeypatch, targets=[0, 1, 0, 1])
    with pytest.raises(DataError, match=r"Unknown value 'later'.*Valid values are"):
        find_labelled(("torchvision:SVHN:later",))
    with pytest.raises(DataError, match="no split 'later', it has train or test"):
        find_labelled(("torchvision:CIFAR10:later",))
    with pytest.raises(DataError, match="no split 'train', it has no parts"):
        find_labelled(("torchvision:SUN397:train",))


def test_emnist_has_two_kinds_of_parts(tmp_path):
    raw = tmp_path / "EMNIST" / "raw"
    for part, labels in (("train", [1, 2, 3]), ("test", [3, 2])):
        write_idx(raw / f"emnist-letters-{part}-images-idx3-ubyte", np.zeros((len(labels), 28, 28)))
        write_idx(raw / f"emnist-letters-{part}-labels-idx1-ubyte", np.array(labels))
    for split in datasets.EMNIST.splits:
        for part in ("train", "test"):
            for kind in ("images-idx3", "labels-idx1"):
                file = raw / f"emnist-{split}-{part}-{kind}-ubyte"
                file.exists() or file.touch()
    split = find_labelled(("torchvision:EMNIST:letters",), root=str(tmp_path))
    assert [split.training.classes[i] for i in split.training.labels] == ["a", "b", "c"]
    assert [split.validation.classes[i] for i in split.validation.labels] == ["c", "b"]


@pytest.fixture
def hub(tmp_path):
    """Data sets as the library stores them; labels are the red of the first pixel."""
    library = pytest.importorskip("datasets")

    def rows(labels, kind=None, column="label"):
        kind = kind or library.ClassLabel(names=["ant", "bee", "cow"])
        pictures = [Image.new("RGB", (4, 4), (0 if label is None else label, 2, 3)) for label in labels]
        features = library.Features({"image": library.Image(), column: kind})
        return library.Dataset.from_dict({"image": pictures, column: labels}, features=features)

    def store(**parts):
        library.DatasetDict(parts).save_to_disk(tmp_path / "stored")
        return (f"hf:{tmp_path / 'stored'}",)

    store.rows, store.library = rows, library
    return store


def test_hub_parts(hub):
    source = hub(train=hub.rows([2, 0, 1, 1]), validation=hub.rows([1]), test=hub.rows([-1]))
    split = find_labelled(source)
    assert split.training.classes == ("ant", "bee", "cow")
    assert split.training.labels.tolist() == [2, 0, 1, 1]
    assert split.training.images.decode(0, COLOUR)[0, 0, 0] == 2
    assert split.validation.labels.tolist() == [1]
    assert not {*split.training.images.paths} & {*split.validation.images.paths}
    alone = find_labelled((f"{source[0]}:train",))
    assert (len(alone.training), len(alone.validation)) == (3, 1)


def test_a_set_for_validation_may_know_fewer_classes(hub, tmp_path):
    """As a folder or a list; what it names in another order is the same class."""
    fewer = hub.library.ClassLabel(names=["cow", "ant"])
    hub.rows([0, 1, 1], fewer).save_to_disk(tmp_path / "fewer")
    split = find_labelled(hub(train=hub.rows([2, 0, 1])), val=(f"hf:{tmp_path / 'fewer'}",))
    assert split.validation.classes == split.training.classes == ("ant", "bee", "cow")
    assert split.validation.labels.tolist() == [2, 0, 0]
    assert "1 of 3 classes have no images for validation: 'bee'" in split.notes


def test_hub_sets_of_one_name_in_two_folders(hub, tmp_path):
    """They are different images; where a set lies does not change what is chosen of it."""
    rows, sources = hub.rows([0, 1, 2] * 8), list[str]()
    for year in ("2023", "2024"):
        place = tmp_path / "hub" / year / "wafers"
        rows.save_to_disk(place)
        sources.append(f"hf:{place}")
    split = find_labelled((sources[0],), val=(sources[1],))
    assert (len(split.training), len(split.validation)) == (24, 24)
    assert split.training.images.name == "wafers"
    with pytest.raises(DataError, match="24 images are for training and for validation"):
        find_labelled((sources[0],), val=(f"{sources[0]}/",))
    chosen = take_fraction(split.training, fraction=0.3, per_class=None, seed=0)
    assert list(chosen.images.names()) == [f"wafers#{i}" for i in (7, 11, 12, 16, 20, 21)]
    assert list(find_images((sources[1],)).names()) == [f"wafers#{i}" for i in range(24)]


def test_hub_labels_that_are_none(hub):
    source = hub(train=hub.rows([2, 0, 1, 1]), test=hub.rows([-1, None]))
    with pytest.raises(
        DataError, match=r"2 of 2 labels in hf:.*:test are out of range, the first is -1"
    ):
        find_labelled(source)


def test_hub_columns(hub):
    source = hub(train=hub.rows([2, 0] * 4, column="animal"))
    split = find_labelled(source)
    assert "1 of 3 classes have no images for training: 'bee'" in split.notes
    assert any("from the column animal" in note for note in split.notes)
    numbers = hub.library.Value("int64")
    split = find_labelled(hub(train=hub.rows([11, 9] * 4, numbers)))
    assert split.training.classes == ("9", "11")
    with pytest.raises(DataError, match=r"no column 'other' among image, label.*--data.label-column"):
        find_labelled(source, label_column="other")
    with pytest.raises(DataError, match=r"1 of 8 images .* have no class in the column label"):
        find_labelled(hub(train=hub.rows([11, 9] * 3 + [9, None], numbers)))


def test_elpv():
    pytest.importorskip("elpv_dataset")
    split, plain = find_labelled(("elpv",)), find_labelled(("elpv:plain",))
    everything = {*split.training.images.paths, *split.validation.images.paths}
    assert everything == {*find_images(("elpv",)).paths}
    assert (len(split.training), len(split.validation)) == (1967, 657)
    assert list(split.training.images.paths) == list(plain.training.images.paths)
    assert split.training.classes == ("functional", "defective")
    defective, weights = split.training.labels == 1, split.training.weights
    assert np.unique(weights[defective]) == pytest.approx([1 / 3, 2 / 3, 1])
    assert (weights[~defective] == 1).all()
    assert plain.training.weights is None
    assert (plain.training.labels[defective] == (weights[defective] > 0.5)).all()
    assert defective.mean() == pytest.approx(split.validation.labels.mean(), abs=0.002)
    assert "validation images per class: 'functional' 377, 'defective' 280" in split.notes
    assert "no commercial use" in split.training.images.licence_note
