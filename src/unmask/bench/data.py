"""How fast images are read: decoded, cropped and flipped on one core, and by several processes."""

import importlib.metadata
import platform
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import PIL
import torch
from PIL import Image

from unmask.bench.photograph import photograph
from unmask.bench.setting import BenchConfig
from unmask.config.commands import PretrainConfig
from unmask.config.image import PixelFormat
from unmask.config.settings import Optim
from unmask.cost.cards import Card
from unmask.cost.setting import planned
from unmask.data.bad_images import BadImageLog
from unmask.data.decode.jpeg import simplejpeg
from unmask.data.images import Images
from unmask.data.loader import Batches
from unmask.data.paths import PathList
from unmask.data.sampler import generator
from unmask.data.sources.find import find_images
from unmask.data.transforms import random_crop
from unmask.engine.machine import detect_machine, threads
from unmask.tasks.pretrain import MaskedSamples

SIZE = (224, 224)
CROP_SCALE = (0.2, 1.0)
QUALITY = 90
COPIES = 64
"""Files that the loader's processes read."""
LOADED_BATCHES = 6
"""Number of batches that a loader is timed on."""


@dataclass(frozen=True)
class Files:
    """Images of one kind, and how many are read in a turn."""

    name: str
    paths: tuple[str, ...]
    times: int

    @property
    def size(self) -> int:
        """Bytes of a file, on average."""
        return round(sum(Path(path).stat().st_size for path in self.paths) / len(self.paths))

    def path(self, number: int) -> str:
        """Seconds of a sample; the pipelines take turns."""
        return self.paths[number % len(self.paths)]


MADE = (("JPEG", 500, 375, 40), ("JPEG", 4000, 3000, 2), ("PNG", 500, 375, 10))
"""Format, width, height, and how often it is read in a turn."""
MOST_OF_YOURS = 40
TURNS = 3
"""Seconds of each pipeline in a round."""

Pipeline = Callable[[str, int], object]
"""From a path and the number of the sample."""


def bench_data(config: BenchConfig) -> list[Card]:
    """A card for one core, ours against the usual pipeline, and one for the loader's processes."""
    with TemporaryDirectory() as place, threads(1):
        made = [_write(Path(place), *kind) for kind in MADE]
        yours = [_some_of(folder) for folder in config.images]
        one_core = _compare(yours or made, config.rounds)
        loader = _load(Path(made[0].path(0)), config)
    return [one_core, loader]


