"""What `unmask check` finds out and suggests."""

import shlex
import statistics
import time
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image

from unmask.bench.predict import Prediction, predict_here
from unmask.config.plan import DataFacts, PixelFormat, Plan
from unmask.config.resolve import pair, pixel_format, resolve
from unmask.config.schema import PretrainConfig
from unmask.core.masking import mask_from_noise
from unmask.core.patches import grid_of
from unmask.data.images import Images
from unmask.data.inspect import Inspection, inspect
from unmask.data.loader import TrainingSamples, load_centre_crops
from unmask.data.normalize import normalize
from unmask.data.sampler import SampleKey, generator
from unmask.data.sources.find import default_held_out, find_images, slug
from unmask.data.statistics import PixelStatistics, find_layout, measure_pixels
from unmask.engine.machine import detect_machine
from unmask.errors import DataError
from unmask.recipes import pretrain_recipe
from unmask.tasks.pretrain import display_of
from unmask.viz.samples import SampleRow, sample_sheet
from unmask.viz.tiles import displayable

T = TypeVar("T")

SMALL_SIDE = 64
"""Images whose shorter side is below this get small patches."""
PICTURED, DRAWS = 6, 3
TIMED_SAMPLES = 48


@dataclass(frozen=True)
class Check:
    """A data set, looked at."""

    name: str
    inspection: Inspection
    wanted: PixelFormat
    pixels: PixelStatistics
    recipe: str
    reason: str
    prediction: Prediction
    samples: Image.Image
    """What the model will see."""
    folder: Path
    """Where the picture belongs."""
    command: str

    def rows(self) -> list[tuple[str, str]]:
        """Names and values to show."""
        i, aside = self.inspection, default_held_out(self.inspection.images)
        return [
            ("images", f"{i.images}, of which a run would hold out {aside}"),
            ("kinds", ", ".join(f"{count} {kind}" for kind, count in sorted(i.kinds.items()))),
            ("height x width", f"{_size(i.smallest)} to {_size(i.largest)}, median {_size(i.median)}"),
            ("bad files", f"{len(i.bad)} (all headers read, {i.decoded} images decoded)"),
            ("duplicates", f"{len(i.duplicates)} groups of files with the same content"),
            ("read as", f"{self.wanted.channels} channel(s) of {self.wanted.pixel_type}"),
            ("mean", " ".join(f"{value:.4g}" for value in self.pixels.mean)),
            ("deviation", " ".join(f"{value:.4g}" for value in self.pixels.std)),
            ("recipe", f"{self.recipe}: {self.reason}"),
            ("time", self._time()),
            ("memory", self._memory()),
        ]

    def _time(self) -> str:
        p, t, d = self.prediction, self.prediction.plan.training, self.prediction.plan.data
        decoding = t.steps * t.batch * p.sample_ms / 1000 / max(1, d.workers)
        longer = max(p.seconds, decoding)
        return (
            f"about {_duration(longer)} here: {t.steps} steps of {t.batch} images, "
            f"{_duration(p.seconds)} of arithmetic, {_duration(decoding)} of reading on {d.workers} "
            f"process(es) at {p.sample_ms:.2g} ms a sample"
        )

    def _memory(self) -> str:
        p, f = self.prediction, self.prediction.plan.facts
        t = p.plan.training
        kept = p.activation_bytes[1 if t.activation_checkpointing else 0]
        working = p.replicated().state + kept * t.micro_batch
        decoded = f.training_images * f.decoded_bytes if p.plan.data.keep_decoded else 0
        return f"about {_gib(working)} for weights, optimizer and a micro-batch of {t.micro_batch}" + (
            f"; {_gib(decoded)} for decoded images, which all fit" if decoded else ""
        )


