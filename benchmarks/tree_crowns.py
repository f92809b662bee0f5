"""Cuts the annotated aerial photographs of PyPI's deepforest wheel (MIT) into tiles, in VOC's format.

    pip download --no-deps deepforest
    python -m zipfile -e deepforest-*.whl deepforest
    python benchmarks/tree_crowns.py --wheel deepforest --out crowns

It writes OUT/train, tiles of the two photographs of Yellowstone (YELL), and OUT-test, tiles of those of
Ordway-Swisher (OSBS) and Soaproot (SOAP), which nothing is trained on. The wheel is never imported. Of
951 crowns 853 are to train on, of the class Tree, and 98 to test, of the classes Tree at OSBS and Alive
and Dead at SOAP: `--data.single-class Tree` takes them for one. A crown that a tile's edge cuts belongs
to the tile if half of its box or more lies within.
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

TRAINING = ("2019_YELL_2_528000_4978000_image_crop2", "2019_YELL_2_541000_4977000_image_crop")
TEST = ("OSBS_029", "SOAP_061")
LEAST_SHARE = 0.5

Crown = tuple[str, tuple[float, float, float, float]]
"""Its class, and left, top, right and bottom in pixels."""


def crowns_of(file: Path) -> list[Crown]:
    """The objects of an XML file."""
    found = []
    for one in ElementTree.parse(file).iter("object"):
        edges = [float(one.findtext(f"bndbox/{edge}", "0")) for edge in ("xmin", "ymin", "xmax", "ymax")]
        found.append((one.findtext("name", ""), (edges[0], edges[1], edges[2], edges[3])))
    return found


def within(crowns: list[Crown], left: int, top: int, right: int, bottom: int) -> Iterator[Crown]:
    """What of the crowns lies in a tile, in its own pixels."""
    for name, (x0, y0, x1, y1) in crowns:
        cut = (max(x0, left), max(y0, top), min(x1, right), min(y1, bottom))
        area = max(0, cut[2] - cut[0]) * max(0, cut[3] - cut[1])
        if area >= LEAST_SHARE * (x1 - x0) * (y1 - y0) > 0:
            yield name, (cut[0] - left, cut[1] - top, cut[2] - left, cut[3] - top)


def write(folder: Path, name: str, image: Image.Image, crowns: list[Crown]) -> None:
    """A PNG, and its XML beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    image.convert("RGB").save(folder / f"{name}.png")
    sheet = ElementTree.Element("annotation")
    ElementTree.SubElement(sheet, "filename").text = f"{name}.png"
    size = ElementTree.SubElement(sheet, "size")
    for key, value in (("width", image.width), ("height", image.height), ("depth", 3)):
        ElementTree.SubElement(size, key).text = str(value)
    for label, edges in crowns:
        one = ElementTree.SubElement(sheet, "object")
        ElementTree.SubElement(one, "name").text = label
        box = ElementTree.SubElement(one, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True):
            ElementTree.SubElement(box, key).text = f"{value:g}"
    ElementTree.ElementTree(sheet).write(folder / f"{name}.xml")


def edges_of(whole: int, side: int) -> list[int]:
    """Where tiles of about this side begin, and the last one ends: all about as large."""
    count = max(1, round(whole / side))
    return [round(i * whole / count) for i in range(count + 1)]


def cut_into_tiles(data: Path, name: str, side: int, out: Path) -> int:
    """Tiles side by side, without overlap; returns how many crowns they hold."""
    image, crowns, count = Image.open(data / f"{name}.png"), crowns_of(data / f"{name}.xml"), 0
    for top, bottom in pairwise(edges_of(image.height, side)):
        for left, right in pairwise(edges_of(image.width, side)):
            box = (left, top, right, bottom)
            inside = list(within(crowns, *box))
            write(out, f"{name}-{top:04}-{left:04}", image.crop(box), inside)
            count += len(inside)
    return count


def main() -> None:
    """Reads the command line and writes both folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, required=True, help="folder of the unpacked wheel")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tile", type=int, default=200, help="side of a tile in pixels")
    given = parser.parse_args()
    data = given.wheel / "deepforest" / "data"
    if not data.is_dir():
        raise SystemExit(
            f"{given.wheel} holds no deepforest/data: give the folder of the unpacked wheel"
        )
    train, test = given.out / "train", Path(f"{given.out}-test")
    for folder, names in ((train, TRAINING), *((test / name, (name,)) for name in TEST)):
        count = sum(cut_into_tiles(data, name, given.tile, folder) for name in names)
        print(f"{count} crowns in {len(list(folder.glob('*.png')))} tiles in {folder}")


if __name__ == "__main__":
    main()
