"""A classification run: what `run_job` is told of it."""

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from unmask.config.plan import DataFacts, Machine
from unmask.config.resolve import pair, pixel_format, resolve_architecture
from unmask.config.resolve_classify import ClassifyPlan, resolve_classification
from unmask.config.schema import ModelConfig, PretrainConfig
from unmask.config.schema_classify import ClassifyConfig
from unmask.core.mae import Architecture, new_encoder
from unmask.data.bad_images import BadImageLog
from unmask.data.images import Images
from unmask.data.labels import Labelled, class_weights, take_fraction
from unmask.data.sources.find import slug
from unmask.data.statistics import find_layout, measure_pixels
from unmask.distributed.processes import Processes
from unmask.engine.run_directory import RunDirectory
from unmask.engine.task import Task
from unmask.interop.description import Description, Head, Weights
from unmask.interop.fit import encoder_for
from unmask.interop.weights import read_weights
from unmask.models.classifier import Classifier, set_trainable
from unmask.tasks.classify import ClassifyTask
from unmask.tasks.launch import check_statistics
from unmask.tasks.run import numbers, remembered_facts
from unmask.tasks.summary import last_scores, write_classification_summary
from unmask.tasks.trained import find_split
from unmask.tasks.validation import Validation, View

DEFAULT_SIZE = (224,)


@dataclass(frozen=True)
class Dataset:
    """The images of a run with their labels, and what was measured of them."""

    training: Labelled
    validation: Labelled
    facts: DataFacts
    notes: tuple[str, ...]
    init: Weights | None


@dataclass(frozen=True)
class Classification:
    """The job of `unmask finetune`, `probe` and `scratch`."""

    config: ClassifyConfig
    command: str

    @property
    def title(self) -> str:
        """Of the report."""
        return {"finetune": "Fine-tuning", "probe": "Linear probe"}.get(self.command, "From scratch")

    def path(self) -> Path:
        """`--out`, or a name made of the command and the data."""
        names = "-".join(slug(source) for source in self.config.data.source)
        return Path(self.config.out or f"runs/{self.command}-{names}")

    def look_at(self, processes: Processes, run: RunDirectory | None) -> Dataset:
        """Finds images and labels, and what the encoder or a measurement says of pixels."""
        d = self.config.data
        _check_command(self.config, self.command)
        init = read_weights(self.config.init).encoder_only() if self.config.init else None
        split = find_split(d)
        training = take_fraction(
            split.training, fraction=d.fraction, per_class=d.per_class, seed=d.subset_seed
        )
        fingerprint = f"{fingerprint_of(training)}; validation {fingerprint_of(split.validation)}"
        processes.agree("list of images and labels", fingerprint)
        facts = remembered_facts(run, fingerprint)
        if facts is None:
            found = self._facts(training.images, init, fingerprint) if processes.is_main else None
            facts = processes.from_main(found)
            facts = replace(facts, held_out_images=len(split.validation.labels))
        return Dataset(training, split.validation, facts, split.notes, init)

    def _facts(self, images: Images, init: Weights | None, fingerprint: str) -> DataFacts:
        """Mean, deviation and type of pixels are the encoder's, where it has as many channels."""
        d, config = self.config.data, self.config
        description = init.description if init else None
        usual = description.architecture.channels if description else None
        layout = find_layout(images, d.channels or usual)
        check_statistics(d, layout.channels)
        if layout.channels != usual:
            description = None
        wanted = pixel_format(
            d, layout.channels, description.pixel_type if description else layout.pixel_type
        )
        size = pair("data.size", _size(config, init))
        pixels = measure_pixels(images, size=size, wanted=wanted)
        return DataFacts(
            training_images=len(images),
            held_out_images=0,
            channels=wanted.channels,
            mean=d.mean or (description.mean if description else pixels.mean),
            std=d.std or (description.std if description else pixels.std),
            fingerprint=fingerprint,
            decoded_bytes=pixels.decoded_bytes,
            pixel_type=wanted.pixel_type,
        )

    def plan(self, data: Dataset, machine: Machine, processes: int) -> ClassifyPlan:
        """Every `auto` as a value."""
        return resolve_classification(
            self.config,
            self._architecture(data),
            classes=data.training.classes,
            facts=data.facts,
            machine=machine,
            world_size=processes,
        )

    def _architecture(self, data: Dataset) -> Architecture:
        size = _size(self.config, data.init)
        if data.init:
            a = data.init.description.architecture
            return replace(a, image_size=pair("data.size", size), channels=data.facts.channels)
        asked = PretrainConfig(model=self.config.model)
        asked = replace(asked, data=replace(asked.data, size=size))
        return resolve_architecture(asked, channels=data.facts.channels)

    def introduce(self, data: Dataset, plan: ClassifyPlan) -> Iterator[str]:
        """Sentences about images and classes."""
        f = plan.facts
        yield from data.notes
        yield from _without_effect(self.config)
        if self.command == "scratch" and plan.layer_decay < 1:
            yield (
                f"a layer decay of {plan.layer_decay:g} slows the first blocks of a new encoder down: "
                f"--optim.layer-decay 1 is usual from scratch"
            )
        yield (
            f"{f.training_images} training images and {f.held_out_images} for validation in "
            f"{len(plan.classes)} classes, {f.channels} channel(s), mean {numbers(f.mean)}, std "
            f"{numbers(f.std)}"
        )

    def training_images(self, data: Dataset) -> Images:
        """Those whose labels are used."""
        return data.training.images

    def task(
        self, data: Dataset, plan: ClassifyPlan, processes: Processes, *, begins: bool
    ) -> tuple[Task, list[str]]:
        """The encoder with a new head, and what of it is trained."""
        model, said = new_classifier(plan, data.init)
        trained = set_trainable(model, plan.head.tune_blocks)
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        count = sum(sizes[name] for name in trained)
        said.append(f"{count:,} of {sum(sizes.values()):,} parameters are trained")
        task = ClassifyTask(
            model,
            plan,
            processes.device,
            training=data.training,
            weights=self._sample_weights(data.training),
            validation=self._validation(data, plan),
        )
        return task, said

    def _validation(self, data: Dataset, plan: ClassifyPlan) -> Validation:
        bad_images = BadImageLog(
            self.path() / "bad_images.jsonl",
            images=len(data.validation),
            max_share=plan.data.max_bad_share,
            part="validation",
        )
        return Validation(data.validation, View.of(plan.data), bad_images=bad_images)

    def _sample_weights(self, training: Labelled) -> np.ndarray | None:
        if not self.config.data.balance:
            return training.weights
        balance = class_weights(training.labels, len(training.classes))[training.labels]
        return balance if training.weights is None else balance * training.weights

    def describe(self, data: Dataset, plan: ClassifyPlan, *, averaged: bool) -> Description:
        """model.json of the finished run."""
        init, images = data.init, data.training.images
        origin = init.description.licence_note if init else ""
        return Description(
            kind="classifier",
            architecture=plan.architecture,
            mean=plan.facts.mean,
            std=plan.facts.std,
            pixel_type=plan.facts.pixel_type,
            display=plan.data.display,
            has_decoder=False,
            head=Head(
                classes=plan.classes,
                pool=plan.head.pool,
                batch_norm=plan.head.batch_norm,
                eval_crop=plan.data.eval_crop,
                precision=plan.training.precision,
            ),
            recipe=self.config.recipe,
            data=images.name,
            steps=plan.training.steps,
            weights="running average" if averaged else "last step",
            licence_note="; ".join(dict.fromkeys(filter(None, [images.licence_note, origin]))),
        )

    def summarize(self, run: RunDirectory, plan: ClassifyPlan, title: str) -> None:
        """Curves and report."""
        write_classification_summary(run, plan, title)

    def conclude(self, run: RunDirectory, step: int) -> Iterator[str]:
        """Accuracy, and how to use the classifier."""
        yield last_scores(run)
        yield f"  confusion        {run.samples / f'confusion-{step:08d}.png'}"
        yield f"next: {shlex.join(['unmask', 'predict', 'IMAGES', '--init', str(run.path)])}"


