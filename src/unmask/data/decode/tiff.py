"""TIFF: ordinary pictures by Pillow, bands and deep samples by tifffile.

Legend: C channels, h x w pixels.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image

from unmask.data.decode.arrays import Order, in_order, order_by_name, order_of, shape_in
from unmask.data.decode.file_sizes import BESIDE_PIXELS
from unmask.data.decode.pictures import ArrayPicture, Picture, can_hold
from unmask.data.decode.pillow import ALPHA_MODES, PillowPicture
from unmask.data.decode.quiet import notes_on, quietly
from unmask.data.decode.reading import Reading
from unmask.data.decode.tiff_streams import JPEG_2000, refuse_large_streams
from unmask.data.decode.turning import turned
from unmask.units import data_size

SUBFILE_TYPE, BITS, PHOTOMETRIC, ORIENTATION = 254, 258, 262, 274
SAMPLES_PER_PIXEL, COLOUR_MAP, SAMPLE_FORMAT, NO_DATA = 277, 320, 339, 42113
ASIDE = 1 | 4
"""The bits of NewSubfileType that mark a thumbnail or a level of a pyramid, and a mask."""
WHITE_IS_ZERO, PALETTE, MASK, INKS = 0, 3, 4, 5
"""Values of PhotometricInterpretation."""

ALPHA = "its alpha is laid over white (--data.channels 4 reads four bands as stored)"
FIRST_PAGE = "of its {count} pages the first is read"
PACKED_SHARE = 4
"""Strips and tiles take at most so many times the image's own bytes, with what pads the last ones."""
JPEG_2000_BYTES = 4
"""What its decoder takes for each value, of a whole strip or tile at once."""
DEPTHS = {"Z": "depth", "T": "time"}


@contextmanager
def open_tiff(file: IO[bytes], reading: Reading) -> Iterator[Picture]:
    """With Pillow if it is an ordinary picture, else with tifffile; raises ValueError and theirs."""
    notes = _notes_if_ordinary(file, reading)
    file.seek(0)
    if notes is not None:
        with Image.open(file, formats=("TIFF",)) as image:
            yield PillowPicture(image, notes)
        return
    import tifffile

    with quietly() as messages:
        tiff = tifffile.TiffFile(file)
    with tiff:
        with quietly() as also_said:
            layers = _layers(tiff)
        yield _picture(layers, reading, notes_on([*messages, *also_said]))


def _notes_if_ordinary(file: IO[bytes], reading: Reading) -> tuple[str, ...] | None:
    """Note on grey, colour or ink of at most eight bits, which Pillow reads. None for tifffile.

    Of several pages of colour the first is the picture; of grey they are bands.
    """
    file.seek(0)
    try:
        with quietly() as messages, Image.open(file, formats=("TIFF",)) as image:
            if not _is_ordinary(image):
                return None
            mode, full, colours = image.mode, _full_pages(image), len(image.getbands()) > 2
            if full[0] != 0 or (len(full) > 1 and not colours):
                return None
    except Exception:  # Pillow knows no name for the pixels; a broken file is reported by tifffile
        return None
    more = [FIRST_PAGE.format(count=len(full))] if len(full) > 1 else []
    alpha = [ALPHA] if mode in ALPHA_MODES and reading.channels != 4 else []
    return (*notes_on(messages), *alpha, *more)


def _is_ordinary(image: Image.Image) -> bool:
    tags = image.tag_v2  # type: ignore[attr-defined]  # what Image.open gives of a TIFF
    bits, kinds = _all(tags.get(BITS, 1)), _all(tags.get(SAMPLE_FORMAT, 1))
    # Pillow shows the first of many planes as if it were alone.
    whole = tags.get(SAMPLES_PER_PIXEL, 1) == len(image.getbands())
    plain = whole and image.mode not in ("RGBX", "P") and NO_DATA not in tags
    return plain and max(bits) <= 8 and set(kinds) == {1}


def _full_pages(image: Image.Image) -> list[int]:
    """Which pages are neither masks nor smaller copies."""
    full = []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        tags = image.tag_v2  # type: ignore[attr-defined]  # see above
        if not tags.get(SUBFILE_TYPE, 0) & ASIDE and tags.get(PHOTOMETRIC) != MASK:
            full.append(number)
    return full or [-1]


