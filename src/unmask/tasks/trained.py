"""A trained model made ready for use: its weights, its view of images, its arithmetic."""

import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from unmask.bench.setting import threads
from unmask.config.plan import Machine
from unmask.config.resolve import check_range, default_workers, display_bands, pair, pixel_format
from unmask.config.resolve_classify import RANGES, eval_crop
from unmask.config.schema import Device
from unmask.config.schema_classify import LabelledDataConfig
from unmask.config.schema_use import EvaluateConfig, KnnConfig
from unmask.data.labels import Split, find_labelled
from unmask.data.loader import CropBatch
from unmask.engine.machine import arithmetic, detect_machine
from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError
from unmask.interop.description import Description
from unmask.interop.fit import at_size
from unmask.interop.weights import Model, build, read_weights
from unmask.models.classifier import Classifier
from unmask.tasks.validation import View, Watch

LOOK = {"source", "size", "eval_crop", "display", "max_bad_share", "max_megapixels", "workers"}
DIVISION = {"root", "download", "val", "val_share", "label_column"}
CHOICE_OF_LABELS = {"fraction", "per_class", "subset_seed"}
"""Settings of the data that do something where no encoder is trained: always, or sometimes."""


@dataclass(frozen=True)
class Trained:
    """A model on its device, and how it looks at images."""

    model: Model
    description: Description
    view: View
    machine: Machine
    threads: int | None
    """Those of its run, where there was one: sums depend on them in the last digits."""

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """As in the model's own evaluation."""
        head = self.description.head
        precision = head.precision if head else "fp32"
        with threads(self.threads), arithmetic(self.machine.device, precision):
            yield

    def classifier(self, init: str) -> Classifier:
        """Raises CheckpointError where it is none."""
        if isinstance(self.model, Classifier):
            return self.model
        raise CheckpointError(
            f"{init} has no head that knows classes: train one with unmask finetune DATA --init {init}, "
            f"or classify by neighbours with unmask knn"
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """What its head knows."""
        return self.description.head.classes if self.description.head else ()


def read_trained(command: str, init: str, d: LabelledDataConfig, device: Device) -> Trained:
    """Reads what --init names. Raises ValueError or CheckpointError with the mend."""
    if not init:
        raise ValueError(f"{command} needs a model: write --init RUN, a run directory or a file")
    weights = read_weights(init)
    usual_size = weights.description.architecture.image_size
    size = usual_size if d.size is None else pair("data.size", d.size)
    if size != usual_size:
        weights = at_size(weights, size)
    machine = detect_machine(device)
    view = view_of(weights.description, d, machine, resized=size != usual_size)
    model = build(weights).to(machine.device)
    return Trained(model, weights.description, view, machine, _threads_of(Path(init), machine))


def view_of(description: Description, d: LabelledDataConfig, machine: Machine, *, resized: bool) -> View:
    """How a described model looks at images: as it was evaluated, unless the settings say otherwise."""
    a, head = description.architecture, description.head
    asked = head.eval_crop if head and not resized and d.eval_crop is None else d.eval_crop
    return View(
        size=a.image_size,
        pixels=pixel_format(d, a.channels, description.pixel_type),
        mean=description.mean,
        std=description.std,
        eval_crop=eval_crop(asked, a),
        workers=default_workers(machine) if d.workers is None else d.workers,
        display=display_bands(d.display, a.channels) or description.display,
    )


def check_data_settings(config: EvaluateConfig | KnnConfig) -> None:
    """Raises ValueError where a number is outside what makes sense."""
    for name, limits in RANGES.items():
        if name.startswith("data."):
            check_range(config, name, limits)


def find_split(d: LabelledDataConfig) -> Split:
    """The labelled images that these settings name, divided as training divides them."""
    return find_labelled(
        d.source,
        val=d.val,
        root=d.root,
        download=d.download,
        label_column=d.label_column,
        val_share=d.val_share,
    )


def as_in_training(init: str, d: LabelledDataConfig) -> tuple[LabelledDataConfig, list[str]]:
    """The settings, dividing the data of a run as it was divided in its training; and notes.

    What the settings say themselves stays.
    """
    asked = (RunDirectory(Path(init)).read("config.json") or {}) if Path(init).is_dir() else {}
    trained = asked.get("data", {})
    if list(map(os.path.abspath, trained.get("source", ()))) != list(map(os.path.abspath, d.source)):
        return d, []
    usual, changes, notes = LabelledDataConfig(), dict[str, Any](), list[str]()
    for name in ("val", "val_share", "label_column"):
        was = trained.get(name, getattr(usual, name))
        was = tuple(was) if isinstance(was, list) else was
        flag = f"--data.{name.replace('_', '-')}"
        if getattr(d, name) == getattr(usual, name) != was:
            changes[name] = was
            notes.append(f"divided as in training: {flag} {_words(was)}")
        elif getattr(d, name) != was:
            notes.append(
                f"the training was with {flag} {_words(was)}: it may have seen some of these images"
            )
    return replace(d, **changes), notes


def _words(value: object) -> str:
    return shlex.join(value) if isinstance(value, tuple) else str(value)


def notes_on_ignored(d: LabelledDataConfig, used: set[str]) -> list[str]:
    """A sentence on each setting of the data that is not used, and not the usual one either."""
    usual = LabelledDataConfig()
    names = [f.name for f in fields(d) if f.name not in used]
    changed = [name for name in names if getattr(d, name) != getattr(usual, name)]
    return [f"--data.{name.replace('_', '-')} changes nothing here" for name in changed]


def watched(title: str) -> Watch:
    """A progress bar, where the output is a terminal."""

    def watch(batches: Iterable[CropBatch], total: int) -> Iterable[CropBatch]:
        shown = Console().is_terminal
        return track(batches, title, total=total, transient=True) if shown else batches

    return watch


def _threads_of(init: Path, machine: Machine) -> int | None:
    """None where this machine has too few cores for them, so that the last digits differ anyway."""
    recorded = (RunDirectory(init).read("env.json") or {}).get("threads") if init.is_dir() else None
    return recorded if isinstance(recorded, int) and 1 <= recorded <= machine.cores else None
