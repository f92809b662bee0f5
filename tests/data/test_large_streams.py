"""Compressed streams in TIFF and DICOM files: as large as the file says, or refused."""

import itertools
import struct
import zlib
from functools import partial

import imagecodecs as ic
import numpy as np
import pytest
import tifffile

from data.makers import reason, values, write_dicom
from unmask.data.decode import dicom_frames, pictures, tiff_streams
from unmask.data.decode.stream_sizes import StreamSize, stream_size
from unmask.data.decode.tiff_streams import JPEG, LERC, WITH_HEADERS

SOF, SIZ = b"\xff\xc0\0\x0b", b"\xff\x4f\xff\x51"
J2K, JPEG_LOSSLESS, RLE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.5"
MPEG_4 = "1.2.840.10008.1.2.4.102"
WHOLE = 42113, "s", 0, "-1", True
"""A tag of GDAL's, with which Pillow does not read the file."""
ENCODERS = {
    "jpeg": ic.jpeg8_encode,
    "lossless jpeg": ic.ljpeg_encode,
    "jpeg-ls": ic.jpegls_encode,
    "jpeg 2000": partial(ic.jpeg2k_encode, codecformat="j2k", reversible=True),
    "jpeg 2000 in boxes": partial(ic.jpeg2k_encode, codecformat="jp2", reversible=True),
    "jpeg 2000 of high throughput": ic.htj2k_encode,
    "jpeg xr": ic.jpegxr_encode,
    "jpeg xl": partial(ic.jpegxl_encode, lossless=True),
    "jpeg xl in boxes": partial(ic.jpegxl_encode, usecontainer=True, lossless=True),
    "webp": ic.webp_encode,
    "lossless webp": partial(ic.webp_encode, lossless=True),
    "lerc": ic.lerc_encode,
    "png": ic.png_encode,
}
WITHOUT_CHANNELS = ("jpeg xr", "jpeg xl", "jpeg xl in boxes")
"""Their number is not read, or that beside colours."""
GREY_ONLY, COLOUR_ONLY = ("jpeg-ls", "lossless jpeg"), ("webp", "lossless webp")


def gradient(*shape: int) -> np.ndarray:
    """Even, so that nothing changes it much."""
    return (np.arange(np.prod(shape[:2])).reshape(*shape[:2], *[1] * len(shape[2:])) // 9).astype(
        np.uint8
    ) + np.zeros(shape, np.uint8)


def can_write(kind: str, channels: int) -> bool:
    """Whether there are such streams, and an encoder makes them."""
    if kind in GREY_ONLY or kind in COLOUR_ONLY:
        return (channels == 1) == (kind in GREY_ONLY)
    return channels < 4 or "jpeg" not in kind or kind == "jpeg xl"


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (kind, shape)
        for kind in ENCODERS
        for shape in [(37, 91), (37, 91, 3), (37, 91, 4), (64, 128), (1024, 3)]
        if can_write(kind, shape[2] if len(shape) == 3 else 1)
    ],
)
def test_sizes_that_encoders_write(kind, shape):
    size = stream_size(ENCODERS[kind](gradient(*shape)))
    channels = 1 if kind in WITHOUT_CHANNELS or len(shape) == 2 else shape[2]
    assert size == StreamSize(*shape[:2], channels)


def test_sizes_that_are_written_otherwise():
    """Alpha, films, junk between markers, a JPEG with two sizes, and streams that are cut short."""
    alpha = gradient(20, 30, 4)
    alpha[..., 3] = 9
    for lossless in (True, False):
        assert stream_size(ic.webp_encode(alpha, lossless=lossless)) == (20, 30, 4)
    film = ic.jpegxl_encode(np.zeros((5, 64, 64, 3), np.uint8), effort=1)
    with pytest.raises(ValueError, match="its JPEG XL stream is a film"):
        stream_size(film)
    jpeg = ic.jpeg8_encode(gradient(20, 30))
    at = jpeg.index(SOF)
    larger = SOF + b"\x08" + struct.pack(">HH", 999, 999) + jpeg[at + 9 : at + 13]
    assert stream_size(jpeg[:at] + b"junk\xff\xff" + jpeg[at:]) == (20, 30, 1)
    assert stream_size(jpeg[:at] + larger + jpeg[at:]) == (999, 999, 1)
    assert stream_size(jpeg[: at + 6]) is None
    assert stream_size(b"II*\0") is None
    bands = ic.lerc_encode(gradient(20, 30)) * 3
    assert stream_size(bands) == (20, 30, 3)
    assert stream_size(b"RIFF\0\0\0\0WEBPJUNK" + bytes(30)) is None