def _some_of(folder: str) -> Files:
    """Evenly spread over the list; raises DataError if there is no image."""
    found = find_images((folder,))
    step = max(1, len(found) // MOST_OF_YOURS)
    paths = tuple(found.paths[i] for i in range(0, len(found), step))[:MOST_OF_YOURS]
    return Files(Path(folder).name, paths, len(paths))


def _write(folder: Path, kind: str, width: int, height: int, times: int) -> Files:
    path = folder / f"{width}x{height}.{kind.lower()}"
    photograph(width, height).save(path, kind, quality=QUALITY)
    return Files(f"{kind} {width} x {height}", (str(path),), times)


def usual_pipeline() -> Pipeline:
    """What most training scripts do: Pillow and torchvision, to a normalised float tensor."""
    from torchvision import transforms
    from torchvision.datasets.folder import pil_loader

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                SIZE, scale=CROP_SCALE, interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return lambda path, number: transform(pil_loader(path))


def our_pipeline(paths: list[str]) -> Pipeline:
    """What training does if it keeps nothing in memory: to a tensor of bytes."""
    images, wanted = Images("", PathList(paths)), PixelFormat(channels=3)
    index = {path: i for i, path in enumerate(paths)}

    def run(path: str, number: int) -> object:
        return images.take(
            index[path],
            wanted,
            lambda p: random_crop(p, wanted, SIZE, CROP_SCALE, True, generator(0, number)),
        )

    return run


def plain_decoding(path: str, number: int) -> object:
    """The least that Pillow can do."""
    with Image.open(path) as image:
        return image.load()


def _compare(files: list[Files], rounds: int) -> Card:
    ours = our_pipeline([path for each in files for path in each.paths])
    pipelines = {"decode": plain_decoding, "usual": usual_pipeline(), "unmask": ours}
    records = []
    for file in files:
        _round(file, pipelines, 0)  # warms up
        measured = [_round(file, pipelines, number) for number in range(1, rounds + 1)]
        seconds = {name: median(each[name] for each in measured) for name in pipelines}
        rates = {f"{name}_images_per_second": 1 / value for name, value in seconds.items()}
        ratios = {f"faster_than_{n}": seconds[n] / seconds["unmask"] for n in ("usual", "decode")}
        records.append({"file": file.name, "bytes": file.size, **rates, **ratios})
    return Card(
        title=f"One core: decode, random crop to 224 x 224, flip; medians of {rounds}",
        setting=_facts(),
        columns=("", "bytes", "images/s", "usual", "faster", "Pillow's decoding alone", "faster"),
        rows=[_row(record) for record in records],
        notes=_notes(),
        record={"bench": "data", **_facts(), "rounds": rounds, "files": records},
    )


def _round(file: Files, pipelines: dict[str, Pipeline], number: int) -> dict[str, float]:
    """Seconds of the processor for an image; the pipelines take turns, as others use the machine too."""
    seconds = dict.fromkeys(pipelines, 0.0)
    for turn in range(TURNS):
        first = (number * TURNS + turn) * file.times
        for name, run in pipelines.items():
            began = time.thread_time()
            for i in range(first, first + file.times):
                run(file.path(i), i)
            seconds[name] += time.thread_time() - began
    return {name: total / (TURNS * file.times) for name, total in seconds.items()}


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    return (
        record["file"],
        f"{record['bytes']:,}",
        f"{record['unmask_images_per_second']:.4g}",
        f"{record['usual_images_per_second']:.4g}",
        f"{record['faster_than_usual']:.2f}x",
        f"{record['decode_images_per_second']:.4g}",
        f"{record['faster_than_decode']:.2f}x",
    )


def _notes() -> list[str]:
    notes = [
        "images/s: per second of processor time, of files in memory. usual: Pillow and torchvision's "
        "transforms, normalised; unmask normalises whole batches on the device."
    ]
    if simplejpeg is None:
        notes.append("JPEG is read faster with simplejpeg: pip install 'unmask[fast]'")
    return notes


def _facts() -> dict[str, Any]:
    fast = f" and simplejpeg {importlib.metadata.version('simplejpeg')}" if simplejpeg else ""
    return {
        "device": detect_machine("cpu").name,
        "decoder": f"Pillow {PIL.__version__}{fast}",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _load(image: Path, config: BenchConfig) -> Card:
    """Processes of the loader take turns, over copies of one file."""
    folder = image.parent / "copies"
    folder.mkdir()
    paths = [folder / f"{i}.jpeg" for i in range(COPIES)]
    for path in paths:
        path.write_bytes(image.read_bytes())
    images = Images("copies", PathList(map(str, paths)))
    counts = _worker_counts(detect_machine("cpu").cores)
    rates: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(config.rounds):
        for count in counts:
            rates[count].append(_loading_rate(images, count, folder))
    records = [{"workers": count, "images_per_second": median(rates[count])} for count in counts]
    base = records[min(1, len(records) - 1)]["images_per_second"]
    rows = [
        (str(r["workers"]), f"{r['images_per_second']:.4g}", f"{r['images_per_second'] / base:.2f}x")
        for r in records
    ]
    return Card(
        title=f"The loader: batches of {COPIES} JPEG of 500 x 375, medians of {config.rounds}",
        setting=_facts(),
        columns=("processes", "images/s", "of one process"),
        rows=rows,
        notes=("wall-clock; 0: in the process that trains.",),
        record={"bench": "loader", **_facts(), "rounds": config.rounds, "workers": records},
    )


def _worker_counts(cores: int) -> list[int]:
    """0, powers of two, and all cores."""
    powers = [1 << i for i in range(cores.bit_length())]
    return sorted({0, *powers, cores})


def _loading_rate(images: Images, workers: int, folder: Path) -> float:
    """Images per second, once what was fetched ahead is used up."""
    batches, ahead = _batches(images, workers, folder), 2 * workers + 1
    with closing(batches.from_step(0)) as steps:
        for _ in range(ahead):
            next(steps)
        began = time.perf_counter()
        for _ in range(LOADED_BATCHES):
            next(steps)
        return LOADED_BATCHES * COPIES / (time.perf_counter() - began)


def _batches(images: Images, workers: int, folder: Path) -> Batches:
    """As pre-training reads them, without keeping any in memory."""
    config = PretrainConfig(optim=Optim(batch=COPIES, steps=10**6, warmup_steps=0))
    plan = planned(config, detect_machine("cpu"), images=len(images))
    return Batches(
        images,
        MaskedSamples(config, plan),
        plan.image,
        loading=replace(plan.loading, workers=workers, keep_decoded=False),
        training=plan.training,
        rank=0,
        bad_images=BadImageLog(folder / "bad_images.jsonl", images=len(images), max_share=0),
    )
