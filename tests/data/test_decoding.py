"""A folder of odd files: every kind is decoded to the right values, or is a bad image."""

import errno
import gzip
import struct

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from unmask.config.image import PixelFormat
from unmask.data.decode.pictures import BadImage, DecodedPicture
from unmask.data.decode.pillow import UPRIGHT
from unmask.data.images import Images
from unmask.data.inspect import inspect
from unmask.data.paths import PathList
from unmask.data.sources.find import find_images
from unmask.data.sources.idx import idx_images
from unmask.data.statistics import Layout, find_layout
from unmask.data.transforms import crop_box, may_be_kept
from unmask.errors import DataError

GREY, COLOUR = PixelFormat(channels=1), PixelFormat(channels=3)
RNG = np.random.default_rng(0)
GREY_PIXELS = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR_PIXELS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
BANDS = RNG.integers(0, 256, (10, 12, 14), dtype=np.uint8)


def floats(channels: int) -> PixelFormat:
    return PixelFormat(channels=channels, pixel_type="float32")


def decode(path, wanted: PixelFormat = COLOUR) -> torch.Tensor | BadImage:
    return Images("test", PathList([str(path)])).decode(0, wanted)


def values(path, wanted: PixelFormat = COLOUR) -> np.ndarray:
    """Height x width x channels."""
    decoded = decode(path, wanted)
    assert not isinstance(decoded, BadImage), decoded
    return decoded.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "bmp"])
def test_lossless_formats_decode_exactly(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(COLOUR_PIXELS).save(path, **options)
    assert np.array_equal(values(path), COLOUR_PIXELS)
    Image.fromarray(GREY_PIXELS).save(path, **options)
    assert np.array_equal(values(path, GREY)[..., 0], GREY_PIXELS)


def test_grey_and_colour_become_each_other(tmp_path):
    Image.fromarray(GREY_PIXELS).save(tmp_path / "grey.png")
    assert np.array_equal(values(tmp_path / "grey.png"), GREY_PIXELS[..., None].repeat(3, axis=2))
    Image.fromarray(COLOUR_PIXELS).save(tmp_path / "colour.png")
    np.save(tmp_path / "colour.npy", COLOUR_PIXELS)
    expected = np.asarray(Image.fromarray(COLOUR_PIXELS).convert("L"))
    assert np.array_equal(values(tmp_path / "colour.png", GREY)[..., 0], expected)
    difference = values(tmp_path / "colour.npy", GREY)[..., 0].astype(int) - expected
    assert abs(difference).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(tmp_path, mode):
    image = Image.fromarray(np.uint8([[[200, 100, 50, 255], [200, 100, 50, 0]]]))
    image = image.convert(mode) if mode != "P" else image.quantize(4)
    image.save(tmp_path / "image.png")
    opaque, clear = values(tmp_path / "image.png")[0]
    assert np.array_equal(clear, [255, 255, 255])
    if mode == "LA":
        assert len(set(opaque.tolist())) == 1
    else:
        assert np.abs(opaque.astype(int) - [200, 100, 50]).max() <= 2
    four = decode(tmp_path / "image.png", PixelFormat(channels=4))
    assert four[3].flatten().tolist() == [255, 0]


def test_half_transparency_is_blended(tmp_path):
    Image.new("RGBA", (1, 1), (0, 100, 200, 51)).save(tmp_path / "glass.png")
    assert values(tmp_path / "glass.png").flatten().tolist() == [204, 224, 244]


def test_cmyk(tmp_path):
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "ink.jpg", quality=100)
    assert np.abs(values(tmp_path / "ink.jpg").astype(int) - [0, 255, 255]).max() <= 2
    Image.new("CMYK", (16, 16), (0, 0, 0, 255)).save(tmp_path / "ink.tif")
    assert (values(tmp_path / "ink.tif") == 0).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits(tmp_path, suffix):
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(np.array([[0, 0x1234, 0xFFFF]], dtype=np.uint16)).save(path)
    assert decode(path, GREY).flatten().tolist() == [0, 0x12, 0xFF], "beside 8 bits, the high byte"
    assert np.allclose(decode(path, floats(1)).flatten(), [0, 0x1234 / 0xFFFF, 1], atol=0)
    assert find_layout(find_images((str(path),))) == Layout(1, "float32")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_exif_turns_images_upright(tmp_path, orientation, suffix):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    corner = np.zeros((32, 48), dtype=np.uint8)
    corner[:16, :16] = 255
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(corner).save(tmp_path / f"turned.{suffix}", exif=exif, **options)
    with Image.open(tmp_path / f"turned.{suffix}") as image:
        image = ImageOps.exif_transpose(image)
        if suffix == "tif":  # Pillow turns these as it loads them, wrongly if it opens them by name
            image = Image.fromarray(corner)
            image = image.transpose(UPRIGHT[orientation]) if orientation > 1 else image
        expected = np.asarray(image.convert("L"))
    images = find_images((str(tmp_path),))
    with images.open(0) as picture:
        assert picture.size == expected.shape
    assert np.array_equal(values(images.paths[0], GREY)[..., 0], expected)


