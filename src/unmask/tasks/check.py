"""What `unmask check` finds out and suggests."""

import shlex
from dataclasses import dataclass

from unmask.config.resolve import pair
from unmask.config.schema import PretrainConfig
from unmask.data.decode import FORMATS
from unmask.data.folder import default_held_out, find_images
from unmask.data.inspect import Inspection, inspect
from unmask.data.statistics import PixelStatistics, count_channels, measure_pixels
from unmask.errors import DataError

SMALL_SIDE = 64
"""Images whose shorter side is below this get small patches."""


@dataclass(frozen=True)
class Check:
    """A folder of images, looked at."""

    name: str
    inspection: Inspection
    channels: int
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
            ("formats", _counts(i.formats)),
            ("pixel modes", _counts(i.modes)),
            ("height x width", f"{_size(i.smallest)} to {_size(i.largest)}, median {_size(i.median)}"),
            ("bad files", f"{len(i.bad)} (all headers read, {i.decoded} images decoded)"),
            ("duplicates", f"{len(i.duplicates)} groups of files with the same content"),
            ("channels", str(self.channels)),
            ("mean", " ".join(f"{value:.3f}" for value in self.pixels.mean)),
            ("deviation", " ".join(f"{value:.3f}" for value in self.pixels.std)),
            ("suggested recipe", f"{self.recipe}: {self.reason}"),
        ]


def run_check(config: PretrainConfig, *, gpu: bool) -> Check:
    """Looks at the images that a configuration names."""
    images = find_images(config.data.source)
    max_pixels = round(config.data.max_megapixels * 1e6)
    inspection = inspect(images, max_pixels)
    if len(inspection.bad) == inspection.images:
        first = inspection.bad[0]
        raise DataError(
            f"none of the {inspection.images} images can be read, the first is {first.path} "
            f"({first.reason}): give a folder of {', '.join(FORMATS)} images"
        )
    channels = config.data.channels or count_channels(images.paths)
    size = pair("data.size", config.data.size)
    pixels = measure_pixels(images.paths, size=size, channels=channels, max_pixels=max_pixels)
    recipe, reason = suggest_recipe(inspection, gpu=gpu)
    command = ["unmask", "pretrain", *config.data.source, "--recipe", recipe]
    return Check(images.name, inspection, channels, pixels, recipe, reason, shlex.join(command))


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
