"""What `unmask check` finds out and suggests."""

import shlex
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from PIL import Image

from unmask.config.commands import CheckConfig, PretrainConfig
from unmask.config.fields import check, pair
from unmask.config.image import ImageSpec
from unmask.config.plan import DataFacts, Plan
from unmask.config.resolve import resolve, resolve_autoencoder, resolve_encoder
from unmask.core.masking import mask_from_noise
from unmask.core.spec import MAESpec
from unmask.cost.predict import Prediction, predict_here
from unmask.data.centre_crops import load_centre_crops
from unmask.data.images import Images
from unmask.data.inspect import Inspection, inspect
from unmask.data.mask_strategies import asked_mask
from unmask.data.normalize import normalize
from unmask.data.paths import slug
from unmask.data.sampler import SampleKey, generator
from unmask.data.samples import TrainingSamples
from unmask.data.sources.find import find_images
from unmask.data.split import default_held_out
from unmask.engine.machine import detect_machine
from unmask.errors import DataError
from unmask.models.tokenizer_spec import TokenizerSpec
from unmask.tasks import find_recipe
from unmask.tasks.measure import Measured, measure, read_layout
from unmask.tasks.pretrain import MaskedSamples
from unmask.tasks.reconstruction import display_of
from unmask.use.check_annotations import AnnotationCheck, check_annotations
from unmask.viz.samples import SampleRow, sample_sheet
from unmask.viz.tiles import displayable

SMALL_SIDE = 64
"""Images whose shorter side is below this get small patches."""
PICTURED, DRAWS = 6, 3
TIMED_SAMPLES = 48


@dataclass(frozen=True)
class Check:
    """A data set, looked at."""

    name: str
    inspection: Inspection
    image: ImageSpec
    recipe: str
    reason: str
    prediction: Prediction
    samples: Image.Image
    """What the model will see."""
    folder: Path
    """Where the picture belongs."""
    commands: tuple[str, ...]
    """What to type next."""
    annotations: tuple[AnnotationCheck, ...] = ()
    """What stands beside the images: label maps, for one."""

    def rows(self) -> list[tuple[str, str]]:
        """Names and values to show."""
        i, aside = self.inspection, default_held_out(self.inspection.images)
        return [
            ("images", f"{i.images}, of which a run would hold out {aside}"),
            ("kinds", ", ".join(f"{count} {kind}" for kind, count in sorted(i.kinds.items()))),
            ("height x width", f"{_size(i.smallest)} to {_size(i.largest)}, median {_size(i.median)}"),
            *(row for found in self.annotations for row in found.rows),
            ("bad files", f"{len(i.bad)} (all headers read, {i.decoded} images decoded)"),
            ("duplicates", f"{len(i.duplicates)} groups of files with the same content"),
            ("read as", f"{self.image.channels} channel(s) of {self.image.dtype}"),
            ("mean", " ".join(f"{value:.4g}" for value in self.image.mean)),
            ("standard deviation", " ".join(f"{value:.4g}" for value in self.image.std)),
            ("recipe", f"{self.recipe}: {self.reason}"),
            ("time", self._time()),
            ("memory", self._memory()),
        ]

    def _time(self) -> str:
        p, t, d = self.prediction, self.prediction.plan.training, self.prediction.plan.loading
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
        decoded = f.training_images * f.decoded_bytes if p.plan.loading.keep_decoded else 0
        return f"about {_gib(working)} for weights, optimizer and a micro-batch of {t.micro_batch}" + (
            f"; {_gib(decoded)} for decoded images, which all fit" if decoded else ""
        )


def run_check(asked: CheckConfig) -> Check:
    """Looks at the images that a configuration names; without a recipe in it, one is suggested.

    Raises DataError if nothing can be read.
    """
    check(asked)
    d = asked.data
    annotations = check_annotations(d)
    images = (
        annotations[0].images if annotations else find_images(d.source, root=d.root, download=d.download)
    )
    sources = annotations[0].folders if annotations else d.source
    wanted = read_layout(d, images)
    inspection = inspect(images, wanted)
    if len(inspection.bad) == inspection.images:
        first = inspection.bad[0]
        raise DataError(
            f"none of the {inspection.images} images can be read as {wanted.channels} channel(s), the "
            f"first is {first.path} ({first.reason}): correct them, or choose other --data.channels"
        )
    recipe, reason = asked.recipe, "as asked"
    if not recipe:
        recipe, reason = suggest_recipe(inspection, gpu=torch.cuda.is_available())
    config = _as_recipe(recipe, asked)
    measured = measure(config.data, images, size=pair("data.size", config.data.size))
    plan = _plan(config, images, measured)
    decode_ms, samples = _draw(images, config, plan)
    begin = ["unmask", "pretrain", *sources, "--recipe", recipe]
    return Check(
        name=images.name,
        inspection=inspection,
        image=measured.image,
        recipe=recipe,
        reason=reason,
        prediction=predict_here(plan, decode_ms=decode_ms),
        samples=samples,
        folder=Path(asked.out or f"runs/check-{slug(images.name)}"),
        commands=(
            shlex.join([*begin, *_flags_of(config, asked, plan)]),
            *(found.command for found in annotations),
        ),
        annotations=tuple(annotations),
    )