def save_bands(path, bands=BANDS, **options) -> None:
    tifffile.imwrite(path, bands, photometric="minisblack", **options)


@pytest.mark.parametrize("layout", ["planes", "interleaved", "pages", "first.npy", "last.npy"])
@pytest.mark.parametrize("count", [4, 10])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_bands(tmp_path, layout, count, dtype):
    bands = BANDS[:count].astype(dtype)
    path = tmp_path / (layout if layout.endswith("npy") else f"{layout}.tif")
    if layout == "planes":
        save_bands(path, bands, planarconfig="separate")
    elif layout == "interleaved":
        save_bands(path, np.moveaxis(bands, 0, -1), planarconfig="contig")
    elif layout == "pages":
        save_bands(path, bands)
    else:
        np.save(path, bands if layout == "first.npy" else np.moveaxis(bands, 0, -1))
    images = find_images((str(path),))
    layout_found = find_layout(images)
    assert layout_found == Layout(count, "uint8" if dtype == "uint8" else "float32")
    wanted = PixelFormat(channels=count, pixel_type=layout_found.pixel_type)
    scale = 1 if dtype == "uint8" else 65_535
    assert np.allclose(images.decode(0, wanted).numpy() * scale, bands, atol=1e-2)
    assert "10" in decode(path, COLOUR).reason if count == 10 else True


def test_numbers_of_other_types(tmp_path):
    sixteen = np.array([[0, 65_535]], dtype=np.uint16)
    np.save(tmp_path / "u16.npy", sixteen)
    assert decode(tmp_path / "u16.npy", floats(1)).flatten().tolist() == [0, 1]
    np.save(tmp_path / "f.npy", np.array([[-1.5, 7000.0]]))
    assert decode(tmp_path / "f.npy", floats(1)).flatten().tolist() == [-1.5, 7000]
    assert "no scale" in decode(tmp_path / "f.npy", GREY).reason
    np.save(tmp_path / "inf.npy", np.array([[1.0, np.inf]]))
    assert "infinite" in decode(tmp_path / "inf.npy", floats(1)).reason
    np.save(tmp_path / "bool.npy", np.array([[False, True]]))
    assert decode(tmp_path / "bool.npy", GREY).flatten().tolist() == [0, 255]
    Image.fromarray(GREY_PIXELS).save(tmp_path / "eight.png")
    assert np.allclose(values(tmp_path / "eight.png", floats(1))[..., 0], GREY_PIXELS / 255)


def test_the_asked_channels_say_which_axis_they_are(tmp_path):
    np.save(tmp_path / "wide.npy", BANDS[:, :4])  # 10 x 4 x 14
    assert decode(tmp_path / "wide.npy", PixelFormat(channels=10)).shape == (10, 4, 14)
    assert decode(tmp_path / "wide.npy", PixelFormat(channels=14)).shape == (14, 10, 4)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 5), (0, 4)])
