"""Masks of objects as annotations store them, polygons or run lengths, and their pixels.

Legend: h x w pixels of an image, P points of a polygon. Run lengths go down the columns, as COCO's do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unmask.core.spec import Size

SUBPIXELS = 5
"""Steps within a pixel to which pycocotools rounds the corners of polygons."""
ASCII_OF_ZERO, BITS, SIGN, MORE = 48, 5, 0x10, 0x20
"""COCO's text of run lengths: characters from '0' on hold five bits each, then whether more follow."""


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """One object: all that lies in any of its rings."""

    rings: tuple[np.ndarray, ...]
    """Each float32 [P, 2]: x and y in pixels."""


@dataclass(frozen=True, kw_only=True)
class RunLengths:
    """Pixels outside and inside an object in turns, beginning outside."""

    counts: np.ndarray
    """uint32; their sum is h * w."""
    size: Size


Mask = Polygons | RunLengths


def pixels_of(mask: Mask, size: Size) -> np.ndarray:
    """bool [h, w]: which pixels of an image of this size the object covers, equal to pycocotools'.

    Raises ValueError if run lengths are those of another size.
    """
    if isinstance(mask, RunLengths):
        if tuple(mask.size) != tuple(size) or mask.counts.sum(dtype=np.int64) != size[0] * size[1]:
            raise ValueError(
                "a mask of {} x {} pixels lies on an image of {} x {}".format(*mask.size, *size)
            )
        inside = np.arange(len(mask.counts)) % 2 == 1
        return np.repeat(inside, mask.counts).reshape(size[1], size[0]).T
    covered = np.zeros(size, dtype=bool)
    for ring in mask.rings:
        covered |= _inside(ring, size)
    return covered


def extent_of(mask: Mask) -> tuple[float, float, float, float]:
    """The box around it: left, top, right, bottom in pixels; all 0 if it is empty."""
    if isinstance(mask, Polygons):
        corners = np.concatenate(mask.rings)
        (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
        return left, top, right, bottom
    rows, columns = np.nonzero(pixels_of(mask, mask.size))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns.min()), float(rows.min()), columns.max() + 1.0, rows.max() + 1.0


def run_lengths_of_text(text: str | bytes, size: Size) -> RunLengths:
    """Run lengths in COCO's compressed form; raises ValueError if it is cut short."""
    values, value, shift = list[int](), 0, 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - ASCII_OF_ZERO
        value |= (bits & (SIGN | (SIGN - 1))) << shift
        shift += BITS
        if bits & MORE:
            continue
        if bits & SIGN:
            value -= 1 << shift
        if len(values) > 2:  # from the fourth on they are differences from the last but one
            value += values[-2]
        values.append(value)
        value = shift = 0
    if shift or min(values, default=0) < 0:
        raise ValueError("the text of the run lengths is cut short")
    return RunLengths(counts=np.array(values, dtype=np.uint32), size=size)


def run_lengths_of(pixels: np.ndarray) -> RunLengths:
    """The same mask, bool [h, w], in run lengths."""
    flat = pixels.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat, prepend=False))  # the first run is outside, and may be empty
    counts = np.diff(edges, prepend=0, append=flat.size)
    height, width = pixels.shape
    return RunLengths(counts=counts.astype(np.uint32), size=(height, width))


def _inside(ring: np.ndarray, size: Size) -> np.ndarray:
    """bool [h, w]: a polygon's pixels.

    A column of pixels goes from outside to inside, or back, at each place where the outline, drawn in
    steps of a fifth of a pixel, crosses the middle of the column.
    """
    height, width = size
    corners = (SUBPIXELS * ring.astype(np.float64) + 0.5).astype(np.int64)
    x, y = _outline(corners, np.roll(corners, -1, axis=0))
    moved = np.flatnonzero(x[1:] != x[:-1])
    column = (np.minimum(x[moved], x[moved + 1]) + 0.5) / SUBPIXELS - 0.5
    row = (np.minimum(y[moved], y[moved + 1]) + 0.5) / SUBPIXELS - 0.5
    middle = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip(row[middle], 0, height)).astype(np.int64)
    columns = column[middle].astype(np.int64)
    covered = np.zeros(size, dtype=bool)
    if len(columns):
        first, last = int(columns.min()), int(columns.max()) + 1
        pixels = (last - first) * height
        crossings = np.bincount((columns - first) * height + row, minlength=pixels)[:pixels]
        covered[:, first:last] = (np.cumsum(crossings) % 2 == 1).reshape(-1, height).T
    return covered


def _outline(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of all points on the edges, one step apart on each edge's longer axis; int64."""
    lengths = np.abs(ends - starts).max(axis=1)
    edge = np.repeat(np.arange(len(starts)), lengths + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(lengths + 1) - lengths - 1, lengths + 1)
    along = np.abs(ends - starts).argmax(axis=1)[edge]  # x if both are as long
    backwards = np.take_along_axis((starts > ends)[edge], along[:, None], axis=1)[:, 0]
    low = np.where(backwards[:, None], ends[edge], starts[edge])
    high = np.where(backwards[:, None], starts[edge], ends[edge])
    step = np.where(backwards, lengths[edge] - step, step)
    every = np.arange(len(edge))
    across = 1 - along
    slope = (high - low)[every, across] / np.maximum(lengths[edge], 1)
    points = np.empty_like(low)
    points[every, along] = low[every, along] + step
    points[every, across] = (low[every, across] + slope * step + 0.5).astype(np.int64)
    return points[:, 0], points[:, 1]


def packed(mask: Mask | None) -> bytes:
    """A mask in a few bytes, for many masks in one buffer."""
    if mask is None:
        return b""
    if isinstance(mask, RunLengths):
        return np.array([0, *mask.size], dtype=np.uint32).tobytes() + mask.counts.tobytes()
    header = np.array([len(mask.rings), *map(len, mask.rings)], dtype=np.uint32)
    return header.tobytes() + b"".join(ring.astype(np.float32).tobytes() for ring in mask.rings)


def unpacked(content: bytes) -> Mask | None:
    """What `packed` made bytes of."""
    if not content:
        return None
    words = np.frombuffer(content, dtype=np.uint32)
    if words[0] == 0:
        return RunLengths(counts=words[3:], size=(int(words[1]), int(words[2])))
    rings = int(words[0])
    ends: Sequence[int] = np.cumsum(words[1 : rings + 1]).tolist()
    points = words[rings + 1 :].view(np.float32).reshape(-1, 2)
    return Polygons(rings=tuple(np.split(points, ends[:-1])))