def write_tiff(path, compression, image, *, tile=None, rows=None, stream=None, **options):
    """As tifffile writes it; with `stream` in place of the first strip or tile."""
    options = {"photometric": "rgb" if image.ndim == 3 else "minisblack", **options}
    how = {"tile": tile} if tile else {"rowsperstrip": rows or len(image)}
    written = compression if stream is None else 8
    tifffile.imwrite(
        path, image, compression=written, extratags=[WHOLE], metadata=None, **how, **options
    )
    if stream is None:
        return
    with tifffile.TiffFile(path, mode="r+") as file:
        tags, name = file.pages[0].tags, "Tile" if tile else "Strip"
        at = file.filehandle.seek(0, 2)
        file.filehandle.write(stream)
        tags["Compression"].overwrite(compression)
        offsets, counts = tags[f"{name}Offsets"], tags[f"{name}ByteCounts"]
        offsets.overwrite([at, *offsets.value[1:]])
        counts.overwrite([len(stream), *counts.value[1:]])


CODECS = {
    **dict.fromkeys(JPEG - {34892}, "jpeg"),
    34892: "lossless jpeg",
    **dict.fromkeys((22610, 34934), "jpeg xr"),
    **dict.fromkeys((33003, 33005, 34712), "jpeg 2000"),
    33004: "jpeg 2000 in boxes",
    50002: "jpeg xl",
    52546: "jpeg xl in boxes",
    **dict.fromkeys((34927, 50001), "webp"),
    LERC: "lerc",
    34933: "png",
}


@pytest.mark.parametrize("tile", [(64, 64), None], ids=["tile", "strip"])
@pytest.mark.parametrize("compression", CODECS)
def test_18_a_stream_of_a_tiff_that_is_larger_than_its_strip_or_tile(tmp_path, compression, tile):
    """The same file with a stream of the right size is read."""
    assert set(CODECS) == WITH_HEADERS
    kind = CODECS[compression]
    shape = (64, 64, 3) if kind in COLOUR_ONLY else (64, 64)
    large = gradient(1100, 1200, *shape[2:])
    for image in (large[:64, :64], large):
        write_tiff(
            tmp_path / "a.tif", compression, large[:64, :64], tile=tile, stream=ENCODERS[kind](image)
        )
        if image is not large:
            shown = values(tmp_path / "a.tif", channels=3 if len(shape) == 3 else 1)
            assert shown.shape[:2] == (64, 64)
    unit, channels = "tile" if tile else "strip", 3 if kind in COLOUR_ONLY else 1
    said = f"a {unit} of it is 1100 x 1200 x {channels} by the header of its own compressed stream, and"
    found = reason(tmp_path / "a.tif", channels=channels)
    assert f"{said} {' x '.join(map(str, shape))} by the file's" in found


@pytest.mark.parametrize("tile", [(64, 48), None], ids=["tiles", "strips"])
@pytest.mark.parametrize(
    ("compression", "shape"),
    [
        ("webp", (150, 100, 3)),  # which has no grey images
        *itertools.product(
            ["jpeg", "jpeg2000", "jpegxl", "jpegxr", "lerc", "png"], [(150, 100), (150, 100, 3)]
        ),
    ],
)
def test_tiffs_with_streams_of_their_own_are_read_as_before(tmp_path, compression, shape, tile):
    image = gradient(*shape)
    write_tiff(tmp_path / "a.tif", compression, image, tile=tile, rows=32)
    channels = 3 if len(shape) == 3 else 1
    shown = values(tmp_path / "a.tif", channels=channels, pixel_type="uint8")
    assert np.array_equal(shown, tifffile.imread(tmp_path / "a.tif").reshape(shown.shape))


