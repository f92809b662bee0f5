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


LABELLED = "DATA: a folder for each class, a list with a column of labels, or the name of a data set."
"""What the commands that need labels take."""

TASKS: dict[str, Entry] = {
    "pretrain": Entry(
        summary="pre-train an encoder as a masked autoencoder on any folder of images, without labels",
        description=(
            "Pre-trains a Vision Transformer as a masked autoencoder on images without labels: most "
            "patches of each image are masked, and the model learns to reconstruct them. DATA: folders "
            "of images, lists of files, or the name of a data set."
        ),
        task="unmask.tasks.pretrain:Pretrain",
        recipes="unmask.recipes.pretrain:PRETRAIN",
        recipe="laptop",
        model="masked-autoencoder",
    ),
    "tokenizer": Entry(
        summary="train a discrete VAE (dVAE), whose tokens pre-training can predict instead of pixels",
        description=(
            "Trains a discrete VAE (dVAE) on images without labels, for unmask pretrain --target.kind "
            "tokens --target.tokenizer RUN (paper, Table 1d). DATA: as for pretrain."
        ),
        task="unmask.tasks.tokenizer:TrainTokenizer",
        recipes="unmask.recipes.tokenizer:TOKENIZER",
        recipe="laptop-tokenizer",
        model="tokenizer",
    ),
    "finetune": Entry(
        summary="fine-tune a pre-trained encoder, or its last blocks, as a classifier",
        description=(
            "Fine-tunes a pre-trained encoder (--init) with a new classification head on labelled "
            "images. --tune-blocks K trains only the last K blocks and the head; 0.5 is the MLP of the "
            f"last block. {LABELLED}"
        ),
        task="unmask.tasks.classify:Finetune",
        recipes="unmask.recipes.classify:FINETUNE",
        recipe="small-data",
        model="classifier",
        evaluate="unmask.use.evaluate:run_evaluation",
        predict="unmask.use.predict:run_prediction",
    ),
    "probe": Entry(
        summary="train a linear classifier on the features of a frozen encoder (linear probe)",
        description=(
            "Linear probe: trains a linear classifier on the features of a frozen encoder (--init; "
            f"paper, Table 10). {LABELLED}"
        ),
        task="unmask.tasks.classify:Probe",
        recipes="unmask.recipes.classify:PROBE",
        recipe="small-probe",
        model="classifier",
        evaluate="unmask.use.evaluate:run_evaluation",
        predict="unmask.use.predict:run_prediction",
    ),
    "scratch": Entry(
        summary="train a classifier from random weights, the baseline for finetune",
        description=(
            "Trains a classifier from random weights on labelled images (paper, Table 11): the baseline "
            f"that fine-tuning a pre-trained encoder has to beat. {LABELLED}"
        ),
        task="unmask.tasks.classify:Scratch",
        recipes="unmask.recipes.classify:SCRATCH",
        recipe="small-scratch",
        model="classifier",
        evaluate="unmask.use.evaluate:run_evaluation",
        predict="unmask.use.predict:run_prediction",
    ),
    "detect": Entry(
        summary="train an object detector (Mask R-CNN on a pre-trained encoder): boxes, classes, masks",
        description=(
            "Trains a Mask R-CNN on a pre-trained encoder (paper, Table 4). DATA is a folder with COCO, "
            "PASCAL VOC, labelme or YOLO annotations, or a .csv of boxes. --init RUN starts from a "
            "pre-trained encoder, --scratch from random weights."
        ),
        task="unmask.tasks.detect:Detect",
        recipes="unmask.recipes.detect:DETECT",
        recipe="small-detect",
        model="detector",
        evaluate="unmask.use.detect:run_evaluation",
        predict="unmask.use.detect:run_prediction",
    ),
    "segment": Entry(
        summary="train a semantic segmenter: UperNet, or a linear layer on every patch",
        description=(
            "Trains a semantic segmenter on images with label maps. DATA has ADE20K's layout, or the "
            "folders images and labels (or masks), or COCO or labelme JSON. --init RUN starts from a "
            "pre-trained encoder, --scratch from random weights. --head linear --head.frozen is a "
            "linear probe of every patch."
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
