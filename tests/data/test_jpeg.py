"""JPEG by simplejpeg: the pixels that Pillow gives, whichever of them reads a file."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import photograph
from unmask.config.image import PixelFormat
from unmask.data.decode import jpeg
from unmask.data.decode.jpeg import HEADER_BYTES, JpegPicture, decoded_share, jpeg_picture
from unmask.data.decode.pictures import BadImage
from unmask.data.decode.pillow import PillowPicture
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.transforms import crop_box

pytest.importorskip("simplejpeg", reason="simplejpeg is not installed: pip install 'unmask[fast]'")

PICTURE = photograph(3, 331, 517)
WANTED = [PixelFormat(channels=c, pixel_type=t) for c in (1, 3, 4) for t in ("uint8", "float32")]
BOXES = (None, (0, 0, 331, 517), (17, 200, 250, 131))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


KINDS = {
    "usual": {},
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "progressive": {"progressive": True, "quality": 95},
    "restarts": {"restart_marker_rows": 1},
    "best": {"quality": 100},
    "rgb": {"keep_rgb": True},
    "grey": {"mode": "L"},
    "inks": {"mode": "CMYK"},
    "upright": {"exif": exif(1)},
    "turned": {"exif": exif(6)},
    "mirrored": {"exif": exif(2)},
    "commented": {"comment": b"c" * 60_000, "icc_profile": b"i" * 90_000},
    "MPO": {"format": "MPO", "save_all": True, "append_images": [PICTURE.rotate(180)]},
}
BY_PILLOW = {"inks", "turned", "mirrored", "commented"}
"""Out of the ordinary: ink, not upright, a header that does not end."""


def encoded(kind: str) -> bytes:
    file, options = io.BytesIO(), {"format": "JPEG", **KINDS[kind]}
    PICTURE.convert(options.pop("mode", "RGB")).save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pixels(kind):
    content = encoded(kind)
    ours = jpeg_picture(io.BytesIO(content))
    assert (ours is None) is (kind in BY_PILLOW)
    if ours is None:
        return
    with Image.open(io.BytesIO(content)) as image:
        described = PillowPicture(image)
        for name in ("kind", "size", "channels", "pixel_type", "decodes_smaller"):
            assert getattr(ours, name) == getattr(described, name)
    for wanted in WANTED:
        for scale in (1.0, 0.5, 0.3, 0.12, 0.01):
            for box in BOXES:
                assert outcome(ours, wanted, scale, box) == by_pillow(content, wanted, scale, box)


def outcome(picture, wanted, scale, box):
    """The pixels, or what is wrong."""
    try:
        pixels = picture.pixels(wanted, scale, box)
    except ValueError as error:
        return str(error)
    return pixels.dtype, pixels.shape, pixels.numpy().tobytes()


def by_pillow(content, wanted, scale, box):
    with Image.open(io.BytesIO(content)) as image:
        return outcome(PillowPicture(image), wanted, scale, box)


def test_decoded_sizes():
    """Pillow and simplejpeg are told the same shares of the sides."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = (int(side) for side in rng.integers(1, 200, 2))
        scale = float(rng.uniform(0.005, 0.6))
        file = io.BytesIO()
        Image.new("L", (width, height)).save(file, "JPEG")
        file.seek(0)
        both = jpeg_picture(file), PillowPicture(Image.open(io.BytesIO(file.getvalue())))
        shapes = {tuple(p.pixels(PixelFormat(channels=1), scale).shape[1:]) for p in both}
        share = decoded_share((height, width), scale)
        assert shapes == {(-(-height // share), -(-width // share))}


DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "cut at its end": lambda content: content[:-2],
    "no pixels": lambda content: content[:700],
    "bytes behind": lambda content: content + b"something else",
    "changed": lambda content: content[:9000] + bytes(40) + content[9040:],
    "changed in the header": lambda content: content[:30] + b"\xff" + content[31:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_judged_by_pillow(tmp_path, monkeypatch, damage):
    (tmp_path / "a.jpg").write_bytes(DAMAGE[damage](encoded("best")))
    images = Images("x", PathList([str(tmp_path / "a.jpg")]))
    results = []
    for decoder in (jpeg.simplejpeg, None):
        monkeypatch.setattr(jpeg, "simplejpeg", decoder)
        results.append(images.decode(0, PixelFormat(channels=3)))
    fast, slow = results
    if isinstance(slow, BadImage):
        assert isinstance(fast, BadImage)
        assert fast.reason.split("<")[0] == slow.reason.split("<")[0]  # some name the object of the file
    else:
        assert fast.equal(slow)


def test_a_file_longer_than_what_is_read_for_the_header(tmp_path, monkeypatch):
    monkeypatch.setattr(jpeg, "PillowPicture", None)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=95)
    assert Path(tmp_path / "a.jpg").stat().st_size > HEADER_BYTES
    with open(tmp_path / "a.jpg", "rb") as file:
        picture = jpeg_picture(file)
        assert isinstance(picture, JpegPicture)
        for _ in range(2):
            assert np.array_equal(
                picture.pixels(PixelFormat(channels=3)).permute(1, 2, 0),
                np.asarray(Image.open(tmp_path / "a.jpg")),
            )


def test_large_images_are_refused_before_they_are_decoded(monkeypatch):
    picture = jpeg_picture(io.BytesIO(encoded("usual")))
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", None)
    with pytest.raises(ValueError, match=r"517 x 331 pixels are over --data.max-megapixels"):
        picture.pixels(PixelFormat(channels=3, max_pixels=331 * 517 - 1))


def test_whatever_a_name_says(tmp_path):
    PICTURE.save(tmp_path / "a.jpg", "PNG")
    PICTURE.save(tmp_path / "b.png", "JPEG")
    images = Images("x", PathList([str(tmp_path / name) for name in ("a.jpg", "b.png")]))
    kinds = []
    for i in range(2):
        with images.open(i) as picture:
            kinds.append((picture.kind, type(picture)))
    assert kinds == [("PNG RGB", PillowPicture), ("JPEG RGB", JpegPicture)]


def test_crops_are_resized_as_torchvision_does(tmp_path):
    """Its uint8 bicubic with antialiasing, bit for bit, for any number of channels."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    from unmask.data.decode.pictures import DecodedPicture

    rng = np.random.default_rng(0)
    for channels in (1, 3, 4, 10):
        for dtype in (np.uint8, np.float32):
            whole = torch.from_numpy(rng.uniform(0, 255, (channels, 90, 120)).astype(dtype))
            for box in ((0, 0, 90, 120), (5, 50, 80, 31), (9, 9, 32, 48), (60, 80, 7, 20)):
                wanted = PixelFormat(channels=channels)
                ours = crop_box(DecodedPicture(whole), wanted, box, (32, 48))
                theirs = functional.resized_crop(
                    whole, *box, [32, 48], interpolation=InterpolationMode.BICUBIC, antialias=True
                )
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if dtype == np.uint8 else 1e-4)
