"""The photographs of README's picture: what Qt's resource files hold, and which of it is taken."""

import io
import runpy
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/readme_picture.py"))


def resources(folders: dict[str, dict[str, bytes]], version: int = 3) -> bytes:
    """A binary resource file: folders with files, all in the root."""
    names, data, entries = b"", b"", []

    def name(text: str) -> int:
        nonlocal names
        at = len(names)
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return at

    first = 1 + len(folders)
    entries.append(struct.pack(">IHII", 0, 2, len(folders), 1))
    for folder, files in folders.items():
        entries.append(struct.pack(">IHII", name(folder), 2, len(files), first))
        first += len(files)
    for files in folders.values():
        for file, content in files.items():
            entries.append(struct.pack(">IHHHI", name(file), 0, 0, 0, len(data)))
            data += struct.pack(">I", len(content)) + content
    stamp = struct.pack(">Q", 0) if version > 1 else b""
    tree = b"".join(entry + stamp for entry in entries)
    places = (20, 20 + len(tree), 20 + len(tree) + len(data))
    return b"qres" + struct.pack(">4I", version, *places) + tree + data + names


@pytest.mark.parametrize("version", [1, 3])
def test_what_a_resource_file_holds(version):
    held = {"é": {"a.webp": b"12345", "b": b""}, "empty": {}, "c": {"d": b"6"}}
    found = dict(SCRIPT["members"](resources(held, version)))
    assert found == {"/é/a.webp": b"12345", "/é/b": b"", "/c/d": b"6"}


def webp(side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side + 100, 3), 90, np.uint8)).save(file, "WEBP")
    return file.getvalue()


def test_photographs_are_taken_and_paintings_left(tmp_path):
    place = tmp_path / "usr/share/gcompris-qt/rcc"
    place.mkdir(parents=True)
    files = {"Bridge.webp": webp(500), "small.webp": webp(100), "Gogh4.webp": webp(300), "bear.svg": b""}
    folder = "gcompris/src/activities/details/resource/image"
    (place / "details.rcc").write_bytes(resources({folder: files}))
    pictures = SCRIPT["photographs"](tmp_path)
    assert SCRIPT["write"](pictures, tmp_path / "out", "jpg") == 1
    (written,) = (tmp_path / "out").iterdir()
    assert written.name == "details-resource-image-Bridge.jpg"
    with Image.open(written) as picture:
        assert picture.size == (461, 384)
