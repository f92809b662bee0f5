"""The kept listing of a large folder: what a fresh walk would find, without the walk."""

import itertools
import os
import random
import shutil
import time

import numpy as np
import pytest

from unmask.data.sources import folder as module
from unmask.data.sources import index
from unmask.data.sources.folder import images_below
from unmask.data.sources.index import VARIABLE, read_index, write_index

OLD = itertools.count(10**18, 10**9)
"""Nanoseconds: moments long ago, no two alike."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An index for the smallest folder, in a directory of the test's own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(module, "INDEXED_FROM", 1)
    return tmp_path / "cache" / "index"


@pytest.fixture
def photos(tmp_path):
    """Three directories with four images."""
    place = tmp_path / "photos"
    for name in ("a.jpg", "b/c.PNG", "b/not.txt", "b/.hidden.png", "b-/e/f.webp", "z/é\n.tif"):
        add(place / name)
    return settle(place)


def add(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def settle(place):
    """Time passes: what changed just now did so long ago."""
    for path in (place, *place.rglob("*")):
        if path.is_dir() and time.time() - path.stat().st_mtime < 3600:
            moment = next(OLD)
            os.utime(path, ns=(moment, moment))
    return place


def walked(place) -> list[str]:
    """What a walk without an index finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "")
        return list(images_below(str(place)))


def directories_read(monkeypatch, place) -> set[str]:
    """The directories below that a second start looks into."""
    read, original = set(), module._read
    with monkeypatch.context() as patch:
        patch.setattr(module, "_read", lambda path: (read.add(path), original(path))[1])
        assert list(images_below(str(place))) == walked_names(place)
    return {os.path.relpath(path, place) for path in read}


