"""The directories of a TIFF file, looked at before a library reads all that they promise."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, NamedTuple

from unmask.data.decode.file_sizes import BESIDE_PIXELS
from unmask.units import data_size

BIG = (b"II+\0", b"MM\0+")
"""How BigTIFF begins, whose numbers have eight bytes."""
TIFF_BEGINS = (b"II*\0", b"MM\0*", *BIG)
TEXT_KINDS = (1, 2, 6, 7)
"""Types of values of one byte each, which stay bytes; others become Python's numbers."""
MOST_NUMBERS, MOST_PAGES, MOST_TAGS = 2**24, 2**16, 4096
"""In all directories, of a file, in one directory: far more than bands, strips and tiles make."""
INNER = (330, 34665, 34853)
"""Tags that lead to other directories: smaller copies, EXIF and GPS."""


class _Entry(NamedTuple):
    tag: int
    kind: int
    number: int
    value: int
    """Or where it stands."""


class _Layout(NamedTuple):
    number: str
    entry: str
    pointer: str
    first: int
    """Where the pointer to the first directory stands."""


def refuse_endless_directories(file: IO[bytes]) -> None:
    """Raises ValueError for more pages, numbers or text than a file of images has."""
    numbers, text = 0, 0
    for pages, entries in enumerate(_directories(file), 1):
        for entry in entries:
            if entry.kind in TEXT_KINDS:
                text += entry.number
            else:
                numbers += entry.number
        if text > BESIDE_PIXELS:
            raise ValueError(
                f"its tags hold {data_size(text)} of text or more, and at most "
                f"{data_size(BESIDE_PIXELS)} are read: save it again without them"
            )
        if numbers > MOST_NUMBERS or pages > MOST_PAGES:
            raise ValueError(
                f"it has {pages} pages or more and {numbers} numbers in their tags, and at most "
                f"{MOST_PAGES} and {MOST_NUMBERS} are read: divide it, or save it again in larger tiles"
            )


def _directories(file: IO[bytes]) -> Iterator[list[_Entry]]:
    """The entries of each, as far as they can be read: what is broken is reported by who reads it."""
    file.seek(0)
    start = file.read(16).ljust(16, b"\0")
    order = "<" if start.startswith(b"II") else ">"
    long = _Layout(f"{order}Q", f"{order}HHQQ", f"{order}Q", 8)
    layout = long if start[:4] in BIG else _Layout(f"{order}H", f"{order}HHII", f"{order}I", 4)
    waiting, known = [struct.unpack_from(layout.pointer, start, layout.first)[0]], {0}
    while waiting:
        at = waiting.pop()
        if at in known:
            continue
        known.add(at)
        with suppress(struct.error, OverflowError):
            entries, behind = _directory(file, at, layout)
            waiting += [entry.value for entry in entries if entry.tag in INNER and entry.number == 1]
            waiting.append(behind)
            yield entries


def _directory(file: IO[bytes], at: int, layout: _Layout) -> tuple[list[_Entry], int]:
    """Its entries, and where the next one stands."""
    file.seek(at)
    (count,) = struct.unpack(layout.number, file.read(struct.calcsize(layout.number)))
    if count > MOST_TAGS:
        raise ValueError(f"it has a directory of {count} tags: save it again")
    entries = file.read(count * struct.calcsize(layout.entry))
    (behind,) = struct.unpack(layout.pointer, file.read(struct.calcsize(layout.pointer)))
    return [_Entry(*each) for each in struct.iter_unpack(layout.entry, entries)], behind
