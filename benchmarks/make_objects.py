"""Makes a small detection set with exact masks: cut-out photographs pasted on photographs.

    mkdir sources && cd sources
    apt-get download tuxpaint-stamps-default plasma-workspace-wallpapers mate-backgrounds \\
        lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    for package in *.deb; do dpkg-deb -x $package .; done
    cd .. && python benchmarks/make_objects.py --sources sources --out objects

It writes OUT/train.json, OUT/val.json (COCO, masks as run-length codes), OUT/train/ and OUT/val/ (JPEG),
and OUT/sources.json, which names the files that each half is made of: they share no cut-out and no
background.

Objects: a longer side of 0.15 to 0.6 of the image's shorter side (equally likely on a log scale),
mirrored half of the time, turned by up to 20 degrees, at 0.8 to 1.2 of their brightness; 1 to 6 an
image, of which each stays visible to at least 60 %, and to at least 60 pixels. Masks hold what is
visible. One image in 20 has no object. Some of the road signs are drawn. The same seed gives the same
images.

Licences: Tux Paint's stamps and the wallpapers of Plasma and MATE GPL-2 (or later); Lomiri's are listed,
file by file, in its package's copyright file, all free; scikit-image's sample photographs CC0 or public
domain; scikit-learn's china.jpg CC-BY 2.0 by danielbuechele.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
import sklearn
import torch
from PIL import Image, ImageEnhance

from unmask.evals.objects import encode

CLASSES = {
    "animal": ("animals",),
    "coin": ("symbols/money/*/coins", "symbols/money/japanese"),
    "flower": ("plants/flowers",),
    "fruit": ("food/fruit",),
    "road sign": ("town/roadsigns",),
}
"""Folders of Tux Paint's stamps: those with twenty cut-outs or more of things that look alike."""

NO_PHOTOGRAPHS = ("bee", "chuvanna_plastic_poo", "edward_bear", "fly", "hedgehog")
NO_SIGNS = ("stoplight_01_red", "stoplight_02_yellow", "stoplight_03_green", "traffic_cone")
MIRRORED = ("xing_school_mirror",)

WALLPAPERS = (
    *("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey"),
    *("Kite", "Path", "summer_1am"),
)
"""Plasma's that are photographs without objects of the classes, by folder."""

PHOTOGRAPHS = (
    *("Aqua.jpg", "Blinds.jpg", "Dune.jpg", "GreenMeadow.jpg", "RainDrops.jpg", "Storm.jpg", "Wood.jpg"),
    *("Bridge_by_Sander_Klootwijk.jpg", "Dragonfly_by_Bolly.jpg", "Picture_1A_by_freespace.jpg"),
    *("Wine_by_Jakkub_Mede.jpg", "aitzgorri_by_Aitzol_Berasategi.jpg", "greentock_by_Peter_Nerlich.jpg"),
    *("life_by_Aitzol_Berasategi.jpg", "picosdeeuropa_by_Aitzol_Berasategi.jpg"),
    *("sunset_by_Aitzol_Berasategi.jpg", "Infinite-Sea_by_Aury88.jpg"),
)
"""MATE's and Lomiri's without objects of the classes."""

SAMPLES = ("brick.png", "grass.png", "gravel.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg")
"""scikit-image's."""

SHAPES = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.75))
SCALES, MOST_OBJECTS, EMPTY = (0.15, 0.6), 6, 0.05
VISIBLE_SHARE, VISIBLE_PIXELS = 0.6, 60
TURN, BRIGHTNESS = 20.0, (0.8, 1.2)
HELD_OUT = 0.25
"""Share of cut-outs, of each class, and of backgrounds that only the held-out images show."""

TRIES = 20


@dataclass(frozen=True)
class Sources:
    """Files that one half of the set is made of: backgrounds, and cut-outs by class."""

    backgrounds: list[Path]
    cutouts: dict[str, list[Path]]


