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
    classes, notes = class_names(names, len(state["head.weight"]))
    if not (isinstance(crop, int | float) and 0 < crop <= 1):
        crop = usual_crop(encoder.image_size)
    batch_norm = "feature_norm.running_mean" in state
    classifier = ClassifierSpec(encoder=encoder, classes=classes, pool=pool, batch_norm=batch_norm)
    return ReadHead(classifier, float(crop), notes)


def class_names(given: Any, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of so many outputs, and a note where they are not those that were given.

    A thousand without names are taken for ImageNet-1K's, under the names of its folders, where timm is
    there to tell; others are numbered.
    """
    if isinstance(given, dict):
        given = [given.get(str(i), str(i)) for i in range(count)]
    if isinstance(given, list | tuple) and len(given) == count:
        return tuple(map(str, given)), ()
    if count == IMAGENET_CLASSES and (names := _imagenet()):
        return names, ("its 1000 classes have no names and are taken for ImageNet-1K's",)
    return tuple(map(str, range(count))), (f"its {count} classes have no names and are numbered",)


def without_batch_norm(weights: Weights) -> Weights:
    """The same classifier with the probe's BatchNorm in its head; other libraries have no such norm."""
    d = weights.description
    if d.classifier is None or not d.classifier.batch_norm:
        return weights
    model = build(weights)
    assert isinstance(model, Classifier)
    model.head.double()  # deviations near zero would cost digits
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