def walked_names(place) -> list[str]:
    suffixes = (".jpg", ".png", ".webp", ".tif")
    found = []
    for folder, below, files in os.walk(place, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        found += [os.path.join(folder, f) for f in files if f.lower().endswith(suffixes) and f[0] != "."]
    return sorted(found)


def test_the_second_start_reads_no_directory(photos, monkeypatch, cache):
    assert directories_read(monkeypatch, photos) == {".", "b", "b-", "b-/e", "z"}
    assert len(list(cache.iterdir())) == 1
    assert directories_read(monkeypatch, photos) == set()
    monkeypatch.chdir(photos.parent)
    assert images_below("photos/")[0] == "photos/a.jpg", "paths begin as the folder was given"


CHANGES = {
    "added": (lambda p: add(p / "b/new.jpg"), {"b"}),
    "removed": (lambda p: (p / "b/c.PNG").unlink(), {"b"}),
    "renamed": (lambda p: (p / "b/c.PNG").rename(p / "z/c.png"), {"b", "z"}),
    "nested": (lambda p: add(p / "b-/e/g/h.jpg"), {"b-/e", "b-/e/g"}),
    "moved": (lambda p: (p / "b-").rename(p / "z/b-"), {".", "z", "z/b-", "z/b-/e"}),
    "gone": (lambda p: shutil.rmtree(p / "b-"), {"."}),
    "exchanged": (lambda p: (shutil.rmtree(p / "b"), add(p / "b/c.PNG")), {".", "b"}),
    "first here": (lambda p: add(p / "a.webp"), {"."}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_changed_is_read_again(photos, monkeypatch, change):
    act, expected = CHANGES[change]
    images_below(str(photos))
    act(photos)
    settle(photos)
    assert directories_read(monkeypatch, photos) == expected
    assert directories_read(monkeypatch, photos) == set(), "and kept for the next time"


def test_a_directory_of_a_moment_ago_is_read_again(photos, monkeypatch):
    """Where the clock ticks slowly, a second change has the time of the first."""
    add(photos / "b/new.jpg")
    before = (photos / "b").stat()
    images_below(str(photos))
    add(photos / "b/newer.jpg")
    os.utime(photos / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert directories_read(monkeypatch, photos) == {"b"}


def test_links(photos, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    add(elsewhere / "x.jpg")
    (photos / "z/linked").symlink_to(settle(elsewhere))
    (photos / "b/again").symlink_to(elsewhere)
    (photos / "b/loop").symlink_to(photos)
    settle(photos)
    found = list(images_below(str(photos)))
    assert [path for path in found if path.endswith("x.jpg")] == [str(photos / "b/again/x.jpg")]
    assert list(images_below(str(photos))) == found
    add(elsewhere / "y.jpg")
    assert list(images_below(str(photos))) == walked(photos) != found
    (photos / "b/again").unlink()
    assert str(photos / "z/linked/y.jpg") in list(images_below(str(photos)))
    assert list(images_below(str(photos))) == walked(photos)


def test_a_link_to_nothing_may_become_a_folder(photos, tmp_path):
    (photos / "b/later").symlink_to(tmp_path / "mount")
    settle(photos)
    assert len(images_below(str(photos))) == 4
    add(tmp_path / "mount/x.jpg")
    settle(tmp_path / "mount")
    assert len(images_below(str(photos))) == 5


@pytest.mark.parametrize("seed", range(12))
def test_any_changes(tmp_path, seed):
    """A random history: after each step the index finds what a walk finds."""
    rng, place = random.Random(seed), tmp_path / "any"
    add(place / "0/1.jpg")
    for number in range(25):
        _change(rng, place, f"{number}")
        if rng.random() < 0.8:
            settle(place)
        assert list(images_below(str(place))) == walked(place), number


def _change(rng, place, name):
    folders = [place, *sorted(p for p in place.rglob("*") if p.is_dir() and not p.is_symlink())]
    files = sorted(p for p in place.rglob("*") if p.suffix)
    folder, kind = rng.choice(folders), rng.randrange(6)
    if kind == 0 and folder != place:
        shutil.rmtree(folder)
    elif kind == 1 and files:
        rng.choice(files).unlink()
    elif kind == 2 and files:
        rng.choice(files).rename(folder / f"{name}.jpg")
    elif kind == 3 and folder != place and not (target := rng.choice(folders)).is_relative_to(folder):
        folder.rename(target / f"moved-{name}")
    elif kind == 4:
        (folder / f"link-{name}").symlink_to(rng.choice(folders))
    else:
        add(folder / rng.choice([".", name]) / f"{name}.png")


def test_a_damaged_index_is_ignored(photos, cache):
    right = list(images_below(str(photos)))
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    rng = random.Random(0)
    for _ in range(150):
        broken = bytearray(whole)
        broken[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(broken)
        assert list(images_below(str(photos))) == right
    for content in (b"", whole[: len(whole) // 2], b"PK\x03\x04" + bytes(100), whole[:-1]):
        file.write_bytes(content)
        assert list(images_below(str(photos))) == right
        assert file.read_bytes() != content, "and written anew"


def test_22_an_index_of_another_folder_or_with_objects_is_ignored(photos, cache, tmp_path):
    images_below(str(photos))
    (file,) = cache.iterdir()
    add(tmp_path / "other/x.jpg")
    images_below(str(settle(tmp_path / "other")))
    (other,) = set(cache.iterdir()) - {file}
    shutil.copy(other, file)
    assert read_index(str(photos)) is None
    with np.load(other) as stored:
        parts = dict(stored)
    np.savez(other, **{**parts, "names": np.array([print], dtype=object)})
    assert read_index(str(tmp_path / "other")) is None
    np.savez(other, **{**parts, "inode": parts["inode"][:0]})
    assert read_index(str(tmp_path / "other")) is None
    for name in (b"../x.jpg\0", b"/etc/x.jpg\0", b"a.jpg\0/x.jpg\0", b"a/../../x.jpg\0"):
        np.savez(other, **{**parts, "names": np.frombuffer(name, dtype=np.uint8)})
        assert read_index(str(tmp_path / "other")) is None, name


def test_22_an_index_far_larger_unpacked_is_ignored(photos, cache, monkeypatch):
    images_below(str(photos))
    (file,) = cache.iterdir()
    with np.load(file) as stored:
        parts = dict(stored)
    names = parts["names"].tobytes() + b"a.jpg\0" * 2**19
    np.savez_compressed(file, **{**parts, "names": np.frombuffer(names, dtype=np.uint8)})
    assert file.stat().st_size < 2**15
    assert read_index(str(photos)) is not None
    monkeypatch.setattr(index, "MOST_UNPACKED", 2**20)
    assert read_index(str(photos)) is None


@pytest.mark.timeout(20)
def test_16_a_pipe_as_index_does_not_hang(photos, cache):
    right = list(images_below(str(photos)))
    (file,) = cache.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert list(images_below(str(photos))) == right


@pytest.mark.parametrize("place", ["", "relative/cache", "/dev/null/cache", "/proc/cache"])
def test_no_index_is_no_error(photos, monkeypatch, place):
    monkeypatch.setenv(VARIABLE, place)
    monkeypatch.chdir(photos.parent)
    assert list(images_below(str(photos))) == walked_names(photos)
    assert not (photos.parent / "relative").exists()
    assert read_index(str(photos)) is None


def test_a_full_disk_leaves_nothing_behind(photos, monkeypatch, cache):
    def full(file, **parts):
        file.write(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    assert len(images_below(str(photos))) == 4
    assert list(cache.iterdir()) == []


def test_the_place_of_the_index(tmp_path, photos, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    images_below(str(photos))
    assert len(list((tmp_path / "xdg/unmask/index").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    images_below(str(photos))
    assert len(list((tmp_path / "home/.cache/unmask/index").iterdir())) == 1


def test_small_folders_and_silent_file_systems_have_no_index(photos, monkeypatch, cache):
    device = photos.stat().st_dev
    with monkeypatch.context() as patch:
        patch.setattr(module, "_fuse_devices", lambda: {device})
        images_below(str(photos))
    monkeypatch.setattr(module, "INDEXED_FROM", 5)
    images_below(str(photos))
    assert not cache.exists()


def test_file_systems_of_programs(monkeypatch, tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "36 35 98:0 / /disk rw,noatime master:1 - ext4 /dev/root rw\n"
        "40 35 0:44 / /bucket - with\\040dash rw - fuse.gcsfuse bucket rw\n"
        "41 35 0:45 / /usb rw - fuseblk /dev/sdb1 rw\n"
    )
    monkeypatch.setattr(module, "MOUNTS", str(mounts))
    assert module._fuse_devices() == {os.makedev(0, 44)}
    monkeypatch.setattr(module, "MOUNTS", str(tmp_path / "none"))
    assert module._fuse_devices() == set()


def test_large_numbers_of_file_systems(photos):
    """An inode may need 64 bits without a sign; where it needs more there is no index."""
    images_below(str(photos))
    kept = read_index(str(photos))
    for inode, fits in ((2**64 - 1, True), (2**64, False)):
        stamps = [d._replace(stamp=d.stamp._replace(inode=inode)) for d in kept.directories]
        listing = type(kept)(kept.names, stamps)
        write_index(str(photos), listing)
        assert (read_index(str(photos)) == listing) is fits