def test_tiffs_whose_streams_have_long_headers_or_rows_too_many(tmp_path):
    """As cameras and some scanners write them."""
    image = gradient(60, 64)
    jpeg = ic.jpeg8_encode(gradient(64, 64))
    note = b"\xff\xfe" + struct.pack(">H", 5002) + bytes(5000)
    write_tiff(tmp_path / "a.tif", 7, image, stream=jpeg[:2] + note + jpeg[2:])
    shown = values(tmp_path / "a.tif", channels=1, pixel_type="uint8")
    assert np.abs(shown[..., 0].astype(int) - image).max() < 9
    large = ic.jpeg8_encode(gradient(1100, 1200))
    write_tiff(tmp_path / "a.tif", 7, image, stream=large[:2] + note + large[2:])
    assert "a strip of it is 1100 x 1200 x 1" in reason(tmp_path / "a.tif", channels=1)


def size_behind(marker: int, height: int, width: int) -> bytes:
    """A header of JPEG for a grey image."""
    return struct.pack(">BBHBHHB3B", 0xFF, marker, 11, 8, height, width, 1, 1, 17, 0)


def divided(box: bytes) -> bytes:
    """A JPEG XL file in parts, the first of three bytes and the second far behind it."""
    at = box.index(b"\xff\x0a")
    stream, parts = box[at:], b""
    for number, part in enumerate((stream[:3], stream[3:])):
        last = struct.pack(">I", number | number << 31)
        parts += struct.pack(">I", len(part) + 12) + b"jxlp" + last + part
        parts += b"" if number else struct.pack(">I", 5008) + b"free" + bytes(5000)
    return box[: at - 8] + parts


def test_18_sizes_that_a_stream_of_a_tiff_says_far_behind(tmp_path):
    """Behind one that fits, or behind the first part."""
    jpeg, box = (ENCODERS[kind](gradient(1100, 1200)) for kind in ("jpeg", "jpeg xl in boxes"))
    note = b"\xff\xfe" + struct.pack(">H", 5002) + bytes(5000)
    for compression, stream in (
        (7, jpeg[:2] + size_behind(0xC5, 64, 64) + note + jpeg[2:]),
        (7, jpeg[:2] + note + size_behind(0xDE, 1100, 1200) + size_behind(0xC0, 64, 64) + jpeg[-2:]),
        (52546, divided(box)),
    ):
        write_tiff(tmp_path / "a.tif", compression, gradient(64, 64), tile=(64, 64), stream=stream)
        assert "a tile of it is 1100 x 1200 x 1" in reason(tmp_path / "a.tif", channels=1)
    xr = ENCODERS["jpeg xr"](gradient(1100, 1200))
    at = xr.index(b"WMPHOTO")
    pixels, small = xr.index(struct.pack("<HHI", 0xBCC0, 4, 1)) + 8, struct.pack("<I", 64)
    moved = bytearray(xr[:at] + bytes(5000) + xr[at:])
    moved[pixels : pixels + 4] = struct.pack("<I", at + 5000)
    for tag in (0xBC80, 0xBC81):
        value = xr.index(struct.pack("<HHI", tag, 4, 1)) + 8
        moved[value : value + 4] = small
    write_tiff(tmp_path / "a.tif", 22610, gradient(64, 64), tile=(64, 64), stream=bytes(moved))
    assert "a tile of it is 1100 x 1200 x 1" in reason(tmp_path / "a.tif", channels=1)


def test_18_streams_that_say_a_size_of_0(tmp_path):
    """Whose decoders look for it elsewhere: behind the pixels, or in an extension."""
    for stream in (
        b"\xff\xd8" + size_behind(0xC0, 0, 64) + b"\xff\xda",
        b"\xff\xd8" + size_behind(0xC0, 0, 64) + size_behind(0xC0, 64, 64) + b"\xff\xda",
        b"\xff\xd8" + size_behind(0xF7, 0, 0) + b"\xff\xda",
    ):
        write_tiff(tmp_path / "a.tif", 7, gradient(64, 64), stream=stream)
        said = "is 0 x 0 x 1" if b"\xf7" in stream else "is 0 x 64 x 1"
        assert f"a strip of it {said} by the header" in reason(tmp_path / "a.tif", channels=1)
        write_frames(tmp_path / "a.dcm", gradient(1, 64, 64), lambda _, stream=stream: stream)
        assert f"a frame of it {said} by the header" in reason(tmp_path / "a.dcm", channels=1)