def _all(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


class _Layers(NamedTuple):
    """The pixels of a file, and what tifffile calls their axes."""

    load: Callable[[], np.ndarray]
    axes: str
    shape: tuple[int, ...]
    page: Any
    """What the tags of all of it are taken from."""
    notes: tuple[str, ...] = ()


def _layers(tiff: Any) -> _Layers:
    """The image, whatever thumbnails and masks stand beside it."""
    whole = [s for s in tiff.series if not _is_aside(s.keyframe)]
    full = [[p for p in s.pages if p is not None and not _is_aside(p)] for s in whole]
    if (len(whole) > 1 and "S" not in whole[0].axes) or not whole:
        kinds = ", ".join(f"{_times(s.shape)} {s.dtype}" for s in whole) or "none"
        raise ValueError(
            f"its bands are of mixed sizes or types ({kinds}): resample them to one size and type"
        )
    series, pages, count = whole[0], full[0], sum(map(len, full))
    for page in pages:
        _refuse_long_segments(page)
    first, kind = pages[0], pages[0].keyframe
    if len(whole) > 1 or ("S" in series.axes and len(series.shape) > 3) or len(pages) == 1:
        if len(pages) == len(series.pages) == 1:  # which may hold more than one plane
            load = _checked(series.asarray, pages)
            return _Layers(load, series.axes, series.shape, kind, _on_pages(count))
        load = _checked(first.asarray, pages[:1])
        return _Layers(load, first.axes, first.shape, kind, _on_pages(count))
    if len(pages) < len(series.pages):
        axes, shape = f"I{first.axes}", (len(pages), *first.shape)
        load = _checked(lambda: np.stack([page.asarray() for page in pages]), pages)
        return _Layers(load, axes, shape, kind)
    return _Layers(_checked(series.asarray, pages), series.axes, series.shape, series.keyframe)


def _checked(load: Callable[[], np.ndarray], pages: list[Any]) -> Callable[[], np.ndarray]:
    def checked() -> np.ndarray:
        refuse_large_streams(pages)
        return load()

    return checked


def _refuse_long_segments(page: Any) -> None:
    """Raises ValueError if strips or tiles are, packed or unpacked, far larger than the image."""
    image = math.prod(page.keyframe.shape) * page.dtype.itemsize
    segment = math.prod(page.keyframe.chunks) * page.dtype.itemsize
    needed, most = max(segment, sum(page.databytecounts)), PACKED_SHARE * image + BESIDE_PIXELS
    if needed > most:
        raise ValueError(
            f"its strips or tiles take {data_size(needed)}, and {_times(page.keyframe.shape)} values of "
            f"{page.dtype} at most {data_size(most)}: save it again"
        )


def _on_pages(count: int) -> tuple[str, ...]:
    return (FIRST_PAGE.format(count=count),) if count > 1 else ()


def _is_aside(page: Any) -> bool:
    kind = page.keyframe  # which pages that are alike share
    return bool(kind.subfiletype & ASIDE) or kind.photometric == MASK


def _picture(layers: _Layers, reading: Reading, notes: tuple[str, ...]) -> ArrayPicture:
    page, orientation = layers.page, _tag(layers.page, ORIENTATION, 1)
    order = _order(layers.axes, layers.shape, reading)
    height, width, stored = shape_in(layers.shape, order)
    nodata, prepare, channels, dtype = _own_nodata(page), None, stored, np.dtype(page.dtype)
    if page.photometric == PALETTE and stored == 1:
        prepare, channels, dtype = _colours_of(page.colormap), 3, np.dtype(np.uint8)
    elif page.photometric == INKS and stored == 4 and dtype.kind == "u":
        prepare, channels = _without_inks, 3
    elif page.photometric == WHITE_IS_ZERO and dtype.kind in "bu":
        prepare = _inverted(page.bitspersample)

    def load() -> np.ndarray:
        return turned(in_order(layers.load(), order), orientation)

    return ArrayPicture(
        load,
        kind="TIFF",
        size=(width, height) if orientation >= 5 else (height, width),
        channels=channels,
        dtype=dtype,
        prepare=prepare,
        nodata=nodata,
        notes=(*notes, *layers.notes),
        value_bytes=_decoder_bytes(layers),
    )


def _decoder_bytes(layers: _Layers) -> int:
    """What the decoder takes for each value, if it makes all of them at once."""
    page = layers.page
    at_once = len(page.dataoffsets) == 1 and math.prod(page.shape) == math.prod(layers.shape)
    return JPEG_2000_BYTES if at_once and page.compression in JPEG_2000 else 1


def _order(axes: str, shape: tuple[int, ...], reading: Reading) -> Order:
    """The file's own axes, unless they are unknown or --data.axes says otherwise of pages.

    Raises ValueError if there are too many, or they are depth or time.
    """
    if len(shape) not in (2, 3):
        raise ValueError(
            f"its layout is unknown ({len(shape)} dimensions, {axes}): store height x width x bands"
        )
    other = next((name for name in axes if name not in "YX"), "")
    if other not in ("", "S") and reading.axes is not None:
        return order_by_name(reading.axes, len(shape))
    if other in DEPTHS:
        count = shape[axes.index(other)]
        raise ValueError(
            f"its {count} planes are {other} ({DEPTHS[other]}), not channels: store one plane per file, "
            f"or read them as channels with --data.axes {axes.replace(other, 'C')}"
        )
    if other in ("", "S", "C", "I") and {"Y", "X"} <= set(axes):
        return order_by_name(axes.replace(other, "C") if other else axes, len(shape))
    return order_of(shape, reading)


def _own_nodata(page: Any) -> float | None:
    """What GDAL wrote; None if it is no number, or none that such samples can be."""
    try:
        mark = float(str(_tag(page, NO_DATA, "")).strip(" \0"))
    except ValueError:
        return None
    return mark if math.isnan(mark) or can_hold(np.dtype(page.dtype), mark) else None


def _tag(page: Any, code: int, otherwise: Any) -> Any:
    found = page.tags.get(code)
    return otherwise if found is None else found.value


def _colours_of(colour_map: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Palette of a map [3, n] of 16 bits; some programs write one of 8, as all its values then tell."""
    colours = colour_map if colour_map.max() < 256 else colour_map >> 8
    return lambda stored: colours.astype(np.uint8)[:, stored[..., 0]].transpose(1, 2, 0)


def _without_inks(stored: np.ndarray) -> np.ndarray:
    """Cyan, magenta, yellow and black to red, green and blue, by the rule that Pillow has."""
    full = np.iinfo(stored.dtype).max
    light = full - stored.astype(np.float64)
    return (light[..., :3] * light[..., 3:] / full).round().astype(stored.dtype)


def _inverted(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    def invert(stored: np.ndarray) -> np.ndarray:
        return ~stored if stored.dtype == np.bool_ else stored.dtype.type(2**bits - 1) - stored

    return invert


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
