"""Writes the photographs that README's picture is made with: some to train on, others to reconstruct.

    mkdir sources && cd sources
    apt-get download gcompris-qt-data mate-backgrounds
    for package in *.deb; do dpkg-deb -x $package .; done
    cd .. && python benchmarks/readme_picture.py --sources sources --out photographs

It writes OUT/train (JPEG), the photographs of those packages, and OUT/held-out (PNG), sample photographs
of scikit-image and scikit-learn, with shorter sides of at most 384 pixels.

Licences: GCompris's photographs are listed, file by file, in its package's copyright file, all free;
MATE's wallpapers GPL-2 or later; scikit-image's sample photographs CC0 or public domain; scikit-learn's
china.jpg CC-BY 2.0 by danielbuechele.
"""

import argparse
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import skimage
import sklearn
from PIL import Image

PHOTOGRAPHS = (
    *(f"categorization/resource/images/{name}/" for name in ("fishes", "monuments", "renewable")),
    *("clickgame/resource/sea", "details/resource/image/", "erase/resource/"),
    *(f"explore_{name}/resource/" for name in ("farm_animals", "monuments", "world_animals")),
)
"""What the names of GCompris's photographs begin with."""
PAINTINGS = ("Gogh", "PortraitOf", "Eglise")
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
LEAST, MOST = 200, 384
"""Shorter sides, in pixels: of photographs that are taken, and of what is written."""

DIRECTORY = 2
"""A flag of an entry."""


def members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what a binary resource file of Qt holds, as they are stored."""
    version, tree, data, names = struct.unpack_from(">4I", archive, 4)
    entry = 22 if version > 1 else 14

    def walk(index: int, above: str) -> Iterator[tuple[str, bytes]]:
        at = tree + index * entry
        name_at, flags = struct.unpack_from(">IH", archive, at)
        (length,) = struct.unpack_from(">H", archive, names + name_at)
        start = names + name_at + 6
        name = f"{above}/{archive[start : start + 2 * length].decode('utf-16-be')}" if index else ""
        if flags & DIRECTORY:
            count, first = struct.unpack_from(">II", archive, at + 6)
            for child in range(first, first + count):
                yield from walk(child, name)
        else:
            (offset,) = struct.unpack_from(">I", archive, at + 10)
            (size,) = struct.unpack_from(">I", archive, data + offset)
            yield name, archive[data + offset + 4 :][:size]

    yield from walk(0, "")


def photographs(sources: Path) -> Iterator[tuple[str, Image.Image]]:
    """Names and pictures to train on, in a fixed order."""
    for file in sorted(sources.glob("usr/share/gcompris-qt/rcc/*.rcc")):
        for name, content in members(file.read_bytes()):
            short = name.rpartition("activities/")[2]
            painting = any(word in short for word in PAINTINGS)
            if short.startswith(PHOTOGRAPHS) and short.endswith(".webp") and not painting:
                yield short, Image.open(io.BytesIO(content))
    for path in sorted(sources.glob("usr/share/backgrounds/mate/nature/*.jpg")):
        yield path.stem, Image.open(path)


def samples() -> Iterator[tuple[str, Image.Image]]:
    """Names and pictures to reconstruct."""
    paths = [Path(skimage.__file__).parent / "data" / name for name in SAMPLES]
    paths.append(Path(sklearn.__file__).parent / "datasets/images/china.jpg")
    for path in paths:
        yield path.stem, Image.open(path)


def write(pictures: Iterator[tuple[str, Image.Image]], folder: Path, kind: str) -> int:
    """Writes those that are large enough, made smaller; returns their number."""
    folder.mkdir(parents=True)
    written = 0
    for name, picture in pictures:
        if min(picture.size) >= LEAST:
            scale = min(1.0, MOST / min(picture.size))
            size = (round(scale * picture.width), round(scale * picture.height))
            small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            small.save(folder / f"{Path(name).with_suffix('').as_posix().replace('/', '-')}.{kind}")
            written += 1
    return written


def main() -> None:
    """Reads the command line; raises SystemExit if the packages are not there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    if not write(photographs(asked.sources), asked.out / "train", "jpg"):
        raise SystemExit(f"{asked.sources} lacks the packages: unpack all that `--help` names there")
    write(samples(), asked.out / "held-out", "png")


if __name__ == "__main__":
    main()