def find_sources(unpacked: Path) -> Sources:
    """All files, in a fixed order. Raises SystemExit if a package is missing."""
    stamps = unpacked / "usr/share/tuxpaint/stamps"
    left_out = {*NO_PHOTOGRAPHS, *NO_SIGNS, *MIRRORED}
    cutouts = {
        name: sorted(
            path
            for place in places
            for folder in stamps.glob(place)
            for path in folder.rglob("*.png")
            if "cartoon" not in path.parts and path.stem not in left_out
        )
        for name, places in CLASSES.items()
    }
    wallpapers = [largest(unpacked / "usr/share/wallpapers" / name) for name in WALLPAPERS]
    photographs = [next(iter(sorted(unpacked.rglob(name))), None) for name in PHOTOGRAPHS]
    samples = [Path(skimage.__file__).parent / "data" / name for name in SAMPLES]
    china = Path(sklearn.__file__).parent / "datasets/images/china.jpg"
    backgrounds = [*wallpapers, *photographs, *samples, china]
    if None in backgrounds or not all(cutouts.values()):
        raise SystemExit(f"{unpacked} lacks some of the packages: unpack all that `--help` names there")
    return Sources([path for path in backgrounds if path], cutouts)


def largest(folder: Path) -> Path | None:
    """A wallpaper's file of most bytes."""
    files = sorted((folder / "contents/images").glob("*.*"), key=lambda path: path.stat().st_size)
    return files[-1] if files else None


def split(sources: Sources, seed: int) -> dict[str, Sources]:
    """Divides cut-outs, class by class, and backgrounds into "train" and "val"."""
    rng = np.random.default_rng((seed, 0))
    halves = [divide(sources.backgrounds, rng)]
    halves += [divide(paths, rng) for paths in sources.cutouts.values()]
    return {
        half: Sources(halves[0][i], {n: h[i] for n, h in zip(sources.cutouts, halves[1:], strict=True)})
        for i, half in enumerate(("train", "val"))
    }


def divide(paths: list[Path], rng: np.random.Generator) -> tuple[list[Path], list[Path]]:
    """The paths in random order, all but HELD_OUT of them and the rest."""
    order = [paths[i] for i in rng.permutation(len(paths))]
    held_out = max(1, round(HELD_OUT * len(order)))
    return order[held_out:], order[:held_out]


class Pictures:
    """Opened sources, shrunk to what the set needs, since many images show each."""

    def __init__(self, side: int):
        self.side, self.opened = side, dict[Path, Image.Image]()

    def __call__(self, path: Path, mode: str) -> Image.Image:
        """A background's shorter side, or a cut-out's longer one, is at most 2.5 times an image's."""
        if path not in self.opened:
            picture = Image.open(path).convert(mode)
            side = min(picture.size) if mode == "RGB" else max(picture.size)
            if (factor := 2.5 * self.side / side) < 1:
                picture = picture.resize([max(1, round(factor * n)) for n in picture.size])
            self.opened[path] = picture
        return self.opened[path]


