"""Pictures as bytes, and as files that are whole or absent."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from unmask.storage import written_aside


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, format="png")
    return file.getvalue()


def save_picture(picture: Image.Image, path: Path, **options: Any) -> None:
    """Writes a picture whole or not at all, in a folder that is made for it.

    The suffix names the format; `options` are Pillow's. Raises OSError, and CheckpointError if the disk
    gets full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        picture.save(aside, format=Image.registered_extensions()[path.suffix.lower()], **options)
