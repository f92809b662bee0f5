"""Masks of objects as annotations store them, polygons or run lengths, and their pixels.

Legend: h x w pixels of an image, P points of a polygon. Run lengths go down the columns, as COCO's do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unmask.core.spec import Size

SUBPIXELS = 5
"""Steps within a pixel to which pycocotools rounds the corners of polygons."""
ASCII_OF_ZERO, BITS, SIGN, MORE = 48, 5, 0x10, 0x20
"""COCO's text of run lengths: characters from '0' on hold five bits each, then whether more follow."""
LONGEST = 60
"""Bits of one number there: pycocotools has 64."""
BEYOND = 2
"""Polygons are cut so many times the image's longer side beyond its edges: they may go on for ever."""
AT_ONCE = 2**20
"""So many points of an outline, or of its longest edge, exist at a time."""


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
        _refuse_other_size(mask, size)
        inside = np.zeros(len(mask.counts), dtype=bool)
        inside[1::2] = True
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
    _refuse_other_size(mask, mask.size)
    ends = np.cumsum(mask.counts, dtype=np.int64)
    starts = np.append(0, ends[:-1])
    inside = (np.arange(len(ends)) % 2 == 1) & (mask.counts > 0)
    if not inside.any():
        return 0.0, 0.0, 0.0, 0.0
    height = mask.size[0]
    first, last = starts[inside], ends[inside] - 1
    left, right = int((first // height).min()), int((last // height).max()) + 1
    if (first // height != last // height).any():  # it goes on at the top of the next column
        return float(left), 0.0, float(right), float(height)
    return float(left), float((first % height).min()), float(right), float((last % height).max() + 1)


def _refuse_other_size(mask: RunLengths, size: Size) -> None:
    if tuple(mask.size) != tuple(size) or mask.counts.sum(dtype=np.int64) != size[0] * size[1]:
        text = "a mask of {} x {} pixels lies on an image of {} x {}"
        raise ValueError(text.format(*mask.size, *size))


def run_lengths_of_text(text: str | bytes, size: Size) -> RunLengths:
    """Run lengths in COCO's compressed form; raises ValueError if it is cut short."""
    values, value, shift = list[int](), 0, 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - ASCII_OF_ZERO
        if shift > LONGEST:  # longer and longer numbers would take the square of the text's length
            raise ValueError(f"a run length has more than {LONGEST} bits")
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
    margin = BEYOND * max(size) + 1.0
    ring = _cut(_cut(ring.astype(np.float64), 0, margin + width), 1, margin + height)
    ring = -_cut(_cut(-ring, 0, margin), 1, margin)
    covered = np.zeros(size, dtype=bool)
    if not len(ring):
        return covered
    corners = (SUBPIXELS * ring + 0.5).astype(np.int64)
    first = int(np.clip(corners[:, 0].min() // SUBPIXELS - 1, 0, width))
    last = int(np.clip(corners[:, 0].max() // SUBPIXELS + 2, first, width))
    flips = np.zeros((last - first) * height + 1, dtype=bool)
    for x, y in _pieces(corners):
        moved = np.flatnonzero(x[1:] != x[:-1])
        column = (np.minimum(x[moved], x[moved + 1]) + 0.5) / SUBPIXELS - 0.5
        row = (np.minimum(y[moved], y[moved + 1]) + 0.5) / SUBPIXELS - 0.5
        middle = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
        row = np.ceil(np.clip(row[middle], 0, height)).astype(np.int64)
        columns = column[middle].astype(np.int64)
        at, times = np.unique((columns - first) * height + row, return_counts=True)
        flips[at[times % 2 == 1]] ^= True
    covered[:, first:last] = np.logical_xor.accumulate(flips[:-1]).reshape(-1, height).T
    return covered


def _cut(ring: np.ndarray, axis: int, most: float) -> np.ndarray:
    """What of a polygon has x, or y, of at most so much; one that lies there as a whole is the same."""
    inside = ring[:, axis] <= most
    if inside.all():
        return ring
    after = np.roll(ring, -1, axis=0)
    steps = after[:, axis] - ring[:, axis]
    crosses = inside != np.roll(inside, -1)
    share = (most - ring[:, axis]) / np.where(crosses, steps, 1.0)
    places = ring + share[:, None] * (after - ring)
    places[:, axis] = most
    kept = np.stack([inside, crosses], axis=1).reshape(-1)
    return np.stack([ring, places], axis=1).reshape(-1, 2)[kept]


def _pieces(corners: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """x and y of all points of a closed outline, some edges at a time, each from the last point on."""
    ends = np.roll(corners, -1, axis=0)
    points = np.cumsum(np.abs(ends - corners).max(axis=1) + 1)
    begin, before = 0, np.empty((2, 0), dtype=np.int64)
    while begin < len(corners):
        done = int(points[begin - 1]) if begin else 0
        stop = max(begin + 1, int(np.searchsorted(points, done + AT_ONCE, side="right")))
        x, y = _outline(corners[begin:stop], ends[begin:stop])
        piece = np.concatenate([before, np.stack([x, y])], axis=1)
        yield piece[0], piece[1]
        begin, before = stop, piece[:, -1:]


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
