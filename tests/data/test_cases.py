"""Files as their makers mean them: each kind that was once read wrongly, with its right values."""

import io
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from data.makers import (
    GREY_ALPHA,
    RGB,
    RGBA,
    chunk,
    reason,
    values,
    write_bmp32,
    write_dicom,
    write_png,
)
from unmask.config.image import PixelFormat
from unmask.data.decode.files import open_file
from unmask.data.decode.reading import Reading
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.sources.find import find_images
from unmask.data.statistics import Layout, find_layout
from unmask.data.transforms import crop_box

RNG = np.random.default_rng(5)
SMALL = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65_536, (9, 7, 3), dtype=np.uint16)


def layout(*paths, **asked) -> Layout:
    return find_layout(Images("test", PathList(map(str, paths))), **asked)


def notes(path, **reading) -> str:
    with open_file(str(path), Reading(**reading)) as picture:
        return " ".join(picture.notes)


# Samples of more than 8 bits.


@pytest.mark.parametrize("kind", ["png", "tif", "deflate.tif", "lzw.tif", "planes.tif", "tiled.tif"])
def test_16_bit_colour_keeps_its_bits(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        write_png(path, DEEP, RGB)
    elif kind == "planes.tif":
        planes = np.moveaxis(DEEP, -1, 0)
        tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    else:
        options = {"deflate.tif": {"compression": "deflate", "predictor": True}}
        options |= {"lzw.tif": {"compression": "lzw"}, "tiled.tif": {"tile": (16, 16)}}
        tifffile.imwrite(path, DEEP, photometric="rgb", **options.get(kind, {}))
    assert layout(path) == Layout(3, "float32")
    assert np.abs(values(path) * 65_535 - DEEP).max() < 0.01
    assert np.array_equal(values(path, pixel_type="uint8"), DEEP >> 8), "beside 8 bits, the high byte"


def test_16_bit_alpha_in_png_shows_white_behind(tmp_path):
    alpha = RNG.integers(0, 65_536, (9, 7, 1), dtype=np.uint16)
    share = alpha / 65_535
    write_png(tmp_path / "rgba.png", np.concatenate([DEEP, alpha], -1), RGBA)
    expected = DEEP / 65_535 * share + (1 - share)
    assert np.abs(values(tmp_path / "rgba.png") - expected).max() < 1e-5
    write_png(tmp_path / "grey.png", np.concatenate([DEEP[..., :1], alpha], -1), GREY_ALPHA)
    assert layout(tmp_path / "grey.png") == Layout(1, "float32"), "grey stays grey"
    assert np.abs(values(tmp_path / "grey.png", 1) - expected[..., :1]).max() < 1e-5
    four = values(tmp_path / "grey.png", 4) * 65_535
    assert np.abs(four - np.concatenate([DEEP[..., :1].repeat(3, -1), alpha], -1)).max() < 0.01


def test_one_transparent_colour_of_16_bits(tmp_path):
    key = b"".join(int(value).to_bytes(2) for value in DEEP[0, 0])
    write_png(tmp_path / "a.png", DEEP, RGB, before=chunk(b"tRNS", key))
    got = values(tmp_path / "a.png")
    assert got[0, 0].tolist() == [1, 1, 1]
    assert np.abs(got[1:] - DEEP[1:] / 65_535).max() < 1e-5


def test_16_bit_png_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    write_png(tmp_path / "a.png", DEEP, RGB, before=chunk(b"eXIf", data))
    assert np.abs(values(tmp_path / "a.png") * 65_535 - np.rot90(DEEP, -1)).max() < 0.01


def test_12_bit_camera(tmp_path):
    camera = RNG.integers(0, 4096, (16, 16, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", camera, photometric="rgb")
    assert len(np.unique(values(tmp_path / "a.tif"))) == len(np.unique(camera))


def test_one_deep_image_changes_no_picture_of_the_others(tmp_path):
    Image.fromarray(SMALL).save(tmp_path / "a.png")
    write_png(tmp_path / "b.png", DEEP, RGB)
    both = layout(tmp_path / "a.png", tmp_path / "b.png")
    assert both == Layout(3, "float32")
    assert both.eight_bits
    assert not layout(tmp_path / "b.png").eight_bits
    assert np.abs(values(tmp_path / "a.png") * 255 - SMALL).max() < 1e-4, "on one scale"


# A band is a band.


def test_alpha_of_a_tiff_is_composed_in_uint8_alone_and_said(tmp_path):
    tile = np.full((16, 16, 4), (30, 60, 20, 0), np.uint8)
    tile[..., 3] = np.arange(16) * 12
    path = tmp_path / "nir.tif"
    tifffile.imwrite(path, tile, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(values(path, 4, "uint8"), tile)
    assert layout(path).channels == 3
    assert "1 of 1 images measured: its alpha is laid over white" in layout(path).notes[0]
    assert not layout(path, channels=4).notes


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_a_fourth_sample_of_other_types_is_a_band(tmp_path, dtype):
    tile = np.stack([np.full((24, 24), v, dtype) for v in (900, 1200, 700, 3000)], -1)
    tifffile.imwrite(tmp_path / "a.tif", tile, photometric="rgb", extrasamples=["unassalpha"])
    assert layout(tmp_path / "a.tif") == Layout(4, "float32")
    scale = 65_535 if dtype == "uint16" else 1
    assert np.allclose(values(tmp_path / "a.tif", 4) * scale, tile, rtol=1e-6)
    assert "4 channels and 3 are wanted" in reason(tmp_path / "a.tif", 3)


# Empty alpha hides nothing.


@pytest.mark.parametrize("kind", ["bmp", "png", "webp", "16-bit.png"])
def test_alpha_that_is_empty_hides_nothing(tmp_path, kind):
    path, clear = tmp_path / f"a.{kind}", np.zeros((9, 7, 1), np.uint8)
    if kind == "bmp":
        write_bmp32(path, np.concatenate([SMALL, clear], -1))
    elif kind == "16-bit.png":
        write_png(path, np.concatenate([SMALL, clear], -1).astype(np.uint16) * 257, RGBA)
    else:
        options = {"lossless": True, "exact": True} if kind == "webp" else {}
        Image.fromarray(np.concatenate([SMALL, clear], -1)).save(path, **options)
    assert np.array_equal(values(path, pixel_type="uint8"), SMALL)


def test_a_clear_part_of_an_image_stays_white(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[0, 0, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    with open_file(str(tmp_path / "a.png")) as picture:
        part = crop_box(picture, PixelFormat(channels=3), (4, 4, 4, 4), (4, 4))
    assert part.eq(255).all()


# Masks, thumbnails and pages.


def test_a_mask_is_no_band(tmp_path):
    for name, array, kind in (("rgb", SMALL, "rgb"), ("grey", SMALL[..., 0], "minisblack")):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as tiff:
            options = {"contiguous": False, "metadata": None}
            tiff.write(array, photometric=kind, **options)
            tiff.write(np.ones((9, 7), bool), photometric=4, subfiletype=4, **options)
            tiff.write(array, photometric=kind, subfiletype=1, **options)
    assert np.array_equal(values(tmp_path / "rgb.tif", 3, "uint8"), SMALL)
    assert not notes(tmp_path / "rgb.tif")
    assert np.array_equal(values(tmp_path / "grey.tif", 1, "uint8"), SMALL[..., :1])


def test_bands_beside_a_mask(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        options = {"contiguous": False, "metadata": None, "photometric": "minisblack"}
        for band in range(3):
            tiff.write(DEEP[..., band], **options)
        tiff.write(DEEP[..., 0], subfiletype=1, **options)
    assert np.abs(values(tmp_path / "a.tif") * 65_535 - DEEP).max() < 0.01


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("sizes", ["one size", "mixed"])
def test_of_pages_of_colour_the_first_is_read_and_said(tmp_path, dtype, sizes):
    first = (SMALL if dtype == "uint8" else DEEP).astype(dtype)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in (first, first[::-1], first if sizes == "one size" else first[:4]):
            tiff.write(page, photometric="rgb", contiguous=False, metadata=None)
    scale = 1 if dtype == "uint8" else 65_535
    got = values(tmp_path / "a.tif", 3, "uint8" if dtype == "uint8" else "float32") * scale
    assert np.allclose(got, first, atol=0.01)
    assert "of its 3 pages the first is read" in notes(tmp_path / "a.tif")


# Sample formats, photometric interpretations and colour maps.


def test_types_of_samples(tmp_path):
    for array in (np.int8([[-128, -1, 0, 127]]), np.uint32([[0, 3_000_000_000]]), np.int16([[-5, 9]])):
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
        assert layout(tmp_path / "a.tif") == Layout(1, "float32")
        assert values(tmp_path / "a.tif", 1).flatten().tolist() == array.flatten().tolist()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "uint32"])
def test_white_is_zero(tmp_path, dtype):
    most = 1 if dtype == "bool" else np.iinfo(dtype).max
    array = np.array([[0, most], [most, 0]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    scale = most if dtype == "uint32" else 1
    assert (values(tmp_path / "a.tif", 1)[..., 0] / scale).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("full", [255, 65_535])
def test_colour_maps_of_8_and_16_bits(tmp_path, full):
    colours = RNG.integers(0, 256, (3, 256), dtype=np.uint16)
    index = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
    stored = colours if full == 255 else colours * 257
    tifffile.imwrite(tmp_path / "a.tif", index, photometric="palette", colormap=stored)
    assert np.array_equal(values(tmp_path / "a.tif", 3, "uint8"), np.moveaxis(colours[:, index], 0, -1))


def test_inks_of_16_bits(tmp_path):
    inks = np.uint16([[[65_535, 0, 0, 0], [0, 0, 0, 65_535], [0, 0, 0, 0]]])
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    assert values(tmp_path / "a.tif")[0].tolist() == [[0, 1, 1], [0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_are_turned_upright(tmp_path, orientation):
    """As Pillow turns eight bits."""
    from unmask.data.decode.pillow import UPRIGHT

    bands, tag = DEEP, [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="rgb", extratags=tag)
    expected = [Image.fromarray((bands[..., c] >> 8).astype(np.uint8)) for c in range(3)]
    turned = [e.transpose(UPRIGHT[orientation]) if orientation > 1 else e for e in expected]
    assert np.array_equal(values(tmp_path / "a.tif", 3, "uint8"), np.dstack(turned))


# Damaged metadata costs no image.


def test_damaged_metadata_cost_no_image(tmp_path, capfd):
    large = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * (2 << 20)))
    broken = chunk(b"tEXt", b"k\0v")[:-1] + b"?"
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(b"x" * (2 << 20)))
    for i, (before, behind) in enumerate(
        [(large, b""), (b"", large), (broken, b""), (profile, b""), (b"", broken)]
    ):
        write_png(tmp_path / f"{i}.png", SMALL, RGB, before, behind)
        assert np.array_equal(values(tmp_path / f"{i}.png", 3, "uint8"), SMALL), i
    write_png(tmp_path / "16.png", DEEP, RGB, before=large, behind=broken)
    assert np.abs(values(tmp_path / "16.png") * 65_535 - DEEP).max() < 0.01
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe1\0\x10Exif\0\0garbage!",
        b"\xff\xe1\0\x12Exif\0\0II*\0\xff\xff\xff\xff",
        b"\xff\xe1\0\x1cExif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\xff\xff\xff\xff",
        b"\xff\xe2\0\x0eICC_PROFILE\0",
        b"\xff\xe2\0\x10ICC_PROFILE\0\x09\x09",
        b"\xff\xed\0\x08Photos",
        b"\xff\xe2\0\x0cMPF\0garbag",
    ],
)
def test_damaged_segments_of_jpeg_cost_no_image(tmp_path, segment, capfd):
    stream = io.BytesIO()
    Image.fromarray(SMALL).resize((32, 32)).save(stream, "JPEG")
    whole = stream.getvalue()
    (tmp_path / "a.jpg").write_bytes(whole[:2] + segment + whole[2:])
    (tmp_path / "b.jpg").write_bytes(whole)
    got = values(tmp_path / "a.jpg", 3, "uint8")
    assert np.array_equal(got, values(tmp_path / "b.jpg", 3, "uint8"))
    assert layout(tmp_path / "a.jpg") == Layout(3, "uint8")
    assert capfd.readouterr() == ("", "")


def test_a_tiff_by_any_name(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.tif").read_bytes())
    Image.fromarray(SMALL).save(tmp_path / "b.png")
    (tmp_path / "b.tif").write_bytes((tmp_path / "b.png").read_bytes())
    assert np.abs(values(tmp_path / "a.png") * 65_535 - DEEP).max() < 0.01
    assert np.array_equal(values(tmp_path / "b.tif", 3, "uint8"), SMALL)


# DICOM.


def test_colours_of_dicom_are_converted_once(tmp_path):
    pytest.importorskip("pydicom")
    from pydicom.pixels import convert_color_space

    colour = (200, 40, 30)
    flat = np.full((32, 32, 3), colour, np.uint8)
    for name, sampling, tag in (("422", 1, "YBR_FULL_422"), ("444", 0, "YBR_FULL"), ("rgb", 0, "RGB")):
        stream = io.BytesIO()
        Image.fromarray(flat).save(stream, "JPEG", quality=95, subsampling=sampling)
        write_dicom(tmp_path / f"{name}.dcm", flat, photometric=tag, jpeg=stream.getvalue())
    raw = convert_color_space(flat, "RGB", "YBR_FULL")
    write_dicom(tmp_path / "raw.dcm", raw, photometric="YBR_FULL")
    for path in tmp_path.iterdir():
        assert np.abs(values(path, 3, "uint8").astype(int) - colour).max() <= 4, path.name


@pytest.mark.parametrize("deep", [False, True])
def test_palettes_of_dicom_are_colours(tmp_path, deep):
    ramp = np.arange(256, dtype=np.uint16)
    red, blue = (ramp * 257, (255 - ramp) * 257) if not deep else (ramp * 200 + 3, (255 - ramp) * 201)
    tags = {}
    for name, entries in (("Red", red), ("Green", ramp * 0), ("Blue", blue)):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = entries.astype("<u2").tobytes()
    index = np.tile(np.uint8([[0, 128, 255]]), (9, 4))
    write_dicom(tmp_path / "a.dcm", index, bits=8, photometric="PALETTE COLOR", **tags)
    assert layout(tmp_path / "a.dcm") == Layout(3, "float32" if deep else "uint8")
    expected = np.stack([red, ramp * 0, blue], -1)[index] / 65_535
    assert np.abs(values(tmp_path / "a.dcm") - expected).max() < 1e-6


def test_dicom_values_are_in_their_units(tmp_path):
    body = RNG.integers(-1000, 1500, (16, 16)).astype(np.int16)
    write_dicom(tmp_path / "a.dcm", body, bits=16, RescaleSlope=1, RescaleIntercept=0)
    shifted = (body + 1024).astype(np.uint16)
    write_dicom(tmp_path / "b.dcm", shifted, bits=16, RescaleSlope=1, RescaleIntercept=-1024)
    doubled = (body * 2 + 3000).astype(np.uint16)
    write_dicom(tmp_path / "c.dcm", doubled, bits=16, RescaleSlope=0.5, RescaleIntercept=-1500)
    for name in "abc":
        assert np.array_equal(values(tmp_path / f"{name}.dcm", 1)[..., 0], body), name
    stored = values(tmp_path / "b.dcm", 1, rescale=False)[..., 0]
    assert np.abs(stored * 65_535 - shifted).max() < 0.01
    write_dicom(tmp_path / "d.dcm", shifted, bits=16)
    with pytest.raises(ValueError, match=r"3 of the DICOM files have RescaleSlope.*1 have not.*rescale"):
        find_layout(find_images((str(tmp_path),)))
    for rescale in (True, False):
        assert layout(*tmp_path.iterdir(), rescale=rescale).pixel_type == "float32"
    assert np.array_equal(values(tmp_path / "d.dcm", 1, rescale=True)[..., 0], shifted)


def test_white_is_bright_unless_dark_has_a_unit(tmp_path):
    stored, tags = np.uint16([[0, 4095]]), {"RescaleSlope": 1, "RescaleIntercept": 0}
    write_dicom(tmp_path / "film.dcm", stored, photometric="MONOCHROME1", RescaleType="US", **tags)
    assert values(tmp_path / "film.dcm", 1).flatten().tolist() == [4095, 0]
    write_dicom(tmp_path / "body.dcm", stored, photometric="MONOCHROME1", Modality="CT", **tags)
    assert values(tmp_path / "body.dcm", 1).flatten().tolist() == [0, 4095]


def test_dicom_of_many_frames(tmp_path):
    frames = RNG.integers(0, 4096, (5, 8, 6)).astype(np.uint16)
    write_dicom(tmp_path / "a.dcm", frames)
    assert layout(tmp_path / "a.dcm") == Layout(1, "float32")
    assert np.allclose(values(tmp_path / "a.dcm", 1)[..., 0], frames[2] / 4095, atol=1e-4)
    assert "of its 5 frames the middle one is read (--data.axes CYX" in notes(tmp_path / "a.dcm")
    assert layout(tmp_path / "a.dcm", axes="CYX") == Layout(5, "float32")
    got = values(tmp_path / "a.dcm", 5, axes="CYX")
    assert np.allclose(got, np.moveaxis(frames, 0, -1) / 4095, atol=1e-4)


def test_dicom_by_any_name_and_without_its_first_part(tmp_path):
    pixels = RNG.integers(0, 4096, (16, 16)).astype(np.uint16)
    for name in ("x.dcm", "y.IMA", "IM000001", "z.dicom"):
        write_dicom(tmp_path / name, pixels)
    write_dicom(tmp_path / "bare.dcm", pixels, meta=False)
    images = find_images((str(tmp_path),))
    assert len(images) == 5
    for i in range(5):
        got = images.decode(i, PixelFormat(channels=1, pixel_type="float32"))
        assert isinstance(got, torch.Tensor), got
        assert np.allclose(got[0], pixels / 4095, atol=1e-4)


def test_dicom_without_an_image(tmp_path):
    import pydicom

    d = pydicom.Dataset()
    d.PatientName = "None"
    d.save_as(tmp_path / "a.dcm", implicit_vr=True, little_endian=True)
    assert "no image" in reason(tmp_path / "a.dcm")
