"""Pictures are whole or absent, in the format that their name says."""

import errno
import os

import pytest
from PIL import Image

from unmask.errors import CheckpointError
from unmask.viz.saving import png_bytes, save_picture

RED = Image.new("RGB", (8, 4), "red")


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("b.JPG", "JPEG"), ("c.jpeg", "JPEG")])
def test_the_name_says_the_format(tmp_path, name, kind):
    save_picture(RED, tmp_path / "new" / name)
    with Image.open(tmp_path / "new" / name) as found:
        assert (found.format, found.size) == (kind, (8, 4))
    assert png_bytes(RED).startswith(b"\x89PNG")


def test_12_a_full_disk_leaves_the_earlier_picture(tmp_path, monkeypatch):
    save_picture(RED, file := tmp_path / "sheet.png")
    before = file.read_bytes()

    def half(self, path, *rest, **options):
        path.write_bytes(before[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(
        CheckpointError, match=r"sheet.png cannot be written: it needs more than 20 bytes, .* make room"
    ):
        save_picture(RED, file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
