"""Files that are larger than what they hold can need: sparse here, so that they take no room."""

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.makers import RGB, reason, values, write_dicom, write_png
from unmask.data.detections import find_boxes
from unmask.data.labels import find_labelled
from unmask.data.sources.find import find_images
from unmask.errors import DataError

HUGE = 2**33


@pytest.fixture(autouse=True)
def small_peak():
    """Nothing may allocate what such a file holds."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**26


def sparse(path: Path, start: bytes, size: int = HUGE) -> str:
    """A file that begins so and goes on with zeros."""
    path.write_bytes(start)
    os.truncate(path, size)
    return str(path)


def test_annotations_in_huge_files_are_refused(tmp_path):
    file = sparse(tmp_path / "instances.json", b'{"images": [], "annotations": [')
    with pytest.raises(
        DataError, match=r"instances\.json cannot be read: it has 8589934592 bytes and at"
    ):
        find_boxes((file,))


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl"])
def test_huge_lists_are_refused(tmp_path, name):
    file = sparse(tmp_path / name, b"path,label\n")
    for find in (find_images, find_labelled):
        with pytest.raises(
            DataError, match=rf"{name} cannot be read: it has 8589934592 bytes and at most"
        ):
            find((file,))


def png(path: Path, size: int, name: bytes) -> bytes:
    """Sixteen bits of colours, and a chunk of zeros before their end so that the file is so large."""
    write_png(path, np.full((4, 5, 3), 999, dtype=np.uint16), RGB)
    whole = path.read_bytes()
    return whole[:-12] + struct.pack(">I", size - len(whole)) + name


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.dcm", "a"])
def test_huge_image_files_are_refused_before_they_are_read(tmp_path, name):
    start = bytes(128) + b"DICM" if name.startswith("a.d") else b"\xff\xd8\xff\xe0\0\x10JFIF\0"
    file = sparse(tmp_path / name, start)
    assert "its file has 8 GiB, and --data.max-megapixels 200 allows 1.93 GiB" in reason(file)
    assert "--data.max-megapixels 2 allows 83.1 MiB" in reason(file, max_pixels=2_000_000), name


def test_image_files_far_larger_than_their_pixels_are_not_read_whole(tmp_path):
    size = 2**30
    for name, sentence in (
        (b"IDAT", "its file has 1 GiB, and 5 x 4 pixels need at most 64 MiB"),
        (b"noNe", "1024 MiB of it or more are not its pixels, and at most 64 MiB are read"),
    ):
        deep = sparse(tmp_path / "deep.png", png(tmp_path / "deep.png", size, name), size)
        assert sentence in reason(deep)
    jpeg = io.BytesIO()
    Image.new("RGB", (640, 480), (9, 8, 7)).save(jpeg, "JPEG")
    behind = sparse(tmp_path / "a.jpg", jpeg.getvalue(), size)
    (tmp_path / "small.jpg").write_bytes(jpeg.getvalue())
    small, large = (values(path, pixel_type="uint8") for path in (tmp_path / "small.jpg", behind))
    assert np.array_equal(small, large)


def test_huge_arrays_and_tiffs_are_read_in_parts(tmp_path):
    np.save(tmp_path / "a.npy", np.full((4, 5, 3), 7, dtype=np.uint8))
    Image.new("RGB", (5, 4), (7, 7, 7)).save(tmp_path / "a.tif")
    for path in (tmp_path / "a.npy", tmp_path / "a.tif"):
        os.truncate(path, HUGE)
        assert (values(path, pixel_type="uint8") == 7).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_large_files_of_zeros_are_not_read_whole(tmp_path, name):
    assert "its content is no image" in reason(sparse(tmp_path / name, b"", 2**30))


def test_18_gigabytes_of_comments_are_not_read(tmp_path):
    """Pillow would hold each three times."""
    sentence = "are not its pixels, and at most 64 MiB are read: save it again without comments"
    for name in (b"tEXt", b"iCCP", b"eXIf", b"PLTE", b"noNe"):
        start = write_and_read(tmp_path / "a.png")[:33] + struct.pack(">I", 2**30) + name
        assert sentence in reason(sparse(tmp_path / "a.png", start, 2**30 + 2**20)), name
    webp = io.BytesIO()
    for mode, options in (("RGB", {}), ("RGB", {"lossless": True}), ("RGBA", {})):
        Image.new(mode, (640, 480)).save(webp, "WEBP", **options)
        assert sentence in reason(sparse(tmp_path / "a.webp", webp.getvalue(), 2**28)), mode
        assert values(sparse(tmp_path / "a.webp", webp.getvalue(), 2**24)).shape == (480, 640, 3)
    jpeg = tmp_path / "a.jpg"
    with jpeg.open("wb") as file:
        for segment in range(1200):
            file.seek(2 + segment * 65_537)
            file.write(b"\xff\xe2\xff\xff")
        file.seek(0)
        file.write(b"\xff\xd8")
    assert sentence in reason(jpeg)


def write_and_read(path: Path) -> bytes:
    """A small PNG."""
    write_png(path, np.full((4, 5, 3), 99, dtype=np.uint8), RGB)
    return path.read_bytes()


def test_18_a_file_of_gigabytes_with_damaged_metadata_is_not_copied(tmp_path):
    damaged = struct.pack(">I", 3) + b"tEXta\0b" + bytes(4)  # its checksum is wrong
    start = write_and_read(tmp_path / "a.png")[:33] + damaged + struct.pack(">I", 2**30) + b"IDAT"
    found = reason(sparse(tmp_path / "a.png", start, 2**30 + 2**20))
    assert "its content is no image of a kind that is read, or it is cut short" in found


NUMBERS, TEXT = 4, 2
"""Types of values in TIFF."""


def tiff(path: Path, size: int = 2**30, **changed: tuple[int, int]) -> str:
    """Five times four values of 16 bits; `changed` tags have another count, or another value."""
    tags = {
        "width": [256, 3, 1, 5], "height": [257, 3, 1, 4], "bits": [258, 3, 1, 16],
        "packing": [259, 3, 1, 8], "meaning": [262, 3, 1, 1], "text": [270, TEXT, 4, 0],
        "offsets": [273, NUMBERS, 1, 512], "samples": [277, 3, 1, 1], "rows": [278, NUMBERS, 1, 4],
        "counts": [279, NUMBERS, 1, 40],
    }  # fmt: skip
    for name, (count, value) in changed.items():
        tags[name][2:] = count, value
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags.values())
    return sparse(path, b"II*\0" + struct.pack("<I", 8) + directory, size)


def test_18_tiffs_that_promise_gigabytes_are_refused(tmp_path):
    file = tmp_path / "a.tif"
    long_strip = reason(tiff(file, counts=(1, 2**29)), channels=1)
    assert "its strips or tiles take 512 MiB, and 4 x 5 values of uint16 at most 64 MiB" in long_strip
    many_strips = reason(tiff(file, offsets=(2**27, 1024)), channels=1)
    assert "134217736 numbers in their tags, and at most 65536 and 16777216 are read" in many_strips
    assert "its tags hold 512 MiB of text" in reason(tiff(file, text=(2**29, 1024)), channels=1)


def test_18_a_tiff_of_endless_pages_is_refused(tmp_path):
    """A million directories without an image, each of which would be looked at."""
    first = b"II*\0" + struct.pack("<I", 8)
    pages = b"".join(struct.pack("<HI", 0, 8 + 6 * page) for page in range(1, 70_000))
    (tmp_path / "a.tif").write_bytes(first + pages)
    assert "it has 65537 pages or more" in reason(tmp_path / "a.tif", channels=1)


def test_18_an_array_with_a_header_of_gigabytes_is_refused(tmp_path):
    file = sparse(tmp_path / "a.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 2**30), 2**31)
    assert "its header is longer than that of any array" in reason(file)


def test_18_of_a_dicom_file_only_header_and_pixels_are_read(tmp_path):
    stored = np.arange(20, dtype=np.uint16).reshape(4, 5) * 200
    write_dicom(tmp_path / "a.dcm", stored)
    whole = (tmp_path / "a.dcm").read_bytes()
    wanted = values(tmp_path / "a.dcm", channels=1)
    assert np.array_equal(values(sparse(tmp_path / "a.dcm", whole, 2**30), channels=1), wanted)
    at = whole.index(struct.pack("<HH", 0x28, 2))
    private = whole[:at] + struct.pack("<HH2sHI", 0x19, 0x10, b"OB", 0, 2**29)
    found = reason(sparse(tmp_path / "a.dcm", private, 2**30), channels=1)
    assert "16 MiB of it or more come before its pixels" in found


def element(tag: tuple[int, int], kind: bytes, value: bytes) -> bytes:
    """Of DICOM, little endian; with a kind of no letters as files without kinds have it."""
    length = struct.pack("<H", len(value)) if kind else struct.pack("<I", len(value))
    return struct.pack("<HH", *tag) + kind + length + value


DEFLATED = element((2, 0x10), b"UI", b"1.2.840.10008.1.2.1.99")
BEGINS = {
    "as written": bytes(128) + b"DICM" + DEFLATED,
    "behind a long name": bytes(128) + b"DICM" + element((2, 3), b"UI", b"1." * 1000) + DEFLATED,
    "without a mark": DEFLATED,
    "without kinds": bytes(128) + b"DICM" + element((2, 0x10), b"", DEFLATED[8:]),
    "a wrong length": bytes(128) + b"DICM" + element((2, 0), b"UL", b"\xff\xff\0\0") + DEFLATED,
    "commands": bytes(128) + b"DICM" + DEFLATED + element((0, 0), b"", bytes(4)),
}


@pytest.mark.parametrize("begins", BEGINS)
def test_18_a_deflated_dicom_file_is_refused_before_it_is_unpacked(tmp_path, begins):
    """300 kB that hold 300 MiB, or an image with much behind it."""
    write_dicom(tmp_path / "a.dcm", np.arange(20, dtype=np.uint16).reshape(4, 5))
    whole = (tmp_path / "a.dcm").read_bytes()
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    image = whole[144 + int.from_bytes(whole[140:144], "little") :]
    packed = engine.compress(image) + engine.flush(zlib.Z_FULL_FLUSH)
    zeros = engine.compress(bytes(2**20)) + engine.flush(zlib.Z_FULL_FLUSH)
    small = BEGINS[begins] + packed + engine.flush()
    (tmp_path / "a.dcm").write_bytes(small)
    assert values(tmp_path / "a.dcm", channels=1).shape == (4, 5, 1)
    said = "it is deflated, and has more than 256 MiB packed or unpacked"
    (tmp_path / "a.dcm").write_bytes(BEGINS[begins] + packed + 300 * zeros)
    assert said in reason(tmp_path / "a.dcm", channels=1)
    with open(tmp_path / "a.dcm", "wb") as file:
        file.write(small)
        file.truncate(300 * 2**20)
    assert said in reason(tmp_path / "a.dcm", channels=1, max_pixels=2**30)
