"""What `unmask check` finds out and suggests; `check_report` says it."""

import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import torch
from PIL import Image

from unmask.config.commands import CheckConfig, Fittable, PretrainConfig
from unmask.config.fields import check
from unmask.config.plan import Plan
from unmask.core.masking import mask_from_noise
from unmask.core.spec import MAESpec
from unmask.data.centre_crops import load_centre_crops
from unmask.data.images import Images
from unmask.data.inspect import Inspection, inspect
from unmask.data.normalize import normalize
from unmask.data.paths import slug
from unmask.data.sampler import SampleKey, generator
from unmask.data.samples import TrainingSamples
from unmask.data.sources.find import find_images, passed_over
from unmask.engine.machine import detect_machine
from unmask.errors import DataError
from unmask.tasks import find_recipe
from unmask.tasks.measure import read_layout
from unmask.tasks.pretrain import MaskedSamples
from unmask.tasks.reconstruction import display_of
from unmask.units import counted
from unmask.use.advise import (
    fit_to_images,
    fit_to_machine,
    plan_here,
    reading_here,
    usual_patches,
)
from unmask.use.check_annotations import AnnotationCheck, check_annotations
from unmask.use.check_report import LIST, BadShare, Check, one_colour_notes
from unmask.viz.samples import SampleRow, sample_sheet
from unmask.viz.tiles import displayable

SMALL_SIDE = 64
"""Images whose shorter side is below this get small patches."""
PICTURED, DRAWS = 6, 3


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
    wanted = read_layout(d, images)
    inspection = inspect(images, wanted)
    if len(inspection.bad) == inspection.images:
        first = inspection.bad[0]
        raise DataError(
            f"none of the {inspection.images} images can be read as "
            f"{counted(wanted.channels, 'channel')}, the first is {first.path} ({first.reason}): "
            f"correct them, or choose other --data.channels"
        )
    recipe, reason = asked.recipe, "as asked"
    if not recipe:
        recipe, reason = suggest_recipe(inspection, gpu=detect_machine(asked.device).device == "cuda")
    config, measured, advice = fit_to_images(_as_recipe(recipe, asked), images)
    plan = plan_here(config, images, measured)
    drawn, reading = _draw(images, config, plan), reading_here(config, images, plan)
    config = fit_to_machine(config, reading)
    prediction = replace(reading.prediction, plan=plan_here(config, images, measured))
    reading = replace(reading, prediction=prediction)
    bad = BadShare.of(images, inspection, config.data.max_bad_share)
    folder = Path(asked.out or f"runs/check-{slug(images.name)}")
    alone = next((folder / LIST for one in annotations if one.are_among_images), None)
    sources = (str(alone),) if alone else annotations[0].folders if annotations else d.source
    begin = ["unmask", "pretrain", *sources, "--recipe", recipe]
    flags = [*_flags_of(config, asked, plan), *_fitted_flags(config, _as_recipe(recipe, asked))]
    return Check(
        name=images.name,
        inspection=inspection,
        ignored=passed_over(d.source),
        image=measured.image,
        recipe=recipe,
        reason=reason,
        prediction=prediction,
        reading=reading,
        samples=drawn,
        folder=folder,
        listed=images.paths if alone else (),
        commands=tuple(_commands([*begin, *flags], annotations, bad)),
        notes=(*measured.notes, *one_colour_notes(inspection), *bad.notes()),
        annotations=tuple(annotations),
        advice=advice,
    )


def _commands(pretrain: list[str], annotations: list[AnnotationCheck], bad: BadShare) -> Iterator[str]:
    """What to type next, and nothing that would stop at what was found."""
    more = ["--data.max-bad-share", bad.enough] if bad.stops_a_run else []
    if bad.held_out < 1:
        yield shlex.join([*pretrain, *more])
    for found in annotations:
        if not found.problems:
            yield shlex.join([*shlex.split(found.command), *more])


def suggest_recipe(inspection: Inspection, *, gpu: bool) -> tuple[str, str]:
    """A recipe's name, and why it suits these images and this machine."""
    if not gpu:
        return "laptop", "there is no GPU here, and it takes about half an hour on a processor"
    if min(inspection.median) < SMALL_SIDE:
        return "small-images", f"the shorter side is below {SMALL_SIDE} pixels: small patches"
    return "vit-base-800", "the paper's smallest model, on a GPU"


def _as_recipe(recipe: str, asked: CheckConfig) -> PretrainConfig:
    """The recipe's run on these images, to be fitted to them if none was asked for."""
    config: PretrainConfig = find_recipe("pretrain", recipe)
    fit = config.fit if asked.recipe else get_args(Fittable)
    if asked.data.size is not None:
        fit = tuple(name for name in fit if name != "size")
    known = {field.name for field in fields(config.data)} - {"size"}
    given = {name: value for name, value in vars(asked.data).items() if name in known}
    size = asked.data.size or config.data.size
    return replace(
        config,
        fit=fit,
        data=replace(config.data, **given, size=size),
        run=replace(config.run, device=asked.device),
    )


def _flags_of(config: PretrainConfig, asked: CheckConfig, plan: Plan) -> Iterator[str]:
    """The user's settings of the images, and a batch that they fill, as flags of pretraining."""
    usual = type(asked.data)()
    for field in fields(config.data):
        value = getattr(asked.data, field.name, None)
        if field.name == "source" or value == getattr(usual, field.name, None):
            continue
        name = field.name.replace("_", "-")
        if isinstance(value, bool) and getattr(usual, field.name) is not None:
            yield f"--data.{name}" if value else f"--data.no-{name}"
        else:
            values = value if isinstance(value, tuple) else (value,)
            yield from (f"--data.{name}", *map(str, values))
    if plan.training.batch != config.optim.batch:
        yield from ("--optim.batch", str(plan.training.batch))


def _fitted_flags(config: PretrainConfig, recipe: PretrainConfig) -> Iterator[str]:
    """What was fitted to images and machine, if it differs from the recipe."""
    if config.data.size != recipe.data.size:
        yield from ("--data.size", *map(str, config.data.size))
    if usual_patches(config) != usual_patches(recipe):
        yield from ("--model.patch", *map(str, usual_patches(config)))
    if config.mask.ratio != recipe.mask.ratio:
        yield from ("--mask.ratio", f"{config.mask.ratio:g}")
    if config.optim.steps != recipe.optim.steps:
        yield from ("--optim.steps", str(config.optim.steps))


def _draw(images: Images, config: PretrainConfig, plan: Plan) -> Image.Image:
    """Some images as they are, cropped, masked."""
    samples = TrainingSamples(images, MaskedSamples(config, plan), plan.image, plan.loading)
    chosen = generator(plan.loading.seed, len(images)).permutation(len(images)).tolist()
    rows = [_row(images, samples, i, plan) for i in chosen[:PICTURED]]
    return sample_sheet(rows, f"What {images.name} looks like to the model", config.mask.ratio)


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