def new_classifier(plan: ClassifyPlan, init: Weights | None) -> tuple[Classifier, list[str]]:
    """From the run's seed, or with the encoder of `init`; the head is always new."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.training.seed)
        encoder, said = new_encoder(plan.architecture), ["encoder and head are new"]
        if init:
            a = plan.architecture
            encoder, changes = encoder_for(
                init,
                image_size=a.image_size,
                channels=a.channels,
                final_norm=plan.head.pool == "class",
            )
            said = ["; ".join(["the encoder is the given one, the head is new", *changes])]
        model = Classifier(
            encoder,
            classes=len(plan.classes),
            pool=plan.head.pool,
            normalize_features=plan.head.batch_norm,
        )
    return model, said


def _check_command(config: ClassifyConfig, command: str) -> None:
    if command == "scratch" and config.init:
        raise ValueError("scratch starts from nothing: leave --init out, or write unmask finetune")
    if command != "scratch" and not config.init:
        raise ValueError(
            f"{command} needs an encoder: write --init RUN, a run directory or a file, or use scratch"
        )
    if command == "probe" and config.head.tune_blocks != 0:
        raise ValueError(
            "probe trains the head alone and these settings more than that: write --recipe small-probe, "
            "--head.tune-blocks 0, or unmask finetune"
        )
    if config.init and config.model != ModelConfig():
        raise ValueError(
            "--model.* is of runs from scratch, and --init says what the encoder is: leave it out"
        )


def _without_effect(config: ClassifyConfig) -> Iterator[str]:
    """A sentence on each setting that this kind of run does not use, and that is not the usual one."""
    names = ["data.held_out", "data.other", *(f"model.decoder_{n}" for n in ("width", "depth", "heads"))]
    names.append("optim.momentum" if config.optim.optimizer == "adamw" else "optim.betas")
    usual = ClassifyConfig()
    for name in names:
        section, field = name.split(".")
        if getattr(getattr(config, section), field) != getattr(getattr(usual, section), field):
            yield f"--{name.replace('_', '-')} changes nothing here"


def fingerprint_of(labelled: Labelled) -> str:
    """Changes when an image or a label does."""
    labels = hashlib.blake2b(labelled.labels.tobytes(), digest_size=4).hexdigest()
    return f"{labelled.images.fingerprint()}, labels {labels}"


def _size(config: ClassifyConfig, init: Weights | None) -> tuple[int, ...]:
    if config.data.size is not None:
        return config.data.size
    return init.description.architecture.image_size if init else DEFAULT_SIZE
