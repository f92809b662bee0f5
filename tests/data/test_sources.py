"""Lists of files, several folders, and the data sets of other libraries."""

import ast
import gc
import io
import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.config.image import PixelFormat
from unmask.data.decode.pictures import BadImage
from unmask.data.labels import find_labelled
from unmask.data.sources import registry
from unmask.data.sources.find import find_images
from unmask.errors import DataError

COLOUR = PixelFormat(channels=3)


def names(images) -> list[str]:
    return [path.rsplit("/", 1)[1] for path in images.paths]


@pytest.fixture
def listed(photos, tmp_path):
    """Two images beside a list, one of them deeper."""
    (tmp_path / "deeper").mkdir()
    for i, place in enumerate(("b.png", "deeper/a, with comma.png")):
        Image.new("RGB", (6, 6), (i, 2, 3)).save(tmp_path / place)
    return tmp_path


LISTS = {
    "list.txt": "deeper/a, with comma.png\n\nb.png\n",
    "list.csv": 'label,path\n1,"deeper/a, with comma.png"\n2,b.png\n',
    "list.tsv": "file\tlabel\ndeeper/a, with comma.png\t1\nb.png\t2\n",
    "list.jsonl": '{"image": "deeper/a, with comma.png"}\n{"image": "b.png", "label": 3}\n',
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_start_at_their_own_folder(listed, name):
    (listed / name).write_text(LISTS[name])
    images = find_images((str(listed / name),))
    assert names(images) == ["a, with comma.png", "b.png"], "in the list's order"
    assert images.decode(0, COLOUR)[0, 0, 0] == 1
    assert images.name == "list"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "name,label\nx.png,1\n", "no column of paths among name, label"),
        ("a.csv", "path,label\nx.png\n", "row 2"),
        ("a.jsonl", "{path: x}\n", "line 1, is not JSON"),
        ("a.jsonl", '["x.png"]\n', "line 1, is no object"),
        ("a.txt", "\n", "no images"),
    ],
)
def test_lists_that_are_none(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=says):
        find_images((str(tmp_path / name),))


def test_files_that_a_list_promises_are_bad_images(tmp_path):
    (tmp_path / "a.txt").write_text("gone.png\n")
    assert isinstance(find_images((str(tmp_path / "a.txt"),)).decode(0, COLOUR), BadImage)


def test_folders_files_and_lists_go_together(photos, listed):
    (listed / "list.txt").write_text("b.png\n")
    sources = (str(photos / "near"), str(listed / "list.txt"), str(listed / "deeper"))
    images = find_images(sources)
    assert len(images) == 8 + 1 + 1
    assert images.name == "near-list-deeper"


def test_data_sets_go_alone(photos):
    with pytest.raises(DataError, match="give it alone"):
        find_images((str(photos), "elpv"))


def test_torchvision_by_name(tmp_path):
    import pickle

    folder = tmp_path / "cifar-10-batches-py"
    with pytest.raises(DataError, match=r"is not below .*--data\.root .*: --root\)") as refusal:
        find_images(("torchvision:CIFAR10",), root=str(tmp_path))
    command = f"unmask check torchvision:CIFAR10 --data.root {tmp_path} --data.download"
    assert f"run `{command}`" in str(refusal.value), "predict and embed download nothing"
    with pytest.raises(DataError, match=r"choose one of.*CIFAR10"):
        find_images(("torchvision:CIFAR11",), root=str(tmp_path))
    with pytest.raises(DataError, match="more than a folder"):
        find_images(("torchvision:CocoDetection",), root=str(tmp_path))
    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    folder.mkdir()
    for name in [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]:
        content = {"data": pixels.reshape(4, -1), "labels": [0, 1, 2, 3]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    unchecked = pytest.MonkeyPatch()
    unchecked.setattr(CIFAR10, "_check_integrity", lambda self: True)
    unchecked.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)
    try:
        training = find_images(("torchvision:cifar10",), root=str(tmp_path))
        test = find_images(("torchvision:CIFAR10:test",), root=str(tmp_path))
    finally:
        unchecked.undo()
    assert (len(training), len(test)) == (20, 4)
    assert np.array_equal(training.decode(5, COLOUR), pixels[1])
    assert training.fingerprint() != training.subset(range(19)).fingerprint()


def test_torchvision_data_sets_of_files_keep_their_paths(tmp_path, monkeypatch):
    """Then a broken file is skipped like any other."""
    for split in ("train", "val"):
        (tmp_path / split / "class").mkdir(parents=True)
        Image.new("RGB", (6, 6), (9, 2, 3)).save(tmp_path / split / "class" / f"{split}.png")
    from torchvision import datasets

    class Folders(datasets.ImageFolder):
        def __init__(self, root, split="train"):
            super().__init__(f"{root}/{split}")

    monkeypatch.setattr(datasets, "Imagenette", Folders)
    images = find_images(("torchvision:imagenette:val",), root=str(tmp_path))
    assert images.paths[0].endswith("val/class/val.png")
    assert images.decode(0, COLOUR)[0, 0, 0] == 9