def background(picture: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A random part of a photograph, mirrored half of the time, as an image of this width and height."""
    width, height = size
    most = min(picture.width / width, picture.height / height)
    zoom = most * rng.uniform(0.5, 1.0)
    left = rng.uniform(0, picture.width - zoom * width)
    top = rng.uniform(0, picture.height - zoom * height)
    box = (left, top, left + zoom * width, top + zoom * height)
    part = picture.resize(size, Image.Resampling.BICUBIC, box=box)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def cutout(picture: Image.Image, side: float, rng: np.random.Generator) -> Image.Image:
    """An object whose longer side is `side` pixels before it is turned."""
    factor = side / max(picture.size)
    small = picture.resize([max(1, round(factor * n)) for n in picture.size], Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = small.rotate(rng.uniform(-TURN, TURN), Image.Resampling.BICUBIC, expand=True)
    alpha = turned.getchannel("A")
    lit = ImageEnhance.Brightness(turned.convert("RGB")).enhance(rng.uniform(*BRIGHTNESS))
    lit.putalpha(alpha)
    return lit.crop(alpha.point(lambda a: 255 * (a > 127)).getbbox())


def compose(
    sources: Sources, pictures: Pictures, rng: np.random.Generator
) -> tuple[Image.Image, list[tuple[int, np.ndarray]]]:
    """An image, and the class and visible mask of each of its objects."""
    shape = SHAPES[rng.integers(len(SHAPES))]
    size = (round(pictures.side * shape[0]), round(pictures.side * shape[1]))
    photograph = sources.backgrounds[rng.integers(len(sources.backgrounds))]
    canvas = background(pictures(photograph, "RGB"), size, rng)
    whole: list[np.ndarray] = []
    objects: list[tuple[int, np.ndarray]] = []
    wanted = 0 if rng.random() < EMPTY else rng.integers(1, MOST_OBJECTS + 1)
    for _ in range(TRIES * wanted):
        if len(objects) == wanted:
            break
        label = int(rng.integers(len(CLASSES)))
        paths = sources.cutouts[list(CLASSES)[label]]
        side = min(size) * np.exp(rng.uniform(*np.log(SCALES)))
        thing = cutout(pictures(paths[rng.integers(len(paths))], "RGBA"), side, rng)
        if thing.width >= size[0] or thing.height >= size[1]:
            continue
        corner = (rng.integers(size[0] - thing.width), rng.integers(size[1] - thing.height))
        mask = np.zeros(size[::-1], bool)
        rows, columns = (
            slice(corner[1], corner[1] + thing.height),
            slice(corner[0], corner[0] + thing.width),
        )
        mask[rows, columns] = np.asarray(thing.getchannel("A")) > 127
        still = [(k, seen & ~mask) for k, seen in objects]
        if mask.sum() < VISIBLE_PIXELS or not all(map(enough, [m for _, m in still], whole)):
            continue
        canvas.paste(thing, tuple(int(c) for c in corner), thing)
        objects, whole = [*still, (label, mask)], [*whole, mask]
    return canvas, objects


def enough(visible: np.ndarray, whole: np.ndarray) -> bool:
    """Whether what is left of an object still counts as one."""
    return bool(visible.sum() >= max(VISIBLE_PIXELS, VISIBLE_SHARE * whole.sum()))


def annotations(image: int, objects: list[tuple[int, np.ndarray]], first: int) -> Iterator[dict]:
    """COCO's, of one image; boxes around what is visible."""
    for i, (label, mask) in enumerate(objects):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        yield {
            "id": first + i,
            "image_id": image,
            "category_id": label + 1,
            "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": encode(torch.from_numpy(mask)[None])[0],
        }


def write(half: str, sources: Sources, count: int, side: int, seed: int, out: Path) -> None:
    """The images and the annotations of one half."""
    (out / half).mkdir(parents=True, exist_ok=True)
    pictures, images, found = Pictures(side), [], list[dict]()
    for i in range(count):
        rng = np.random.default_rng((seed, 1 + (half == "val"), i))
        picture, objects = compose(sources, pictures, rng)
        name = f"{i:06d}.jpg"
        picture.save(out / half / name, quality=92)
        images.append({"id": i + 1, "file_name": name, "width": picture.width, "height": picture.height})
        found.extend(annotations(i + 1, objects, len(found) + 1))
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    content = {"info": {}, "images": images, "categories": categories, "annotations": found}
    (out / f"{half}.json").write_text(json.dumps(content))
    print(f"{half}: {count} images, {len(found)} objects in {out / half}")


def main() -> None:
    """Reads the command line and makes both halves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sources", type=Path, required=True, help="folder of the unpacked packages")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=1200, help="images to train on")
    parser.add_argument("--val", type=int, default=200, help="held-out images")
    parser.add_argument("--side", type=int, default=160, help="longer side of an image in pixels")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    halves = split(find_sources(given.sources), given.seed)
    for half, count in (("train", given.train), ("val", given.val)):
        write(half, halves[half], count, given.side, given.seed, given.out)
    named = {
        half: {
            "backgrounds": [path.name for path in sources.backgrounds],
            "cutouts": {name: [path.name for path in paths] for name, paths in sources.cutouts.items()},
        }
        for half, sources in halves.items()
    }
    (given.out / "sources.json").write_text(json.dumps(named, indent=1))


if __name__ == "__main__":
    main()
