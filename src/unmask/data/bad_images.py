"""Which images could not be read: each written down once, by whichever process met it first."""

import fcntl
import json
from pathlib import Path

from unmask.data.decode.pictures import BadImage
from unmask.errors import DataError
from unmask.storage import from_json, read_regular, replace_file

SHOWN = 10


class BadImageLog:
    """Appends to bad_images.jsonl; goes on from what an earlier part of the run wrote there.

    All processes of a run append to one file, and each counts what any of them met.
    """

    def __init__(self, file: Path, *, images: int, max_share: float, part: str = ""):
        """`part` of the data that the images are; the file holds those of all parts."""
        self.file, self.images, self.max_share, self.part = file, images, max_share, part
        self.known = self._of_this_part(_entries_in(file))
        self._seen = _size(file)

    def add(self, found: list[BadImage]) -> None:
        """Raises DataError, with the first paths, if the share of bad images is over the limit."""
        if any(bad.path not in self.known for bad in found):
            self._append(found)
        elif self._seen != _size(self.file):  # another process met some
            self._look(self.file.read_bytes())
        if len(self.known) > self.max_share * self.images:
            first = ", ".join(map(repr, sorted(self.known)[:SHOWN]))
            what = f"{self.part} images".strip()
            raise DataError(
                f"{len(self.known)} of {self.images} {what} cannot be read, more than "
                f"--data.max-bad-share {self.max_share:g}: {first}; all of them and the reasons are in "
                f"{self.file}; remove them, or raise that share"
            )

    def _append(self, found: list[BadImage]) -> None:
        """Writes those that no process has written, while the others wait."""
        part = {"part": self.part} if self.part else {}
        with self.file.open("ab+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            file.seek(0)
            self._look(file.read())
            for bad in found:
                if bad.path not in self.known:
                    self.known.add(bad.path)
                    line = json.dumps({"path": bad.path, "reason": bad.reason, **part}) + "\n"
                    file.write(line.encode())
            file.flush()
            self._seen = file.tell()

    def _look(self, content: bytes) -> None:
        """Takes over what stands in the file; a line that is being written counts the next time."""
        self._seen = len(content)
        entries = map(_entry, content.split(b"\n"))
        self.known |= self._of_this_part([entry for entry in entries if entry is not None])

    def _of_this_part(self, entries: list[dict[str, str]]) -> set[str]:
        return {entry["path"] for entry in entries if entry.get("part", "") == self.part}


def _size(file: Path) -> int:
    """0 if it is not there."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def none_readable(bad: list[BadImage]) -> DataError:
    """The error if not one of the images that were tried can be read."""
    return DataError(
        f"none of the {len(bad)} images that were tried can be read, the first is {bad[0].path!r} "
        f"({bad[0].reason}): run `unmask check` on the data, and correct or remove what it lists"
    )


def _entries_in(file: Path) -> list[dict[str, str]]:
    """What the file lists; a line that a kill cut short, or that is no entry, is moved to another file.

    Raises DataError if it is a pipe or another thing that cannot be read.
    """
    try:
        lines = read_regular(file).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error}): remove it") from error
    entries = [(line, entry) for line in lines if (entry := _entry(line)) is not None]
    damaged = [line for line in lines if line and _entry(line) is None]
    if damaged:
        with file.with_name(f"{file.stem}.damaged.jsonl").open("ab") as aside:
            aside.writelines(line + b"\n" for line in damaged)
    whole = b"".join(line + b"\n" for line, _ in entries)
    if damaged or lines[-1]:  # or a last line without its end
        replace_file(file, whole, "bad_images")
    return [entry for _, entry in entries]


def _entry(line: bytes) -> dict[str, str] | None:
    """A JSON object of strings with a path; None if the line is no such thing."""
    try:
        entry = from_json(line)
    except ValueError:
        return None
    is_entry = isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
    return entry if is_entry and "path" in entry else None
