"""The size that a compressed stream has by its own header, read without its decoder.

A decoder takes memory by that, whatever the file around the stream says.
"""

import math
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

JPEG_BEGINS, J2K_BEGINS = b"\xff\xd8", b"\xff\x4f\xff\x51"
JP2_BEGINS = b"\0\0\0\x0cjP  "
PNG_BEGINS, WEBP_BEGINS = b"\x89PNG\r\n\x1a\n", b"RIFF"
LERC_BEGINS, OLD_LERC_BEGINS = b"Lerc2 ", b"CntZImage "
JXR_BEGINS, JXR_STREAM = b"II\xbc", b"WMPHOTO\0"
JXL_BEGINS, BOXED_JXL_BEGINS = b"\xff\x0a", b"\0\0\0\x0cJXL "

FRAMES = {*range(0xC0, 0xD0), 0xDE, 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG's size: all but tables and extensions, that of its levels, and that of JPEG-LS."""
WITHOUT_LENGTH, SCAN, END = {0x01, *range(0xD0, 0xD9)}, 0xDA, 0xD9
"""Other markers of a JPEG."""
XL_HEADER = 64
"""More bytes of JPEG XL than its size and its number of channels take."""
XL_SIDES = ((9, 1), (13, 1), (18, 1), (30, 1))
XL_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""How it writes its sides: in one of four lengths, and of width to height."""
JXR_WIDTH, JXR_HEIGHT, JXR_PIXELS = 0xBC80, 0xBC81, 0xBCC0
"""Tags of a JPEG XR file: its size, and where its pixels begin."""


class StreamSize(NamedTuple):
    """How many values a decoder makes of a stream."""

    height: int
    width: int
    channels: int
    """Or bands, one after another."""

    @property
    def values(self) -> int:
        """Those of all channels."""
        return self.height * self.width * self.channels

    def fits(self, most: int) -> bool:
        """Whether it is of one to so many values; a stream of none tells its size further on."""
        return min(self) > 0 and self.values <= most

    def __str__(self) -> str:
        return f"{self.height} x {self.width} x {self.channels}"


def stream_size(data: bytes) -> StreamSize | None:
    """By how the stream begins; None if that is no format known here, or its header is broken."""
    for begins, read in READERS.items():
        if data.startswith(begins):
            try:
                return read(data)
            except (struct.error, IndexError):
                return None
    return None


def _jpeg(data: bytes) -> StreamSize | None:
    """The largest size before the first scan, or one of 0; between markers junk is skipped."""
    sizes, at = [], 2
    while (at := data.find(b"\xff", at)) >= 0:
        while data[at] == 0xFF:
            at += 1
        marker, at = data[at], at + 1
        if marker in (SCAN, END):
            break
        if marker in WITHOUT_LENGTH or not marker:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if marker in FRAMES:
            _, height, width, channels = struct.unpack_from(">BHHB", data, at + 2)
            sizes.append(StreamSize(height, width, channels))
        at += length
    return max(sizes, key=lambda size: size.values or math.inf, default=None)


def _jpeg_2000(data: bytes, at: int = 0) -> StreamSize:
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    (channels,) = struct.unpack_from(">H", data, at + 40)
    return StreamSize(max(0, bottom - top), max(0, right - left), channels)


def _jp2(data: bytes) -> StreamSize | None:
    """The larger of the sizes that the boxes say, and the stream in one of them."""
    sizes = []
    for kind, begins, _ in _boxes(data):
        if kind == b"ihdr":
            sizes.append(StreamSize(*struct.unpack_from(">IIH", data, begins)))
        elif kind == b"jp2c" and data.startswith(J2K_BEGINS, begins):
            sizes.append(_jpeg_2000(data, begins))
            break
    return max(sizes, key=lambda size: size.values, default=None)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each, and where its content begins and ends."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        begins, end = at + 8, at + length if length else len(data)
        if length == 1:
            begins, end = at + 16, at + struct.unpack_from(">Q", data, begins)[0]
        if end < begins:
            return
        yield kind, begins, end
        at = begins if kind == b"jp2h" else end


def _boxed_jpeg_xl(data: bytes) -> StreamSize | None:
    """The stream may be divided over several boxes, each with four bytes before its part."""
    start = b""
    for kind, begins, end in _boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            start += data[begins + (4 if kind == b"jxlp" else 0) : end][:XL_HEADER]
        if len(start) >= XL_HEADER:
            break
    return _jpeg_xl(start) if start.startswith(JXL_BEGINS) else None


def _jpeg_xl(data: bytes) -> StreamSize:
    """Its size, with the channels beside colours alone. Raises ValueError for a film."""
    bits = _Bits(data[len(JXL_BEGINS) : XL_HEADER])
    eighths = bits.take(1)
    height = 8 * (bits.take(5) + 1) if eighths else bits.one_of(XL_SIDES)
    ratio = XL_RATIOS[bits.take(3)]
    if ratio:
        width = height * ratio[0] // ratio[1]
    else:
        width = 8 * (bits.take(5) + 1) if eighths else bits.one_of(XL_SIDES)
    usual = bits.take(1)
    if usual:
        return StreamSize(height, width, 1)
    if bits.take(1):
        bits.take(3)  # how it is turned
        if bits.take(3):
            raise ValueError(
                "its JPEG XL stream is a film, as bands are written too, or has a preview: save bands "
                'one after another (tifffile: planarconfig="separate"), or in another compression'
            )
    is_float = bits.take(1)
    bits.one_of(((0, 8), (0, 10), (0, 12), (6, 1)))
    bits.take(5 if is_float else 1)
    beside = bits.one_of(((0, 0), (0, 1), (4, 2), (12, 1)))
    return StreamSize(height, width, max(1, beside))


class _Bits:
    """Numbers of a few bits each, the lowest first."""

    def __init__(self, data: bytes):
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        taken = self._left & (1 << count) - 1
        self._left >>= count
        return taken

    def one_of(self, ways: tuple[tuple[int, int], ...]) -> int:
        """Each way is a number of bits, and what is added to them."""
        count, more = ways[self.take(2)]
        return self.take(count) + more


def _png(data: bytes) -> StreamSize:
    width, height, _, colours = struct.unpack_from(">IIBB", data, 16)
    return StreamSize(height, width, {0: 1, 4: 2, 6: 4}.get(colours, 3))


def _webp(data: bytes) -> StreamSize | None:
    kind, header = data[12:16], data[20:34]
    if kind == b"VP8X":
        width, height = (int.from_bytes(header[at : at + 3], "little") + 1 for at in (4, 7))
        return StreamSize(height, width, 4 if header[0] & 0x10 else 3)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", header, 1)
        return StreamSize((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 4 if bits >> 28 & 1 else 3)
    if kind != b"VP8 ":
        return None
    width, height = struct.unpack_from("<HH", header, 6)
    return StreamSize(height & 0x3FFF, width & 0x3FFF, 3)


def _lerc(data: bytes) -> StreamSize | None:
    """Bands follow each other, each with a header of its own."""
    first, bands, at = None, 0, 0
    while data.startswith(LERC_BEGINS, at):
        (version,) = struct.unpack_from("<i", data, at + 6)
        numbers = at + (14 if version >= 3 else 10)
        height, width, depth = struct.unpack_from("<3i", data, numbers)
        depth, behind = (depth, numbers + 12) if version >= 4 else (1, numbers + 8)
        length = struct.unpack_from("<3i", data, behind)[2]
        first, bands = first or StreamSize(height, width, depth), bands + 1
        if length <= 0:
            break
        at += length
    return first and first._replace(channels=first.channels * bands)


def _old_lerc(data: bytes) -> StreamSize:
    height, width = struct.unpack_from("<2i", data, len(OLD_LERC_BEGINS) + 8)
    return StreamSize(height, width, data.count(OLD_LERC_BEGINS))


def _jpeg_xr(data: bytes) -> StreamSize:
    """The larger of the sizes that the tags say, and the stream behind them."""
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    tags = {}
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from("<HHII", data, at)
        tags[tag] = value & {1: 0xFF, 3: 0xFFFF}.get(kind, 0xFFFFFFFF)
    sizes, at = [(tags.get(JXR_HEIGHT, 0), tags.get(JXR_WIDTH, 0))], tags.get(JXR_PIXELS, 0)
    if data.startswith(JXR_STREAM, at):
        short = data[at + 10] & 0x80
        width, height = struct.unpack_from(">HH" if short else ">II", data, at + 12)
        sizes.append((height + 1, width + 1))
    return StreamSize(*max(sizes, key=lambda size: size[0] * size[1]), 1)


READERS: dict[bytes, Callable[[bytes], StreamSize | None]] = {
    JPEG_BEGINS: _jpeg,
    J2K_BEGINS: _jpeg_2000,
    JP2_BEGINS: _jp2,
    PNG_BEGINS: _png,
    WEBP_BEGINS: _webp,
    LERC_BEGINS: _lerc,
    OLD_LERC_BEGINS: _old_lerc,
    JXR_BEGINS: _jpeg_xr,
    JXL_BEGINS: _jpeg_xl,
    BOXED_JXL_BEGINS: _boxed_jpeg_xl,
}
