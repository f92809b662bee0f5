"""Large JSON files read piece by piece: no more than one member of an array is held at a time."""

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from unmask.units import data_size

PIECE, LONGEST = 2**20, 2**26
"""Characters that are read at a time, and of one member: as Python's objects it takes up to 28 times."""
SPACE = re.compile(r"[ \t\r\n]*")


def members(file: IO[str]) -> Iterator[tuple[str, Any]]:
    """The name of each array in the object at the top, with each of its members in turn.

    Raises ValueError, or RecursionError, for what is no such JSON, or for a member that is too long.
    """
    text = _Text(file)
    text.take("{")
    while text.following() != "}":
        name = text.value()
        text.take(":")
        if text.following() != "[":
            text.value()
        else:
            text.take("[")
            while text.following() != "]":
                yield name, text.value()
                if text.following() != "]":
                    text.take(",")
            text.take("]")
        if text.following() != "}":
            text.take(",")


class _Text:
    """What of a file was read and not yet taken."""

    def __init__(self, file: IO[str]):
        self._file, self._piece, self._at = file, "", 0
        self._before = 0
        """Characters of the file that were forgotten."""
        self._decode = json.JSONDecoder().raw_decode

    def following(self) -> str:
        """The next character that is no space."""
        while True:
            space = SPACE.match(self._piece, self._at)
            self._at = self._at if space is None else space.end()
            if self._at < len(self._piece):
                return self._piece[self._at]
            if not self._read():
                raise ValueError(f"it ends at character {self._before + self._at}")

    def take(self, wanted: str) -> None:
        """One character, the wanted one."""
        if (found := self.following()) != wanted:
            place = self._before + self._at
            raise ValueError(f"{found!r} at character {place}, not {wanted}")
        self._at += 1

    def value(self) -> Any:
        """One value, whose end was read, or the file's."""
        self.following()
        while True:
            try:
                value, end = self._decode(self._piece, self._at)
            except json.JSONDecodeError as error:
                if not self._read():
                    place = self._before + error.pos
                    raise ValueError(f"{error.msg} at character {place}") from error
            else:
                if end < len(self._piece) or not self._read():
                    self._at = end
                    return value
                # A number may go on in the next piece.

    def _read(self) -> bool:
        """Reads as much again as is held; whether there was more."""
        held = self._piece[self._at :]
        if len(held) > LONGEST:
            raise ValueError(
                f"one value from character {self._before + self._at} on has more than "
                f"{data_size(LONGEST)}, or does not end"
            )
        more = self._file.read(max(PIECE, len(held)))
        if more:
            self._before += self._at
            self._piece, self._at = held + more, 0
        return bool(more)