def run_check(asked: PretrainConfig) -> Check:
    """Looks at the images that a configuration names; without a recipe in it, one is suggested.

    Raises DataError where nothing can be read.
    """
    config, d = asked, asked.data
    images = find_images(d.source, root=d.root, download=d.download)
    layout = find_layout(images, d.channels)
    wanted = pixel_format(d, layout.channels, layout.pixel_type)
    inspection = inspect(images, wanted)
    if len(inspection.bad) == inspection.images:
        first = inspection.bad[0]
        raise DataError(
            f"none of the {inspection.images} images can be read as {wanted.channels} channel(s), the "
            f"first is {first.path} ({first.reason}): mend them, or choose other --data.channels"
        )
    gpu = torch.cuda.is_available()
    reason = "as asked"
    if not config.recipe:
        recipe, reason = suggest_recipe(inspection, gpu=gpu)
        config = _with_changes(pretrain_recipe(recipe), asked, PretrainConfig())
    pixels = measure_pixels(images, size=pair("data.size", config.data.size), wanted=wanted)
    plan = _plan(config, images, wanted, pixels)
    decode_ms, samples = _draw(images, plan)
    command = ["unmask", "pretrain", *d.source, "--recipe", config.recipe]
    return Check(
        name=images.name,
        inspection=inspection,
        wanted=wanted,
        pixels=pixels,
        recipe=config.recipe,
        reason=reason,
        prediction=predict_here(plan, decode_ms=decode_ms),
        samples=samples,
        folder=Path(asked.out or f"runs/check-{slug(images.name)}"),
        command=shlex.join(command),
    )


def suggest_recipe(inspection: Inspection, *, gpu: bool) -> tuple[str, str]:
    """A recipe's name, and why it suits these images and this machine."""
    if not gpu:
        return "laptop", "there is no GPU here, and it takes about half an hour on a processor"
    if min(inspection.median) < SMALL_SIDE:
        return "small-images", f"the shorter side is below {SMALL_SIDE} pixels: small patches"
    return "vit-base-800", "the paper's smallest model, on a GPU"


def _with_changes(recipe: T, asked: T, default: T) -> T:
    """The recipe with every setting that was asked for, which is one that is not the default."""
    changes = {}
    for name, value in vars(asked).items():
        usual = getattr(default, name)
        if is_dataclass(value):
            changes[name] = _with_changes(getattr(recipe, name), value, usual)
        elif value != usual:
            changes[name] = value
    return replace(recipe, **changes)  # type: ignore[type-var]


def _plan(config: PretrainConfig, images: Images, wanted: PixelFormat, pixels: PixelStatistics) -> Plan:
    """What a run would do; of few images the batch takes what there are."""
    aside = default_held_out(len(images))
    facts = DataFacts(
        training_images=len(images) - aside,
        held_out_images=aside,
        channels=wanted.channels,
        mean=pixels.mean,
        std=pixels.std,
        fingerprint="",
        decoded_bytes=pixels.decoded_bytes,
        pixel_type=wanted.pixel_type,
    )
    batch = min(config.optim.batch, facts.training_images * config.data.repeats)
    config = replace(config, optim=replace(config.optim, batch=batch))
    return resolve(config, facts=facts, machine=detect_machine(config.run.device), world_size=1)


def _draw(images: Images, plan: Plan) -> tuple[float, Image.Image]:
    """Milliseconds per sample, and a picture of some: as they are, cropped, masked."""
    samples = TrainingSamples(images, replace(plan.data, keep_decoded=False))
    chosen = generator(plan.data.seed, len(images)).permutation(len(images))
    times = []
    for i in chosen[:TIMED_SAMPLES]:
        start = time.perf_counter()
        samples[SampleKey(0, int(i))]
        times.append(time.perf_counter() - start)
    rows = [_row(images, samples, int(i), plan) for i in chosen[:PICTURED]]
    return 1000 * statistics.median(times), sample_sheet(
        rows, f"What {images.name} looks like to the model", plan.architecture.mask_ratio
    )


def _row(images: Images, samples: TrainingSamples, index: int, plan: Plan) -> SampleRow:
    a, d = plan.architecture, plan.data
    drawn = [samples[SampleKey(epoch, index)] for epoch in range(DRAWS)]
    whole = load_centre_crops(images.subset([drawn[0].number]), size=a.image_size, wanted=d.pixels)
    display = display_of(d.mean, d.std, d.display, d.pixels)
    crops = torch.cat([whole, torch.stack([sample.image for sample in drawn])])
    shown = displayable(normalize(crops, d.mean, d.std), display)
    grid = grid_of(a.image_size, a.patch_size)
    mask = mask_from_noise(drawn[-1].noise[None], grid, a.mask_ratio, a.mask_unit)
    return SampleRow(
        whole=shown[0],
        crops=list(shown[1:]),
        is_masked=mask.is_masked[0].reshape(grid).numpy(),
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _gib(count: float) -> str:
    return f"{count / 2**30:.2g} GiB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
