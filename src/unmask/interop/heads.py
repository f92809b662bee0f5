"""Heads of classifiers: reading another library's, and a probe's two layers as one."""

from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from unmask.config.image import usual_crop
from unmask.core.spec import ViTSpec
from unmask.interop.description import Weights
from unmask.interop.models import build
from unmask.models.classifier import Classifier
from unmask.models.classifier_spec import ClassifierSpec, HeadPool

IMAGENET_CLASSES = 1000


class ReadHead(NamedTuple):
    """Another library's classifier, the share of the side that its evaluation crops, and notes."""

    classifier: ClassifierSpec
    eval_crop: float
    notes: tuple[str, ...]
    """What had to be assumed."""


def read_head(
    state: dict[str, Tensor], encoder: ViTSpec, *, names: Any, pool: HeadPool, crop: Any
) -> ReadHead:
    """What another library's head is.

    Args:
        state: its weights, under our names.
        encoder: what it stands on.
        names: of its outputs: a list, a dictionary by number as JSON has it, or None.
        pool: what it is given.
        crop: share of the side that evaluation crops; the usual one if it is no share.
    """
    found = class_names(names, len(state["head.weight"]))
    if not (isinstance(crop, int | float) and 0 < crop <= 1):
        crop = usual_crop(encoder.image_size)
    classifier = ClassifierSpec(
        encoder=encoder,
        classes=found.classes,
        pool=pool,
        batch_norm="feature_norm.running_mean" in state,
        named=found.named,
    )
    return ReadHead(classifier, float(crop), found.notes)


class OutputNames(NamedTuple):
    """What outputs are called, and notes on what had to be assumed."""

    classes: tuple[str, ...]
    named: bool
    """False if the names are only numbers that stand in for unknown ones."""
    notes: tuple[str, ...]


def class_names(given: Any, count: int) -> OutputNames:
    """Names of so many outputs, and a note if they are not those that were given.

    A thousand without names are assumed to be ImageNet-1K's, under the names of its folders, if timm is
    there to tell; others are numbered. What transformers calls outputs without names is no name.
    """
    if isinstance(given, dict):
        given = [given.get(str(i), str(i)) for i in range(count)]
    if isinstance(given, list | tuple) and len(given) == count and list(given) != placeholders(count):
        return OutputNames(tuple(map(str, given)), True, ())
    if count == IMAGENET_CLASSES and (names := _imagenet()):
        return OutputNames(
            names, True, ("its 1000 classes have no names and are assumed to be ImageNet-1K's",)
        )
    numbers = tuple(map(str, range(count)))
    return OutputNames(numbers, False, (f"its {count} classes have no names and are numbered",))


def placeholders(count: int) -> list[str]:
    """What transformers calls outputs that have no names."""
    return [f"LABEL_{i}" for i in range(count)]


def without_batch_norm(weights: Weights) -> Weights:
    """The same classifier with the probe's BatchNorm in its head; other libraries have no such norm."""
    d = weights.description
    if d.classifier is None or not d.classifier.batch_norm:
        return weights
    model = build(weights)
    assert isinstance(model, Classifier)
    model.head.double()  # standard deviations near zero would cost digits
    model.feature_norm.double()
    weight, bias = (value.detach().float() for value in model.folded_head())
    state = {name: v for name, v in weights.state.items() if not name.startswith("feature_norm.")}
    state |= {"head.weight": weight, "head.bias": bias}
    return Weights(state, replace(d, model=replace(d.classifier, batch_norm=False)))


def _imagenet() -> tuple[str, ...]:
    try:
        from timm.data import ImageNetInfo
    except ImportError:
        return ()
    return tuple(ImageNetInfo().label_names())