def test_hugging_face_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    pictures = [Image.new("RGB", (6, 4), (i, 2, 3)) for i in range(5)]
    columns = {"label": range(5), "photo": pictures}
    features = datasets.Features({"label": datasets.Value("int32"), "photo": datasets.Image()})
    rows = datasets.Dataset.from_dict(columns, features=features)
    rows.save_to_disk(tmp_path / "rows")
    datasets.DatasetDict({"train": rows, "test": rows.select([4])}).save_to_disk(tmp_path / "splits")
    rows.remove_columns("photo").save_to_disk(tmp_path / "no-images")

    images = find_images((f"hf:{tmp_path / 'rows'}",))
    assert len(images) == 5
    assert images.decode(3, COLOUR).shape == (3, 4, 6)
    assert images.decode(3, COLOUR)[0, 0, 0] == 3
    assert len(find_images((f"hf:{tmp_path / 'splits'}",))) == 5
    assert find_images((f"hf:{tmp_path / 'splits'}:test",)).decode(0, COLOUR)[0, 0, 0] == 4
    with pytest.raises(DataError, match=r"no split 'val'.*train, test"):
        find_images((f"hf:{tmp_path / 'splits'}:val",))
    with pytest.raises(DataError, match="no column of images among label"):
        find_images((f"hf:{tmp_path / 'no-images'}",))


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    """The library, its cache in a folder of the test, and no network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    looked_up = []

    def unreachable(host, *arguments, **options):
        looked_up.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    datasets.looked_up = looked_up
    yield datasets
    del datasets.looked_up


def test_hugging_face_folder_of_parquet(local_hub, tmp_path):
    kinds = {"image": local_hub.Image(), "label": local_hub.ClassLabel(names=["ant", "bee"])}
    for part, count in (("train", 4), ("validation", 2)):
        shown = []
        for i in range(count):
            encoded = io.BytesIO()
            Image.new("RGB", (6, 4), (i, 2, 3)).save(encoded, "PNG")
            shown.append({"bytes": encoded.getvalue(), "path": None})
        columns = {"image": shown, "label": [i % 2 for i in range(count)]}
        rows = local_hub.Dataset.from_dict(columns, features=local_hub.Features(kinds))
        rows.to_parquet(tmp_path / "rows" / f"{part}-00000-of-00001.parquet")
    split = find_labelled((f"hf:{tmp_path / 'rows'}",))
    assert split.training.labels.tolist() == [0, 1, 0, 1]
    assert split.validation.labels.tolist() == [0, 1]
    assert split.training.classes == ("ant", "bee")
    assert split.training.images.decode(3, COLOUR)[:, 0, 0].tolist() == [3, 2, 3]
    assert not local_hub.looked_up


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the library leaves metadata.csv open
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "file_name,label\na.png,one\nb.png,two\n"),
        ("metadata.jsonl", '{"file_name": "a.png", "label": "one"}\n'
                           '{"file_name": "b.png", "label": "two"}\n'),
    ],
)  # fmt: skip
def test_hugging_face_folder_of_images(local_hub, tmp_path, name, content):
    for part in ("train", "test"):
        (tmp_path / "set" / part).mkdir(parents=True)
        for i, letter in enumerate("ab"):
            Image.new("RGB", (6, 4), (i, 2, 3)).save(tmp_path / "set" / part / f"{letter}.png")
        (tmp_path / "set" / part / name).write_text(content)
    split = find_labelled((f"hf:{tmp_path / 'set'}",))
    assert split.training.classes == ("one", "two")
    assert split.training.labels.tolist() == split.validation.labels.tolist() == [0, 1]
    assert names(split.validation.images) == ["a.png", "b.png"]
    assert split.validation.images.decode(1, COLOUR)[0, 0, 0] == 1
    assert not local_hub.looked_up
    gc.collect()  # while the warning is ignored


def test_33_hugging_face_without_a_network(local_hub, tmp_path, monkeypatch):
    """One question to the hub, no retries: they wait in between."""

    def wait(seconds):
        raise AssertionError(f"waited for {seconds} s")

    monkeypatch.setattr(time, "sleep", wait)
    with pytest.raises(DataError, match=r"Couldn't reach 'someone/photos'.*save_to_disk"):
        find_images(("hf:someone/photos",))
    assert 1 <= len(local_hub.looked_up) <= 2, "the http library looks a name up twice"
    assert local_hub.config.HF_HUB_OFFLINE is False
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"any data files\): give a folder .*metadata\.csv"):
        find_images((f"hf:{tmp_path / 'empty'}",))


def test_33_an_answer_of_the_hub_is_left_to_the_library(local_hub, monkeypatch):
    """It knows what a refusal means; without a network it is asked for its copy alone."""
    from huggingface_hub.errors import HfHubHTTPError

    def refused(self, name, timeout):
        raise HfHubHTTPError.__new__(HfHubHTTPError)

    def load(name):
        raise RuntimeError("asked" if not local_hub.config.HF_HUB_OFFLINE else "not asked")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refused)
    monkeypatch.setattr(local_hub, "load_dataset", load)
    with pytest.raises(DataError, match=r"cannot be loaded \(asked\)"):
        find_images(("hf:someone/photos",))


def test_row_of_json_is_a_path_only_if_it_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"url": "x.png"}))
    with pytest.raises(DataError, match="call one of"):
        find_images((str(tmp_path / "a.jsonl"),))


def test_libraries_of_data_sets_are_imported_when_they_are_named():
    imported = {"datasets", "torchvision", "elpv_dataset", "mlxtend", "huggingface_hub"}
    for file in Path(registry.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text()).body:  # not those inside functions
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                module = node.module if isinstance(node, ast.ImportFrom) else names[0]
                assert module.split(".")[0] not in imported, f"{file.name} imports {module}"
    assert registry.BUILT_IN == ("digits", "elpv", "elpv:train", "fashion-mnist")