AROUND_LERC = {"zstd": ic.zstd_encode, "deflate": zlib.compress}


@pytest.mark.parametrize("around", AROUND_LERC)
def test_18_lerc_with_a_compression_around_it(tmp_path, monkeypatch, around):
    """Read as before; refused if it or what is inside is too large, or it is broken."""
    image = gradient(150, 100)
    write_tiff(tmp_path / "a.tif", "lerc", image, rows=32, compressionargs={"compression": around})
    shown = values(tmp_path / "a.tif", channels=1, pixel_type="uint8")
    assert np.array_equal(shown[..., 0], image)
    small, pack = gradient(64, 64), AROUND_LERC[around]
    for stream in (pack(ic.lerc_encode(gradient(1100, 1200))), pack(ic.lerc_encode(small) * 500)):
        write_tiff(tmp_path / "a.tif", LERC, small, stream=stream)
        assert "by the header of its own" in reason(tmp_path / "a.tif", channels=1)
    monkeypatch.setattr(tiff_streams, "BESIDE_PIXELS", 2**12)
    lerc = ic.lerc_encode(small)
    for stream in (pack(lerc + bytes(2**20)), pack(lerc)[:-9], pack(lerc)[:5] + bytes(99)):
        write_tiff(tmp_path / "a.tif", LERC, small, stream=stream)
        said = "a strip of it is broken, or takes more than 12 KiB unpacked: save it again"
        assert said in reason(tmp_path / "a.tif", channels=1)


def test_18_tables_of_a_tiff_that_hold_a_size(tmp_path):
    """A decoder would take the first size that it finds."""
    small, large = (ic.jpeg8_encode(gradient(*shape)) for shape in ((64, 64), (1100, 1200)))
    image = gradient(64, 64)
    tables = 347, 7, len(large), large, True
    write_tiff(tmp_path / "a.tif", 7, image, stream=small, tile=(64, 64))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        (at,), (count,) = file.pages[0].dataoffsets, file.pages[0].databytecounts
    tifffile.imwrite(
        tmp_path / "b.tif", image, tile=(64, 64), compression=8, metadata=None, extratags=[WHOLE, tables]
    )
    assert at
    assert count == len(small)
    with tifffile.TiffFile(tmp_path / "b.tif", mode="r+") as file:
        tags, end = file.pages[0].tags, file.filehandle.seek(0, 2)
        file.filehandle.write(small)
        tags["Compression"].overwrite(7)
        tags["TileOffsets"].overwrite([end])
        tags["TileByteCounts"].overwrite([len(small)])
    assert "a tile of it is 1100 x 1200 x 1" in reason(tmp_path / "b.tif", channels=1)


def test_18_a_stream_without_a_header_in_a_tiff(tmp_path):
    """A decoder of WebP reads such, and there is no size to compare."""
    image = gradient(64, 64, 3)
    raw = ic.webp_encode(image)[20:]
    write_tiff(tmp_path / "a.tif", 50001, image, stream=raw)
    assert "a strip of it has no header of its compression" in reason(tmp_path / "a.tif")