def suggest_recipe(inspection: Inspection, *, gpu: bool) -> tuple[str, str]:
    """A recipe's name, and why it suits these images and this machine."""
    if not gpu:
        return "laptop", "there is no GPU here, and it takes about half an hour on a processor"
    if min(inspection.median) < SMALL_SIDE:
        return "small-images", f"the shorter side is below {SMALL_SIDE} pixels: small patches"
    return "vit-base-800", "the paper's smallest model, on a GPU"


def _as_recipe(recipe: str, asked: CheckConfig) -> PretrainConfig:
    """The recipe's run on these images."""
    config: PretrainConfig = find_recipe("pretrain", recipe)
    known = {field.name for field in fields(config.data)} - {"size"}
    given = {name: value for name, value in vars(asked.data).items() if name in known}
    size = asked.data.size or config.data.size
    return replace(
        config,
        data=replace(config.data, **given, size=size),
        run=replace(config.run, device=asked.device),
    )


def _flags_of(config: PretrainConfig, asked: CheckConfig, plan: Plan) -> Iterator[str]:
    """What was said of the images, and a batch that they fill, as flags of pretraining."""
    usual = type(asked.data)()
    for field in fields(config.data):
        value = getattr(asked.data, field.name, None)
        if field.name == "source" or value == getattr(usual, field.name, None):
            continue
        name = field.name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--data.{name}" if value else f"--data.no-{name}"
        else:
            values = value if isinstance(value, tuple) else (value,)
            yield from (f"--data.{name}", *map(str, values))
    if plan.training.batch != config.optim.batch:
        yield from ("--optim.batch", str(plan.training.batch))


def _plan(config: PretrainConfig, images: Images, measured: Measured) -> Plan:
    """What a run would do; of few images the batch takes what there are."""
    aside, image = default_held_out(len(images)), measured.image
    facts = DataFacts(
        training_images=len(images) - aside,
        held_out_images=aside,
        fingerprint="",
        decoded_bytes=measured.decoded_bytes,
    )
    batch = min(config.optim.batch, facts.training_images * config.data.repeats)
    config = replace(config, optim=replace(config.optim, batch=batch))
    encoder = resolve_encoder(config.model, size=image.size, channels=image.channels)
    spec = resolve_autoencoder(
        *(config.model, config.mask, config.target),
        size=image.size,
        channels=image.channels,
        given=asked_mask(config.mask, encoder.grid),
        vocabulary=TokenizerSpec.vocabulary,
    )
    machine = detect_machine(config.run.device)
    return resolve(config, model=spec, image=image, facts=facts, machine=machine, world_size=1)


def _draw(images: Images, config: PretrainConfig, plan: Plan) -> tuple[float, Image.Image]:
    """Milliseconds per sample, and a picture of some: as they are, cropped, masked."""
    loading = replace(plan.loading, keep_decoded=False)
    samples = TrainingSamples(images, MaskedSamples(config, plan), plan.image, loading)
    chosen = generator(loading.seed, len(images)).permutation(len(images))
    times = []
    for i in chosen[:TIMED_SAMPLES]:
        start = time.perf_counter()
        samples[SampleKey(0, int(i))]
        times.append(time.perf_counter() - start)
    rows = [_row(images, samples, int(i), plan) for i in chosen[:PICTURED]]
    return 1000 * statistics.median(times), sample_sheet(
        rows, f"What {images.name} looks like to the model", config.mask.ratio
    )


def _row(images: Images, samples: TrainingSamples, index: int, plan: Plan) -> SampleRow:
    spec, image = plan.model, plan.image
    assert isinstance(spec, MAESpec)
    drawn = [samples[SampleKey(epoch, index)] for epoch in range(DRAWS)]
    whole = load_centre_crops(images.subset([drawn[0].image]), image)
    crops = torch.cat([whole, torch.stack([sample.content[0] for sample in drawn])])
    shown = displayable(normalize(crops, image.mean, image.std), display_of(image))
    grid, noise = spec.encoder.grid, drawn[-1].content[1]
    mask = mask_from_noise(noise[None], grid, spec.visible, unit=spec.mask.unit)
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
