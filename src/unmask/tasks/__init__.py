"""The training tasks: one file each. This registry is open, and imports none of them by itself."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from unmask.recipes import choose_recipe


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A training command as the command line knows it, without importing torch."""

    summary: str
    """In the list of commands."""
    description: str
    """In its help."""
    task: str
    """module:class"""
    recipes: str
    """module:name of the mapping from names to functions."""
    recipe: str
    """What to begin with."""
    model: str
    """The type of its models' specs."""
    evaluate: str = ""
    predict: str = ""
    """module:function that serves `unmask evaluate` and `unmask predict` for its models."""

    def load(self) -> type[Any]:
        """The task's class."""
        return _named(self.task)

    def known_recipes(self) -> Mapping[str, Callable[[], Any]]:
        """Recipes by their names."""
        return _named(self.recipes)


TASKS: dict[str, Entry] = {
    "pretrain": Entry(
        summary="masked autoencoding on any folder of images; no labels needed",
        description="Masked autoencoding on any nested folder of images, no labels needed.",
        task="unmask.tasks.pretrain:Pretrain",
        recipes="unmask.recipes.pretrain:PRETRAIN",
        recipe="laptop",
        model="masked-autoencoder",
    ),
    "tokenizer": Entry(
        summary="train a discrete VAE, whose tokens pre-training can predict",
        description=(
            "Trains a discrete VAE on any folder of images, for unmask pretrain --target.kind tokens "
            "--target.tokenizer RUN (paper, Table 1d)."
        ),
        task="unmask.tasks.tokenizer:TrainTokenizer",
        recipes="unmask.recipes.tokenizer:TOKENIZER",
        recipe="laptop-tokenizer",
        model="tokenizer",
    ),
    "finetune": Entry(
        summary="train an encoder and a new head on labels, in whole or in part",
        description=(
            "Trains a pre-trained encoder and a new head on labelled images. --tune-blocks K tunes the "
            "last K blocks alone; 0.5 is half a block."
        ),
        task="unmask.tasks.classify:Finetune",
        recipes="unmask.recipes.classify:FINETUNE",
        recipe="small-data",
        model="classifier",
        evaluate="unmask.use.evaluate:run_evaluation",
        predict="unmask.use.predict:run_prediction",
    ),
    "probe": Entry(
        summary="a linear classifier on a frozen encoder",
        description="Trains a linear classifier on the frozen encoder's features (paper, Table 10).",
        task="unmask.tasks.classify:Probe",
        recipes="unmask.recipes.classify:PROBE",
        recipe="small-probe",
        model="classifier",
        evaluate="unmask.use.evaluate:run_evaluation",
        predict="unmask.use.predict:run_prediction",
    ),
    "scratch": Entry(
        summary="train the same from random weights, to compare with",
        description=(
            "Trains a new encoder and head on labels alone (paper, Table 11): what pre-training has to "
            "beat."
        ),
        task="unmask.tasks.classify:Scratch",
        recipes="unmask.recipes.classify:SCRATCH",
        recipe="small-scratch",
        model="classifier",
        evaluate="unmask.use.evaluate:run_evaluation",
        predict="unmask.use.predict:run_prediction",
    ),
    "detect": Entry(
        summary="train a detector: boxes, classes and masks of objects",
        description=(
            "Trains an encoder that becomes a Mask R-CNN (paper, Table 4) on images with objects: DATA "
            "is a folder with COCO's annotations or PASCAL VOC's, or a .csv of boxes. --init RUN begins "
            "with any encoder, --scratch with a new one."
        ),
        task="unmask.tasks.detect:Detect",
        recipes="unmask.recipes.detect:DETECT",
        recipe="small-detect",
        model="detector",
        evaluate="unmask.use.detect:run_evaluation",
        predict="unmask.use.detect:run_prediction",
    ),
    "segment": Entry(
        summary="train a segmenter: UperNet, or a linear layer on every patch",
        description=(
            "Trains an encoder and a head on images with label maps: DATA is ADE20K's layout, a folder "
            "with the folders images and labels (or masks), or one with COCO's or labelme's JSON. "
            "--init RUN begins with a pre-trained encoder, --scratch with a new one. --head linear "
            "--head.frozen is the dense linear probe."
        ),
        task="unmask.tasks.segment:Segment",
        recipes="unmask.recipes.segment:SEGMENT",
        recipe="small-segment",
        model="segmenter",
        evaluate="unmask.use.segment:run_evaluation",
        predict="unmask.use.segment:run_prediction",
    ),
}


def function_for(model: str, use: str) -> Callable[[Any], Any] | None:
    """What serves `evaluate` or `predict` for models of a type; None if nothing does."""
    places = (getattr(entry, use) for entry in TASKS.values() if entry.model == model)
    return next((_named(place) for place in places if place), None)


def find_task(name: str) -> type[Any]:
    """The class of a training command's task. Raises ValueError that lists them if there is none."""
    return _entry(name).load()


def _entry(name: str) -> Entry:
    if name not in TASKS:
        raise ValueError(f"there is no task {name}: choose one of {', '.join(TASKS)}")
    return TASKS[name]


def find_recipe(command: str, name: str) -> Any:
    """A recipe of a training command, called by its name: a configuration that names it.

    Raises ValueError that lists the names if there is none.
    """
    return replace(choose_recipe(name, _entry(command).known_recipes(), command), recipe=name)


def _named(place: str) -> Any:
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)
