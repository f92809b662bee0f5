"""A pre-training run: what `run_job` is told of it."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unmask.config.plan import DataFacts, DataPlan, Machine, Plan
from unmask.config.resolve import pair, pixel_format, resolve
from unmask.config.schema import DataConfig, PretrainConfig
from unmask.core.mae import MaskedAutoencoder
from unmask.data.images import Images
from unmask.data.loader import load_centre_crops
from unmask.data.sources.find import default_held_out, find_images, slug
from unmask.data.statistics import find_layout, measure_pixels
from unmask.distributed.processes import Processes
from unmask.engine.run_directory import RunDirectory
from unmask.engine.task import Task
from unmask.errors import DataError
from unmask.interop.description import Description
from unmask.interop.weights import initialize_from, read_weights
from unmask.tasks.features import (
    FeatureRank,
    LabelledFeatures,
    ProbeImages,
    find_probe_images,
    images_to_rank,
)
from unmask.tasks.pretrain import PICTURED_IMAGES, PretrainTask
from unmask.tasks.run import numbers, remembered_facts
from unmask.tasks.summary import last_features, last_measurement, write_summary


@dataclass(frozen=True)
class Dataset:
    """The images of a run, split, and what was measured of them."""

    training: Images
    held_out: Images
    facts: DataFacts
    probe: ProbeImages | None


@dataclass(frozen=True)
class Pretraining:
    """The job of `unmask pretrain`."""

    config: PretrainConfig
    title = "Pre-training run"

    def path(self) -> Path:
        """`--out`, or a name made of the data's."""
        names = "-".join(slug(source) for source in self.config.data.source)
        return Path(self.config.out or f"runs/pretrain-{names}")

    def look_at(self, processes: Processes, run: RunDirectory | None) -> Dataset:
        """Finds and splits the images, and measures what was not given."""
        d = self.config.data
        images = find_images(d.source, root=d.root, download=d.download)
        held_out = default_held_out(len(images)) if d.held_out is None else d.held_out
        if not 0 <= held_out < len(images):
            raise DataError(
                f"--data.held-out {held_out} leaves no training image of {len(images)}: choose less"
            )
        fingerprint = images.fingerprint()
        processes.agree("list of images", fingerprint)
        training, aside = images.split(held_out)
        probe = find_probe_images(self.config.probe, d, training)
        facts = remembered_facts(run, fingerprint)
        if facts is None:
            measured = (
                measure(self.config, training, held_out, fingerprint) if processes.is_main else None
            )
            facts = processes.from_main(measured)
        return Dataset(training, aside, facts, probe)

    def plan(self, data: Dataset, machine: Machine, processes: int) -> Plan:
        """Every `auto` as a value."""
        return resolve(self.config, facts=data.facts, machine=machine, world_size=processes)

    def introduce(self, data: Dataset, plan: Plan) -> Iterator[str]:
        """Sentences about the images."""
        f = plan.facts
        yield (
            f"{f.training_images} training images and {f.held_out_images} held out, "
            f"{f.channels} channel(s), mean {numbers(f.mean)}, std {numbers(f.std)}"
        )
        if data.probe:
            yield data.probe.sentence()

    def training_images(self, data: Dataset) -> Images:
        """All but those held out."""
        return data.training

    def task(
        self, data: Dataset, plan: Plan, processes: Processes, *, begins: bool
    ) -> tuple[Task, list[str]]:
        """A new model, or one that starts from `--init`."""
        config, said = self.config, []
        model = new_model(plan)
        if config.init and begins:
            said.append(initialize_from(model, read_weights(config.init), config.init))
        held_out = data.held_out if len(data.held_out) else first(data.training, 2 * PICTURED_IMAGES)
        other = None
        if config.data.other:
            elsewhere = find_images(config.data.other, root=config.data.root)
            other = crops(first(elsewhere, PICTURED_IMAGES), plan.data)
        task = PretrainTask(
            model,
            plan,
            processes.device,
            held_out=crops(held_out, plan.data),
            other=other,
            features=self._features(data, plan),
        )
        return task, said

    def _features(self, data: Dataset, plan: Plan) -> FeatureRank | LabelledFeatures | None:
        if data.probe:
            return LabelledFeatures(data.probe, plan.data)
        ranked = images_to_rank(self.config.probe, data.training, plan.architecture.width)
        return FeatureRank(ranked, plan.data) if len(ranked) else None

    def describe(self, data: Dataset, plan: Plan, *, averaged: bool) -> Description:
        """model.json of the finished run."""
        config = self.config
        origin = f"started from {config.init}, whose licence holds too" if config.init else ""
        return Description(
            architecture=plan.architecture,
            mean=plan.facts.mean,
            std=plan.facts.std,
            pixel_type=plan.facts.pixel_type,
            display=plan.data.display,
            recipe=config.recipe,
            data=data.training.name,
            steps=plan.training.steps,
            weights="running average" if averaged else "last step",
            licence_note="; ".join(filter(None, [data.training.licence_note, origin])),
        )

    def summarize(self, run: RunDirectory, plan: Plan, title: str) -> None:
        """Curves and report."""
        write_summary(run, plan, title)

    def conclude(self, run: RunDirectory, step: int) -> Iterator[str]:
        """Held-out error, and how to look at more."""
        yield last_measurement(run)
        if features := last_features(run):
            yield f"  features         {features}"
        yield f"  reconstructions  {run.samples / f'reconstruction-{step:08d}.png'}"
        yield f"next: {shlex.join(['unmask', 'reconstruct', 'IMAGES', '--init', str(run.path)])}"


def measure(config: PretrainConfig, training: Images, held_out: int, fingerprint: str) -> DataFacts:
    """Channels, mean and deviation, where they were not given."""
    d = config.data
    layout = find_layout(training, d.channels)
    check_statistics(d, layout.channels)
    wanted = pixel_format(d, layout.channels, layout.pixel_type)
    pixels = measure_pixels(training, size=pair("data.size", d.size), wanted=wanted)
    return DataFacts(
        training_images=len(training),
        held_out_images=held_out,
        channels=layout.channels,
        mean=d.mean or pixels.mean,
        std=d.std or pixels.std,
        fingerprint=fingerprint,
        decoded_bytes=pixels.decoded_bytes,
        pixel_type=layout.pixel_type,
    )


def check_statistics(d: DataConfig, channels: int) -> None:
    """Raises ValueError where the given mean or deviation is not one number per channel."""
    for name, given in (("mean", d.mean), ("std", d.std)):
        if given is not None and len(given) != channels:
            raise ValueError(
                f"--data.{name} has {len(given)} values for {channels} channels: give one each"
            )


def crops(images: Images, plan: DataPlan) -> Tensor:
    """Centre crops as the run's model takes them, before normalisation."""
    return load_centre_crops(images, size=plan.image_size, wanted=plan.pixels)


def first(images: Images, count: int) -> Images:
    """The first images, or all of fewer."""
    return images.subset(range(min(count, len(images))))


def new_model(plan: Plan) -> MaskedAutoencoder:
    """Freshly initialised from the run's seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.training.seed)
        return MaskedAutoencoder(plan.architecture)
