"""What a walk passes over: one odd entry never stops or hangs it, and our own output is no input."""

import os
import shutil
import socket
import subprocess
from collections import Counter

import pytest
from PIL import Image

from unmask.config.output import MARKER, mark_output
from unmask.data.decode.pictures import BadImage
from unmask.data.detections import has_boxes
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.sources import folder as module
from unmask.data.sources.find import find_images
from unmask.data.sources.folder import CLOSED, DEAD_LINK, FOLDER, HIDDEN, OURS, SPECIAL, UNREAD, walk
from unmask.data.sources.index import VARIABLE
from unmask.errors import DataError


@pytest.fixture(autouse=True)
def no_index(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")


@pytest.fixture
def photos(tmp_path):
    place = tmp_path / "photos"
    (place / "a").mkdir(parents=True)
    for name in ("x.png", "a/y.jfif", "a/z.JPG"):
        kind = "PNG" if name.endswith("png") else "JPEG"
        Image.new("RGB", (4, 4)).save(place / name, kind)
    return place


def names(place) -> list[str]:
    return [os.path.relpath(path, place) for path in walk(str(place)).paths]


def test_22_odd_entries_are_counted(photos):
    (photos / "loop.png").symlink_to("loop.png")
    (photos / "nowhere").symlink_to("gone")
    (photos / "a" / "around").symlink_to(photos)
    os.mkfifo(photos / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    try:
        os.chdir(photos)  # the path of a socket has to be short
        server.bind("socket.jpg")
    finally:
        server.close()
        os.chdir("/")
    for name in ("notes.TXT", "a/photo.heic", "a/b.gif", "README", ".hidden.png"):
        (photos / name).write_text("no image")
    (photos / ".git").mkdir()
    assert names(photos) == ["a/y.jfif", "a/z.JPG", "x.png"]
    assert walk(str(photos)).ignored == {
        (".png", DEAD_LINK): 1,
        ("", DEAD_LINK): 1,
        (".png", SPECIAL): 1,
        (".jpg", SPECIAL): 1,
        (".txt", UNREAD): 1,
        (".heic", UNREAD): 1,
        (".gif", UNREAD): 1,
        ("", UNREAD): 1,
        (".png", HIDDEN): 1,
        (FOLDER, HIDDEN): 1,
    }


def test_an_image_that_is_gone_is_named(photos):
    (photos / "later.png").symlink_to("gone.png")
    assert "later.png" in names(photos)


def test_pipes_that_are_named_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    images = Images("x", PathList([str(tmp_path / "pipe.png")]))
    from unmask.config.image import PixelFormat

    bad = images.decode(0, PixelFormat(channels=3))
    assert isinstance(bad, BadImage)
    assert "no regular file" in bad.reason


@pytest.mark.timeout(20)
def test_16_pipes_beside_images_do_not_hang(photos):
    for name in ("a.json", "a.xml", "labels.txt", "labels.csv", "classes.txt", "model.json"):
        os.mkfifo(photos / name)
    assert len(walk(str(photos)).paths) == 3
    assert not has_boxes(str(photos))
    for name in ("labels.csv", "classes.txt", "a.json"):
        with pytest.raises(DataError):
            find_images((str(photos / name),))


def test_a_closed_folder_costs_only_what_is_in_it(photos, monkeypatch):
    original = os.scandir

    def scandir(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert names(photos) == ["x.png"]
    assert walk(str(photos)).ignored == {(FOLDER, CLOSED): 1}
    with pytest.raises(DataError, match="change its permissions"):
        walk(str(photos / "a"))


def test_22_folders_nested_deeper_than_functions(photos):
    try:
        os.chdir(photos)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
        shutil.copy(photos / "x.png", "deep.png")
        found = walk(str(photos))
        assert not has_boxes(str(photos))
    finally:
        os.chdir("/")
        subprocess.run(["rm", "-rf", photos / "d"], check=True)  # pytest cannot remove it itself
    assert len(found.paths) == 4
    assert found.paths[2].endswith("d/deep.png")


def test_what_we_wrote_is_passed_over(photos):
    for name in ("runs/check-photos", "runs/mae/samples"):
        mark_output(photos / name)
    (photos / "runs/mae").mkdir(exist_ok=True)
    shutil.copy(photos / "x.png", photos / "runs/check-photos/samples.png")
    shutil.copy(photos / "x.png", photos / "runs/mae/samples/step.png")
    assert names(photos) == ["a/y.jfif", "a/z.JPG", "x.png"]
    assert walk(str(photos)).ignored[FOLDER, OURS] == 2
    assert names(photos / "runs/mae/samples") == ["step.png"], "unless it is named itself"


def test_folders_of_others_are_not_marked(photos):
    mark_output(photos)
    assert not (photos / MARKER).exists()
    mark_output(photos / "new")
    mark_output(photos / "new")
    assert (photos / "new" / MARKER).exists()


def test_a_run_is_marked_before_it_holds_anything(photos):
    from unmask.config.commands import PretrainConfig
    from unmask.engine.run_directory import opened

    with opened(photos / "runs/mae", PretrainConfig(), "pretrain"):
        shutil.copy(photos / "x.png", photos / "runs/mae/x.png")
    assert len(names(photos)) == 3
    with opened(photos / "runs/mae", PretrainConfig(), "pretrain"):
        pass


def test_the_kept_listing_knows_what_was_passed_over(photos, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(module, "INDEXED_FROM", 1)
    (photos / "a/notes.txt").write_text("")
    mark_output(photos / "runs")
    for path in (photos / "a", photos / "runs", photos):
        os.utime(path, (10**9, 10**9))
    first = walk(str(photos))
    assert first.ignored == Counter({(".txt", UNREAD): 1, (FOLDER, OURS): 1})
    assert walk(str(photos)).ignored == first.ignored
    (photos / "new.txt").write_text("")
    assert walk(str(photos)).ignored == first.ignored + Counter({(".txt", UNREAD): 1})


def test_dicom_is_found_by_its_content(tmp_path):
    marked = bytes(128) + b"DICM" + bytes(400)
    for name in ("x.IMA", "IM000001", "1.2.840.113", "y.dicom"):
        (tmp_path / name).write_bytes(marked)
    (tmp_path / "DICOMDIR").write_bytes(marked[:200] + b"1.2.840.10008.1.3.10" + marked[200:])
    (tmp_path / "other").write_bytes(b"DICM" + bytes(600))
    assert names(tmp_path) == ["1.2.840.113", "IM000001", "x.IMA", "y.dicom"]
    assert walk(str(tmp_path)).ignored == {("", UNREAD): 2}
