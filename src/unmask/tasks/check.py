"""What `unmask check` finds out and suggests."""

import shlex
from dataclasses import dataclass

from unmask.config.plan import PixelFormat
from unmask.config.resolve import pair, pixel_format
from unmask.config.schema import PretrainConfig
from unmask.data.inspect import Inspection, inspect
from unmask.data.pictures import FORMATS
from unmask.data.sources import default_held_out, find_images
from unmask.data.statistics import PixelStatistics, find_layout, measure_pixels
from unmask.errors import DataError

SMALL_SIDE = 64
"""Images whose shorter side is below this get small patches."""


@dataclass(frozen=True)
class Check:
    """A folder of images, looked at."""

    name: str
    inspection: Inspection
    wanted: PixelFormat
    pixels: PixelStatistics
    recipe: str
    reason: str
    command: str

    def rows(self) -> list[tuple[str, str]]:
        """Names and values to show."""
        i = self.inspection
        aside = default_held_out(i.images)
        return [
            ("images", f"{i.images}, of which a run would hold out {aside}"),
            ("kinds", _counts(i.kinds)),
            ("height x width", f"{_size(i.smallest)} to {_size(i.largest)}, median {_size(i.median)}"),
            ("bad files", f"{len(i.bad)} (all headers read, {i.decoded} images decoded)"),
            ("duplicates", f"{len(i.duplicates)} groups of files with the same content"),
            ("read as", f"{self.wanted.channels} channel(s) of {self.wanted.pixel_type}"),
            ("mean", " ".join(f"{value:.4g}" for value in self.pixels.mean)),
            ("deviation", " ".join(f"{value:.4g}" for value in self.pixels.std)),
            ("suggested recipe", f"{self.recipe}: {self.reason}"),
        ]


def run_check(config: PretrainConfig, *, gpu: bool) -> Check:
    """Looks at the images that a configuration names."""
    d = config.data
    images = find_images(d.source, root=d.root, download=d.download)
    layout = find_layout(images, d.channels)
    wanted = pixel_format(d, layout.channels, layout.pixel_type)
    inspection = inspect(images, wanted)
    if len(inspection.bad) == inspection.images:
        first = inspection.bad[0]
        raise DataError(
            f"none of the {inspection.images} images can be read, the first is {first.path} "
            f"({first.reason}): give a folder of {', '.join(FORMATS)} images"
        )
    pixels = measure_pixels(images, size=pair("data.size", d.size), wanted=wanted)
    recipe, reason = suggest_recipe(inspection, gpu=gpu)
    command = ["unmask", "pretrain", *config.data.source, "--recipe", recipe]
    return Check(images.name, inspection, wanted, pixels, recipe, reason, shlex.join(command))


def suggest_recipe(inspection: Inspection, *, gpu: bool) -> tuple[str, str]:
    """A recipe's name, and why it suits these images and this machine."""
    if not gpu:
        return "laptop", "there is no GPU here, and it takes about half an hour on a processor"
    if min(inspection.median) < SMALL_SIDE:
        return "small-images", f"the shorter side is below {SMALL_SIDE} pixels: small patches"
    return "vit-base-800", "the paper's smallest model, on a GPU"


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