def test_unknown_layouts_of_arrays(tmp_path, shape):
    np.save(tmp_path / "odd.npy", np.zeros(shape))
    assert "layout is unknown" in decode(tmp_path / "odd.npy", floats(1)).reason


def test_objects_in_arrays_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "objects" in decode(tmp_path / "objects.npy").reason


def test_bands_of_mixed_sizes(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as tiff:
        tiff.write(BANDS[0], photometric="minisblack", contiguous=False)
        tiff.write(BANDS[0, :6, :7], photometric="minisblack", contiguous=False)
    assert "mixed sizes" in decode(tmp_path / "mixed.tif").reason


def test_thumbnail_in_a_tiff_is_not_the_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "thumb.tif") as tiff:
        tiff.write(BANDS[0], photometric="minisblack", contiguous=False)
        tiff.write(BANDS[0, ::2, ::2], photometric="minisblack", contiguous=False, subfiletype=1)
    assert np.array_equal(values(tmp_path / "thumb.tif", GREY)[..., 0], BANDS[0])


def test_different_numbers_of_bands_in_one_folder(tmp_path):
    np.save(tmp_path / "ten.npy", BANDS)
    np.save(tmp_path / "four.npy", BANDS[:4])
    with pytest.raises(DataError, match=r"1 with 4, 1 with 10.*--data.channels"):
        find_layout(find_images((str(tmp_path),)))
    assert find_layout(find_images((str(tmp_path),)), channels=4).channels == 4