def test_18_bands_that_jpeg_xl_keeps_as_a_film(tmp_path):
    """How many there are is not in its header; the refusal says what is read, and it is."""
    bands = gradient(40, 50, 6)
    options = {"compression": "jpegxl", "photometric": "minisblack", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", bands, planarconfig="contig", **options)
    found = reason(tmp_path / "a.tif", channels=6)
    assert 'save bands one after another (tifffile: planarconfig="separate"), or in another' in found
    tifffile.imwrite(tmp_path / "a.tif", bands.transpose(2, 0, 1), planarconfig="separate", **options)
    shown = values(tmp_path / "a.tif", channels=6, pixel_type="uint8")
    assert np.array_equal(shown, bands)
    options["compression"] = "zlib"
    tifffile.imwrite(tmp_path / "a.tif", bands, planarconfig="contig", **options)
    assert np.array_equal(values(tmp_path / "a.tif", channels=6, pixel_type="uint8"), bands)


def test_18_other_pages_of_a_tiff_are_looked_at_too(tmp_path):
    pages = np.stack([gradient(64, 64)] * 3)
    tifffile.imwrite(
        tmp_path / "a.tif", pages, photometric="minisblack", compression="jpeg", metadata=None
    )
    assert values(tmp_path / "a.tif", channels=3).shape == (64, 64, 3)
    large = ic.jpeg8_encode(gradient(1100, 1200))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        end = file.filehandle.seek(0, 2)
        file.filehandle.write(large)
        file.pages[2].tags["StripOffsets"].overwrite([end])
        file.pages[2].tags["StripByteCounts"].overwrite([len(large)])
    assert "a strip of it is 1100 x 1200 x 1" in reason(tmp_path / "a.tif", channels=3)


def write_frames(path, frames, encode=None, syntax=J2K, *, parts=1, table="basic", **tags):
    """A DICOM file of compressed frames, in `parts` each."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom import encaps

    write_dicom(path, np.asarray(frames), bits=8, **tags)
    d = pydicom.dcmread(path)
    encode = encode or ENCODERS["jpeg 2000"]
    streams = [encode(frame) for frame in frames]
    if table == "extended":
        d.PixelData, d.ExtendedOffsetTable, d.ExtendedOffsetTableLengths = encaps.encapsulate_extended(
            streams
        )
    else:
        d.PixelData = encaps.encapsulate(streams, fragments_per_frame=parts, has_bot=table == "basic")
    d["PixelData"].VR, d["PixelData"].is_undefined_length = "OB", True
    d.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    d.save_as(path)


def rle(*segments: bytes) -> bytes:
    """A frame of run lengths."""
    starts = [64]
    for segment in segments:
        starts.append(starts[-1] + len(segment))
    header = struct.pack(f"<{len(segments) + 1}I", len(segments), *starts[:-1])
    return header.ljust(64, b"\0") + b"".join(segments)


@pytest.mark.parametrize("kind", ["jpeg", "lossless jpeg", "jpeg-ls", "jpeg 2000", "jpeg 2000 in boxes"])
def test_18_a_frame_of_a_dicom_file_that_is_larger_than_its_header_says(tmp_path, kind):
    syntax = {"jpeg": "1.2.840.10008.1.2.4.50", "lossless jpeg": JPEG_LOSSLESS}.get(kind, J2K)
    large = ENCODERS[kind](gradient(700, 600))
    write_frames(tmp_path / "a.dcm", gradient(1, 64, 64), lambda _: large, syntax)
    found = reason(tmp_path / "a.dcm", channels=1)
    said = "a frame of it is 700 x 600 x 1 by the header of its own compressed stream, and 64 x 64 x 1"
    assert f"{said} by the file's: save it again" in found


@pytest.mark.parametrize(
    ("table", "parts"), [("basic", 1), ("basic", 3), ("none", 1), ("none", 3), ("extended", 1)]
)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_frames_of_a_dicom_file_are_found(tmp_path, count, table, parts):
    """Whatever says where they are, one of them and all of them; an extended table has whole frames."""
    frames = np.stack([gradient(40, 50) + np.uint8(40 * index) for index in range(count)])
    write_frames(tmp_path / "a.dcm", frames, parts=parts, table=table)
    middle = values(tmp_path / "a.dcm", channels=1, pixel_type="uint8")
    assert np.array_equal(middle[..., 0], frames[count // 2])


def test_frames_of_a_dicom_file_as_channels(tmp_path):
    frames = np.stack([gradient(40, 50) + np.uint8(40 * index) for index in range(5)])
    for syntax, encode in ((J2K, None), (RLE, lambda frame: rle(literal(frame)))):
        write_frames(tmp_path / "a.dcm", frames, encode, syntax)
        shown = values(tmp_path / "a.dcm", channels=5, pixel_type="uint8", axes="CYX")
        assert np.array_equal(shown, frames.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("table", "parts"), [("basic", 1), ("basic", 3), ("none", 1), ("none", 3), ("extended", 1)]
)
def test_frames_of_a_dicom_file_are_sought_once(tmp_path, monkeypatch, table, parts):
    """However many are read: it is opened once more for all, and each part is found once."""
    frames = np.stack([gradient(40, 50) + np.uint8(9 * index) for index in range(20)])
    write_frames(tmp_path / "a.dcm", frames, parts=parts, table=table)
    fragments, opened, found = dicom_frames._fragments, [], []

    def counted(*where, **options):
        for part in fragments(*where, **options):
            found.append(part)
            yield part

    def noted(path, mode):
        opened.append(path)
        return open(path, mode)

    monkeypatch.setattr(dicom_frames, "_fragments", counted)
    monkeypatch.setattr(dicom_frames, "open", noted, raising=False)
    shown = values(tmp_path / "a.dcm", channels=20, pixel_type="uint8", axes="CYX")
    assert np.array_equal(shown, frames.transpose(1, 2, 0))
    assert len(opened) == 1
    assert len(found) == 1 + (0 if table == "extended" else 20 * parts)


def test_dicom_films_that_no_decoder_reads(tmp_path):
    """Their frames are in one stream, so that they seem to be too few."""
    frames = np.stack([gradient(40, 50)] * 3)
    write_frames(tmp_path / "a.dcm", frames, lambda _: bytes(80), MPEG_4, table="none")
    whole = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(whole.replace(b"\xfe\xff\0\xe0\x50\0\0\0" + bytes(80), b"", 2))
    found = reason(tmp_path / "a.dcm", channels=1)
    assert "No pixel data decoders have been implemented for 'MPEG-4" in found, found


def test_a_dicom_file_with_a_table_without_lengths(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    write_frames(tmp_path / "a.dcm", np.stack([gradient(40, 50)] * 3), table="extended")
    d = pydicom.dcmread(tmp_path / "a.dcm")
    del d.ExtendedOffsetTableLengths
    d.save_as(tmp_path / "a.dcm")
    assert "its table of frames has no lengths: save it again" in reason(tmp_path / "a.dcm", channels=1)


def literal(frame: np.ndarray) -> bytes:
    """Run lengths of bytes that do not repeat."""
    data = frame.tobytes()
    return b"".join(
        bytes([len(part) - 1]) + part for part in (data[i : i + 128] for i in range(0, len(data), 128))
    )


def test_18_run_lengths_of_a_dicom_file_that_are_longer_than_its_frame(tmp_path, monkeypatch):
    """Some bytes too many are read as before."""
    frames = gradient(1, 64, 64)
    monkeypatch.setattr(dicom_frames, "MOST_RUNS", 2**20)
    for runs in (0, 2**13 + 1):  # of 128 zeros each
        stream = rle(literal(frames[0]) + b"\x81\0" * runs)
        write_frames(tmp_path / "a.dcm", frames, lambda _, stream=stream: stream, RLE)
        if not runs:
            shown = values(tmp_path / "a.dcm", channels=1, pixel_type="uint8")
            assert np.array_equal(shown[..., 0], frames[0])
    found = reason(tmp_path / "a.dcm", channels=1)
    assert "run lengths of it have more than 1 MiB unpacked" in found, found
    monkeypatch.setattr(dicom_frames, "MOST_RUNS", 2**21)
    shown = values(tmp_path / "a.dcm", channels=1, pixel_type="uint8")
    assert np.array_equal(shown[..., 0], frames[0])


def test_18_compressed_frames_of_a_dicom_file_far_longer_than_its_pixels(tmp_path, monkeypatch):
    """In parts, which would be joined."""
    monkeypatch.setattr(dicom_frames, "BESIDE_PIXELS", 2**12)
    stream = ENCODERS["jpeg 2000"](gradient(64, 64)) + bytes(2**14)
    for table, count, parts in (("basic", 1, 4), ("basic", 3, 4), ("none", 3, 1), ("extended", 3, 1)):
        frames = np.stack([gradient(64, 64)] * count)
        write_frames(tmp_path / "a.dcm", frames, lambda _: stream, parts=parts, table=table)
        found = reason(tmp_path / "a.dcm", channels=1)
        assert "a frame of it takes 16." in found, found
        assert "and 64 x 64 pixels at most 8 KiB: save it again" in found


def test_18_a_dicom_file_of_endless_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_frames, "MOST_FRAGMENTS", 20)
    write_frames(tmp_path / "a.dcm", gradient(1, 64, 64), parts=30)
    assert "its pixels are in more than 20 parts" in reason(tmp_path / "a.dcm", channels=1)
    write_frames(tmp_path / "a.dcm", np.stack([gradient(64, 64)] * 30))
    assert "its table of frames takes 120 bytes" in reason(tmp_path / "a.dcm", channels=1)


@pytest.mark.parametrize("table", ["basic", "none", "extended"])
def test_18_a_dicom_file_with_another_number_of_frames_than_it_says(tmp_path, table):
    """With fewer it is refused, with more the one that is asked for is read."""
    pydicom = pytest.importorskip("pydicom")
    frames = np.stack([gradient(40, 50) + np.uint8(40 * index) for index in range(4)])
    for says in (2, 3, 9, 10**9):
        write_frames(tmp_path / "a.dcm", frames, table=table)
        d = pydicom.dcmread(tmp_path / "a.dcm")
        d.NumberOfFrames = says
        d.save_as(tmp_path / "a.dcm")
        if says < 4:
            shown = values(tmp_path / "a.dcm", channels=1, pixel_type="uint8")
            assert np.array_equal(shown[..., 0], frames[says // 2])
        else:
            assert "save it again" in reason(tmp_path / "a.dcm", channels=1)


def replaced(path, page: int, stream: bytes) -> None:
    """Puts another stream in the place of a page's first strip."""
    with tifffile.TiffFile(path, mode="r+") as file:
        end = file.filehandle.seek(0, 2)
        file.filehandle.write(stream)
        file.pages[page].tags["StripOffsets"].overwrite([end])
        file.pages[page].tags["StripByteCounts"].overwrite([len(stream)])


def test_18_first_of_many_pages_of_a_tiff(tmp_path):
    """The one that is read."""
    options = {"photometric": "rgb", "compression": "png", "metadata": None, "extratags": [WHOLE]}
    tifffile.imwrite(tmp_path / "a.tif", np.stack([gradient(64, 64, 3)] * 2), **options)
    assert values(tmp_path / "a.tif").shape == (64, 64, 3)
    large = ic.png_encode(gradient(1100, 1200, 3))
    replaced(tmp_path / "a.tif", 1, large)
    assert values(tmp_path / "a.tif").shape == (64, 64, 3)
    replaced(tmp_path / "a.tif", 0, large)
    assert "a strip of it is 1100 x 1200 x 3" in reason(tmp_path / "a.tif")


def test_18_pages_of_a_tiff_beside_a_thumbnail(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for kind in (0, 0, 1):
            options = {"photometric": "minisblack", "compression": "png", "metadata": None}
            file.write(gradient(64, 64), subfiletype=kind, **options)
    assert values(tmp_path / "a.tif", channels=2).shape == (64, 64, 2)
    replaced(tmp_path / "a.tif", 1, ic.png_encode(gradient(1100, 1200)))
    assert "a strip of it is 1100 x 1200 x 1" in reason(tmp_path / "a.tif", channels=2)


def test_18_hundreds_of_bands_in_a_stream_of_a_tiff(tmp_path):
    """Each is as large as the page, and has a header of its own."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    for bands in (1, 500):
        write_tiff(tmp_path / "a.tif", LERC, gradient(64, 64), stream=ic.lerc_encode(noise) * bands)
        if bands == 1:
            assert values(tmp_path / "a.tif", channels=1).shape == (64, 64, 1)
    assert "a strip of it is 64 x 64 x 500" in reason(tmp_path / "a.tif", channels=1)


def test_18_one_stream_for_all_tiles_of_a_tiff(tmp_path):
    """As slides of NDPI have it, whose parts between restart markers are the tiles."""
    jpeg = ic.jpeg8_encode(gradient(3000, 4000))
    at, restarts = jpeg.index(b"\xff\xda"), b"\xff\xdd\0\4\0\x08"
    stream = jpeg[:at] + restarts + jpeg[at:]
    pixels = at + len(restarts) + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    tags = [
        (271, "s", 0, "Hamamatsu", True),
        (65420, "H", 1, 1, True),
        (65426, "I", 2, (pixels, pixels + 99), True),
    ]
    options = {
        "photometric": "minisblack",
        "compression": 8,
        "metadata": None,
        "extratags": [WHOLE, *tags],
    }
    tifffile.imwrite(tmp_path / "a.tif", gradient(64, 64), **options)
    replaced(tmp_path / "a.tif", 0, stream)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags["Compression"].overwrite(7)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].jpegheader is not None
    assert "is 3000 x 4000 x 1 by the header of its own" in reason(tmp_path / "a.tif", channels=1)


def test_18_a_dicom_file_whose_compressed_pixels_are_broken(tmp_path):
    write_frames(tmp_path / "a.dcm", gradient(1, 64, 64))
    whole = (tmp_path / "a.dcm").read_bytes()
    at = whole.rindex(b"\xfe\xff\x00\xe0")  # the frame's own
    for broken, says in (
        (whole[:at] + b"\xfe\xff\x00\xe1" + whole[at + 4 :], f"are broken at byte {at}"),
        (whole[: at + 4] + b"\xff" * 4 + whole[at + 8 :], f"are broken at byte {at}"),
        (whole[:at], f"are missing at byte {at}"),
    ):
        (tmp_path / "a.dcm").write_bytes(broken)
        assert says in reason(tmp_path / "a.dcm", channels=1)


def test_18_run_lengths_of_more_segments_than_there_can_be(tmp_path):
    stream = struct.pack("<I", 2**31) + bytes(2000)
    write_frames(tmp_path / "a.dcm", gradient(1, 64, 64), lambda _: stream, RLE)
    assert "its run lengths have 2147483648 segments" in reason(tmp_path / "a.dcm", channels=1)


def test_a_frame_of_a_dicom_file_whose_table_is_too_long(tmp_path):
    """A single frame is all that is there, whatever a table says."""
    frames = gradient(1, 64, 64)
    write_frames(tmp_path / "a.dcm", frames, parts=2)
    whole = (tmp_path / "a.dcm").read_bytes()
    at = whole.index(b"\xfe\xff\x00\xe0\4\0\0\0") + 8
    (tmp_path / "a.dcm").write_bytes(whole[:at] + struct.pack("<I", 2**30) + whole[at + 4 :])
    shown = values(tmp_path / "a.dcm", channels=1, pixel_type="uint8")
    assert np.array_equal(shown[..., 0], frames[0])


@pytest.mark.parametrize("tag", ["YBR_FULL_422", "YBR_FULL"])
def test_colours_of_dicom_files_are_those_of_pydicom(tmp_path, monkeypatch, tag):
    """Though they are converted some rows at a time."""
    pydicom = pytest.importorskip("pydicom")
    monkeypatch.setattr(pictures, "STRIP_VALUES", 1000)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    write_dicom(tmp_path / "a.dcm", image, photometric=tag, jpeg=ic.jpeg8_encode(image))
    shown = values(tmp_path / "a.dcm", pixel_type="uint8")
    assert np.array_equal(shown, pydicom.dcmread(tmp_path / "a.dcm").pixel_array)


@pytest.mark.parametrize(("name", "takes"), [("a.dcm", "176 KiB"), ("a.tif", "117 KiB")])
def test_18_of_jpeg_2000_less_is_allowed(tmp_path, name, takes):
    """Its decoder takes four bytes for each value, and copies them; of small strips it takes few."""
    image = gradient(100, 100, 3)
    if name == "a.tif":
        write_tiff(tmp_path / name, "jpeg2000", image)
    else:
        stream = ENCODERS["jpeg 2000"](image)
        write_frames(tmp_path / name, image[None, ..., 0], lambda _: stream)
        pydicom = pytest.importorskip("pydicom")
        d = pydicom.dcmread(tmp_path / name)
        d.SamplesPerPixel, d.PlanarConfiguration, d.PhotometricInterpretation = 3, 0, "RGB"
        d.save_as(tmp_path / name)
    assert values(tmp_path / name, max_pixels=200 * 100).shape == image.shape
    found = reason(tmp_path / name, pixel_type="uint8", max_pixels=100 * 100)
    assert f"3 channels of 100 x 100 pixels take {takes}, over the 97.7 KiB" in found, found
    if name == "a.tif":
        write_tiff(tmp_path / name, "jpeg2000", image, rows=10)
        assert values(tmp_path / name, pixel_type="uint8", max_pixels=100 * 100).shape == image.shape
        pages = {"photometric": "minisblack", "compression": "jpeg2000", "metadata": None}
        tifffile.imwrite(tmp_path / name, image.transpose(2, 0, 1), **pages)
        assert values(tmp_path / name, pixel_type="uint8", max_pixels=100 * 100).shape == image.shape
