"""What we write is never mistaken for what a user gave: a marker in each folder that we write."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unmask.errors import CheckpointError
from unmask.storage import entries

MARKER = ".unmask"
CONTENT = "unmask wrote this folder: it looks for no images in it, unless the folder itself is named.\n"
RUN = "plan.json"
OURS = (MARKER, RUN, "model.json", "scores.json", "predictions.jsonl", "sweep.json")
"""What tells a folder of ours; folders that earlier versions wrote have no marker."""
NOBODYS = (".DS_Store", ".lock")


def mark_output(folder: Path) -> None:
    """Makes the folder if there is none, and marks it; one with files of others stays unmarked.

    Call it before anything is written there. Raises OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        (folder / MARKER).write_text(CONTENT)


@dataclass(frozen=True)
class Before:
    """What there was where a folder is to be written, so that a failed start leaves nothing else."""

    folder: Path
    missing: tuple[Path, ...]
    """The folder and those above it that were not there, the innermost first."""
    content: frozenset[Path]

    @classmethod
    def of(cls, folder: Path) -> "Before":
        """As it is now."""
        missing = tuple(place for place in (folder, *folder.parents) if not place.exists())
        return cls(folder, missing, frozenset(entries(folder)))

    def restore(self) -> None:
        """Removes what has come since, unless others have put files into the folders above."""
        for path in self.new():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for place in self.missing:
            with suppress(OSError):
                place.rmdir()

    def new(self) -> set[Path]:
        """What has come since."""
        return set(entries(self.folder)) - self.content


def claim_output(folder: Path) -> None:
    """Makes and marks a folder of results, whose files of the same names will be replaced.

    It is empty, or ours, or inside a run, or holds runs. Raises CheckpointError if it is another's,
    OSError if it cannot be written.
    """
    found = sorted(path.name for path in entries(folder))
    names = [name for name in found if name not in NOBODYS]
    if names and not _is_ours(folder, names):
        raise CheckpointError(
            f"{folder} is not empty and unmask did not write it (it holds {names[0]}): choose another "
            f"--out"
        )
    mark_output(folder)


def _is_ours(folder: Path, names: list[str]) -> bool:
    if any(name in OURS for name in names) or _has(RUN, *folder.absolute().parents):
        return True
    others = [folder / name for name in names if name != "report.html"]
    return bool(others) and all(_has(MARKER, other) or _has(RUN, other) for other in others)


def _has(name: str, *folders: Path) -> bool:
    return any((folder / name).exists() for folder in folders)