def dicom(path, pixels: np.ndarray, *, bits: int, signed=False, photometric="MONOCHROME2") -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = pixels.astype("<i2" if signed else "<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


def test_dicom(tmp_path):
    dicom(tmp_path / "a.dcm", np.array([[0, 1000, 4095]]), bits=12)
    assert find_layout(find_images((str(tmp_path),))) == Layout(1, "float32")
    got = decode(tmp_path / "a.dcm", floats(1)).flatten()
    assert np.allclose(got, [0, 1000 / 4095, 1], atol=1e-4)
    dicom(tmp_path / "b.dcm", np.array([[0, 4095]]), bits=12, photometric="MONOCHROME1")
    assert decode(tmp_path / "b.dcm", floats(1)).flatten().tolist() == [1, 0], "white is bright"
    dicom(tmp_path / "c.dcm", np.array([[-2048, 2047]]), bits=12, signed=True)
    assert decode(tmp_path / "c.dcm", floats(1)).flatten().tolist() == [0, 1]


def test_idx(tmp_path):
    array = RNG.integers(0, 256, (6, 4, 5), dtype=np.uint8)
    whole = struct.pack(">HBB3I", 0, 8, 3, *array.shape) + array.tobytes()
    for name, content in (
        ("train-images-idx3-ubyte.gz", gzip.compress(whole)),
        ("t10k-images-idx3-ubyte", whole),
    ):
        (tmp_path / name).write_bytes(content)
        images = idx_images(str(tmp_path / name))
        assert len(images) == 6
        assert np.array_equal(images.decode(4, GREY)[0], array[4])
    found = find_images((str(tmp_path),))
    assert found.paths[0].endswith("train-images-idx3-ubyte.gz#0"), "the training images of a folder"
    assert len(found.split(2)[1]) == 2
    (tmp_path / "short.idx3-ubyte").write_bytes(whole[:-1])
    with pytest.raises(DataError, match="119 values"):
        find_images((str(tmp_path / "short.idx3-ubyte"),))


BROKEN = {
    "zero.jpg": b"",
    "page.jpg": b"<html><body>404</body></html>",
    "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "array.npy": b"\x93NUMPY",
    "bands.tif": b"II*\x00\x08",
    "scan.dcm": b"no DICOM",
}


@pytest.mark.parametrize("name", [*BROKEN, "truncated.jpg", "broken.png", "gone.png"])
def test_17_broken_files_are_bad_images(tmp_path, photos, name):
    path = tmp_path / name
    if name in BROKEN:
        path.write_bytes(BROKEN[name])
    elif name != "gone.png":
        whole = next(photos.rglob(f"*.{name[-3:]}")).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    assert isinstance(decode(path), BadImage)


def test_17_animated_images_show_their_first_frame(tmp_path):
    frames = [Image.fromarray(COLOUR_PIXELS), Image.new("RGB", (7, 5))]
    for suffix in ("png", "webp"):
        options = {"lossless": True} if suffix == "webp" else {}
        path = tmp_path / f"moving.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(values(path), COLOUR_PIXELS)


def test_18_bomb_is_refused_by_its_header(tmp_path):
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    bad = decode(tmp_path / "bomb.png")
    assert isinstance(bad, BadImage)
    assert "30000 x 30000 pixels are over --data.max-megapixels" in bad.reason


def test_20_passing_errors_of_the_storage_are_tried_again(tmp_path, photos, monkeypatch):
    import unmask.data.images as module

    monkeypatch.setattr(module, "SECONDS_BETWEEN_TRIES", (0.0, 0.0))
    path = next(photos.rglob("*.png"))
    calls = []

    def shaky(name, reading, failures):
        calls.append(name)
        if len(calls) <= failures:
            raise OSError(errno.EIO, "Input/output error")
        return module.open_file(name, reading)

    images = Images("shaky", PathList([str(path)]), opener=lambda n, c: shaky(n, c, failures=2))
    assert not isinstance(images.decode(0, COLOUR), BadImage)
    calls.clear()
    images = Images("gone", PathList([str(path)]), opener=lambda n, c: shaky(n, c, failures=99))
    assert "Input/output" in images.decode(0, COLOUR).reason
    assert len(calls) == 3


def test_a_messy_folder_is_decoded_or_listed(tmp_path, photos):
    good = {
        "rgb.png": Image.fromarray(COLOUR_PIXELS),
        "grey.bmp": Image.fromarray(GREY_PIXELS),
        "palette.png": Image.fromarray(COLOUR_PIXELS).quantize(8),
        "alpha.webp": Image.new("RGBA", (3, 2)),
        "ink.jpg": Image.new("CMYK", (20, 20)),
        "one.png": Image.new("RGB", (1, 1)),
        "long.png": Image.new("L", (20_000, 1)),
        "bits.tif": Image.new("1", (9, 9)),
    }
    for name, image in good.items():
        image.save(tmp_path / name)
    for name, content in BROKEN.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "bands.npy", BANDS)
    images = find_images((str(tmp_path),))
    found = inspect(images, COLOUR)
    assert found.images == len(images) == len(good) + len(BROKEN) + 1
    assert sorted(b.path.rsplit("/", 1)[1] for b in found.bad) == sorted([*BROKEN, "bands.npy"])
    assert not any("<_io" in b.reason for b in found.bad), "no Python objects"
    assert found.smallest == (1, 1)


def test_large_jpeg_is_decoded_no_larger_than_its_crop_needs(tmp_path):
    y, x = np.mgrid[0:800, 0:1200] / 90.0
    smooth = np.uint8(127 + 100 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1))
    Image.fromarray(smooth).save(tmp_path / "large.jpg", quality=95)
    Image.fromarray(smooth).save(tmp_path / "large.png")
    for box, decoded in (((0, 0, 800, 1200), (100, 150)), ((100, 200, 300, 300), (400, 600))):
        with find_images((str(tmp_path / "large.jpg"),)).open(0) as picture:
            small = picture.pixels(COLOUR, max(96 / box[2], 96 / box[3]))
            assert small.shape[1:] == decoded
        crops = []
        for name in ("large.jpg", "large.png"):
            with find_images((str(tmp_path / name),)).open(0) as picture:
                assert may_be_kept(picture, (96, 96)) is name.endswith("png")
                crops.append(crop_box(picture, COLOUR, box, (96, 96)).float())
        assert (crops[0] - crops[1]).abs().mean() < 2
    assert may_be_kept(DecodedPicture(torch.zeros(3, 800, 1200)), (96, 96))
