"""A trained model made ready for use: its weights, how it sees images, its arithmetic."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch

from unmask.config.fields import pair
from unmask.config.image import ImageSpec, usual_crop
from unmask.config.io import from_dict
from unmask.config.migrate import known
from unmask.config.plan import LoadingPlan, Machine
from unmask.config.resolve import default_workers, display_bands, either
from unmask.config.settings import Device, Labels, Source, View
from unmask.core.spec import MAESpec
from unmask.data.workers import READ_SECONDS
from unmask.engine.machine import arithmetic, detect_machine, threads
from unmask.engine.run_directory import RunDirectory, environment_of
from unmask.errors import CheckpointError
from unmask.interop.description import Description
from unmask.interop.fit import at_size
from unmask.interop.models import Model, build
from unmask.interop.weights import read_asked, run_folder
from unmask.models.classifier import Classifier
from unmask.models.classifier_spec import EncoderSpec
from unmask.models.tokenizer_spec import TokenizerSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Trained:
    """A model on its device, and how it looks at images."""

    model: Model
    description: Description
    image: ImageSpec
    loading: LoadingPlan
    machine: Machine
    threads: int | None
    """Those of its run, if there was one: sums depend on them in the last digits."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.machine.device)

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """As in the evaluation of its own run if it has a head; features are computed in float32."""
        d = self.description
        has_head = not isinstance(d.model, MAESpec | EncoderSpec)
        with (
            threads(self.threads),
            arithmetic(self.machine.device, d.precision if has_head else "fp32"),
        ):
            yield

    def classifier(self, init: str) -> Classifier:
        """Raises CheckpointError if it is none."""
        if isinstance(self.model, Classifier):
            return self.model
        if isinstance(self.description.model, TokenizerSpec):
            raise CheckpointError(
                f"{init} is a tokenizer, which knows no classes: give a run of unmask finetune, probe "
                f"or scratch"
            )
        raise CheckpointError(
            f"{init} has no head that knows classes: train one with unmask finetune DATA --init {init}, "
            f"or classify by neighbours with unmask knn"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """What its head knows."""
        classifier = self.description.classifier
        return classifier.classes if classifier else ()

    @property
    def is_named(self) -> bool:
        """Whether these are names, and not numbers that stand in for unknown ones."""
        classifier = self.description.classifier
        return classifier is None or classifier.named


def read_trained(
    command: str,
    init: str,
    *,
    heads: int | None = None,
    view: View | None = None,
    device: Device = "auto",
    workers: int | None = None,
    max_megapixels: float = 200.0,
    timeout: float = READ_SECONDS,
) -> Trained:
    """Reads what --init names; `heads` are for weights that do not say them.

    Raises ValueError or CheckpointError with a fix.
    """
    if not init:
        raise ValueError(f"{command} needs a model: write --init RUN, a run directory or a file")
    view = view or View()
    weights = read_asked(init, heads)
    size = usual = weights.description.image.size
    if view.size is not None:
        size = pair("data.size", view.size)
    if size != usual:
        weights = at_size(weights, size)
    machine = detect_machine(device)
    loading = LoadingPlan(
        seed=0,
        repeats=1,
        workers=either(workers, default_workers(machine)),
        keep_decoded=False,
        max_bad_share=1.0,
        max_megapixels=max_megapixels,
        timeout=timeout,
    )
    return Trained(
        model=build(weights).to(machine.device),
        description=weights.description,
        image=_image(weights.description, view, resized=size != usual),
        loading=loading,
        machine=machine,
        threads=_threads_of(init, machine),
    )


def _image(d: Description, view: View, *, resized: bool) -> ImageSpec:
    """How a described model sees images: as it was evaluated, unless the settings say otherwise."""
    crop = view.eval_crop
    if crop is None:
        known = d.classifier is not None and not resized
        crop = d.image.eval_crop if known else usual_crop(d.image.size)
    display = display_bands(view.display, d.image.channels) or d.image.display
    return replace(d.image, eval_crop=crop, display=display)


def as_in_training(init: str, d: Any) -> tuple[Any, bool, list[str]]:
    """The sections Source and Labels, dividing the data of a run as it was divided in its training.

    Also whether these are its data, and notes. What the settings say themselves stays.
    """
    source = data_of_run(init, Source).source
    if list(map(os.path.abspath, source)) != list(map(os.path.abspath, d.source)):
        return d, False, []
    trained, usual, changes, notes = data_of_run(init, Labels), Labels(), dict[str, Any](), list[str]()
    for name in (field.name for field in fields(Labels)):
        was = getattr(trained, name)
        flag = f"--data.{name.replace('_', '-')}"
        if getattr(d, name) == getattr(usual, name) != was:
            changes[name] = was
            notes.append(f"divided as in training: {flag} {_words(was)}")
        elif getattr(d, name) != was:
            notes.append(
                f"the training was with {flag} {_words(was)}: it may have seen some of these images"
            )
    return replace(d, **changes), True, notes


def _words(value: object) -> str:
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def notes_on_labels(d: Labels, used: tuple[str, ...] = ()) -> list[str]:
    """A sentence on each setting of the division that is not used here, and not the usual one either."""
    usual = Labels()
    names = [field.name for field in fields(Labels) if field.name not in used]
    changed = [name for name in names if getattr(d, name) != getattr(usual, name)]
    return [f"--data.{name.replace('_', '-')} changes nothing here" for name in changed]


def refuse_if_given(flag: str, value: object, *, of: str, init: str, kind: str) -> None:
    """Raises ValueError unless a flag that is of other models is None."""
    if value is not None:
        raise ValueError(f"{flag} {value} is of {of}, and {init} is a {kind}: leave it out")


def data_of_run(init: str, section: type[T]) -> T:
    """Settings of the data in the training of a model; the usual ones if they are not known.

    Raises CheckpointError if the config.json of its run is damaged.
    """
    run = run_folder(init)
    asked = RunDirectory(run).read("config.json") if run is not None else None
    data = asked.get("data", {}) if isinstance(asked, dict) else {}
    try:
        return from_dict(section, known(data, section), "data.")
    except ValueError as error:
        raise CheckpointError(
            f"{run}/config.json cannot be used ({error}): restore it, or remove it if the data are not "
            f"those of the training"
        ) from error


def _threads_of(init: str, machine: Machine) -> int | None:
    """None if this machine has too few cores for them, so that the last digits differ anyway."""
    run = run_folder(init)
    recorded = (environment_of(RunDirectory(run))[0] or {}).get("threads") if run is not None else None
    return recorded if isinstance(recorded, int) and 1 <= recorded <= machine.cores else None
