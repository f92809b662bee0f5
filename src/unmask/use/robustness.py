"""Robustness of an ImageNet classifier: ImageNet-A, -R, -Sketch and -C, from folders."""

import os
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch

from unmask.config.commands import EvaluateConfig
from unmask.config.image import ImageSpec
from unmask.data.bad_images import none_readable
from unmask.data.centre_crops import CentreCrops
from unmask.data.decode.pictures import BadImage
from unmask.data.records import Labelled, some
from unmask.data.sources.find import find_parts
from unmask.data.sources.source import Options
from unmask.distributed.processes import Processes
from unmask.errors import DataError
from unmask.evals.robustness import (
    ALEXNET_ERRORS,
    class_subset,
    corruption_errors,
    mean_corruption_error,
)
from unmask.inference import infer
from unmask.models.classifier import Classifier
from unmask.use.classes import imagenet_folders, match_classes
from unmask.use.results import Result, log_bad_images, results_in, write_result
from unmask.use.trained import Trained, notes_on_labels
from unmask.viz.report import Table

SEVERITIES = (1, 2, 3, 4, 5)
NAMES = {"a": "ImageNet-A", "r": "ImageNet-R", "sketch": "ImageNet-Sketch", "c": "ImageNet-C"}


class Corrupted(NamedTuple):
    """What became of one folder of ImageNet-C."""

    right: int
    images: int
    bad: list[BadImage]

    @property
    def error(self) -> float:
        """Share of the readable images."""
        return 1 - self.right / self.images


def find_variant(config: EvaluateConfig) -> Labelled:
    """All images of ImageNet-A, -R or -Sketch; raises DataError if the folder is something else."""
    name, folder = NAMES[config.robustness], _only_folder(config)
    expected = imagenet_folders()
    if config.robustness == "a":
        expected = class_subset("imagenet-a")
    elif config.robustness == "r":
        expected = class_subset("imagenet-r")
    labelled, missing = _find_classes(folder, name, expected)
    if missing:
        raise DataError(
            f"{folder} is not {name}: of its {len(expected)} classes {len(missing)} are missing, the "
            f"first is {missing[0]}; give the folder that holds them"
        )
    return labelled


def evaluate_corruptions(
    trained: Trained, config: EvaluateConfig, out: str, processes: Processes
) -> Result:
    """Errors on ImageNet-C, and their mean relative to AlexNet's (mCE).

    Its images have the size that they are evaluated at: they are not cropped, unless that was asked.
    """
    model, places = trained.classifier(config.init), _places(_only_folder(config))
    crop = 1.0 if config.data.eval_crop is None else config.data.eval_crop
    image = replace(trained.image, eval_crop=crop)
    parts = {
        place: _find_classes(path, NAMES["c"], imagenet_folders()) for place, path in places.items()
    }
    matching = match_classes(imagenet_folders(), trained.classes, named=trained.is_named)
    with results_in(out, processes) as folder:
        with trained.arithmetic():
            found = {
                place: _count(trained, model, labelled, matching.outputs, image, place, processes)
                for place, (labelled, _) in parts.items()
            }
        bad = [image for one in found.values() for image in one.bad]
        total = sum(one.images for one in found.values()) + len(bad)
        errors = {
            name: [found[name, severity].error for severity in SEVERITIES] for name in ALEXNET_ERRORS
        }
        ignored = notes_on_labels(config.data)
        notes = [*trained.description.notes, *ignored, *filter(None, [matching.note])]
        if incomplete := sum(bool(missing) for _, missing in parts.values()):
            notes.append(f"{incomplete} of {len(parts)} folders have not all of ImageNet's 1000 classes")
        result = _corruption_result(config, errors, total, notes, bad)

        def written() -> Result:
            log_bad_images(folder, bad, images=total, max_share=config.data.max_bad_share)
            return write_result(result, folder, [])

        return processes.on_main(written)


def _corruption_result(
    config: EvaluateConfig,
    errors: dict[str, list[float]],
    total: int,
    notes: list[str],
    bad: list[BadImage],
) -> Result:
    means = {name: fmean(values) for name, values in errors.items()}
    relative, mce = corruption_errors(means), mean_corruption_error(means)
    table = Table(
        "Error by severity, their mean, and that relative to AlexNet's",
        ("corruption", *map(str, SEVERITIES), "mean", "relative"),
        [
            (name, *(f"{value:.1%}" for value in values), f"{means[name]:.1%}", f"{relative[name]:.1%}")
            for name, values in errors.items()
        ],
    )
    return Result(
        title="Evaluation: ImageNet-C",
        facts=[
            ("Classifier", config.init),
            ("Images", f"{total} of {', '.join(config.data.source)}"),
            ("Mean corruption error (mCE)", f"{mce:.2%}"),
            ("Mean top-1 error", f"{fmean(means.values()):.2%}"),
        ],
        tables=[table],
        record={
            "data": config.data.source,
            "init": config.init,
            "robustness": config.robustness,
            "images": total - len(bad),
            "unreadable": len(bad),
            "mce": mce,
            "corruptions": {
                name: {"error": means[name], "relative_to_alexnet": relative[name], "severities": values}
                for name, values in errors.items()
            },
        },
        notes=tuple(notes),
        bad=bad,
    )


def _count(
    trained: Trained,
    model: Classifier,
    labelled: Labelled,
    outputs: list[int],
    image: ImageSpec,
    place: tuple[str, int],
    processes: Processes,
) -> Corrupted:
    right, images, bad = 0, 0, list[BadImage]()
    loading = trained.loading
    crops = CentreCrops(
        labelled.images,
        image,
        max_megapixels=loading.max_megapixels,
        workers=loading.workers,
        timeout=loading.timeout,
        indices=processes.share(len(labelled.images)),
    )
    title = " ".join(map(str, place)) if processes.is_main else ""
    for rows in infer(model, crops, trained.device, title=title):
        bad += rows.unreadable
        if rows.indices:
            labels = torch.from_numpy(labelled.labels[rows.indices])
            right += int((rows.output[:, outputs].argmax(dim=1).cpu() == labels).sum())
            images += len(rows.indices)
    parts = processes.gather(Corrupted(right, images, bad))
    every = [image for part in parts for image in part.bad]
    found = Corrupted(sum(part.right for part in parts), sum(part.images for part in parts), every)
    if not found.images:
        raise none_readable(every)
    return found


def _places(folder: str) -> dict[tuple[str, int], str]:
    """The folder of each corruption and severity; raises DataError if one is missing."""
    places = {
        (name, severity): os.path.join(folder, name, str(severity))
        for name in ALEXNET_ERRORS
        for severity in SEVERITIES
    }
    missing = [place for place in places.values() if not os.path.isdir(place)]
    if missing:
        raise DataError(
            f"{folder} is not ImageNet-C: {len(missing)} of its {len(places)} folders "
            f"CORRUPTION/SEVERITY are missing, the first is {missing[0]}; give the folder that holds "
            f"all {len(ALEXNET_ERRORS)} corruptions"
        )
    return places


def _find_classes(folder: str, name: str, expected: tuple[str, ...]) -> tuple[Labelled, list[str]]:
    """The images of folders called by ImageNet's classes, and those classes that have none.

    Raises DataError if there are others.
    """
    found = find_parts((folder,), Options(root=""))
    present = {*found.training.names}
    strangers = sorted(present - {*expected})
    if strangers or found.validation is not None:
        raise DataError(
            f"{folder} is not {name}: it holds {some(strangers or ['train', 'val'])}; give the folder "
            f"whose folders are called by ImageNet's classes, such as {expected[0]}"
        )
    indices = {synset: i for i, synset in enumerate(expected)}
    labels = np.array([indices[label] for label in found.training.names], dtype=np.int64)
    missing = [synset for synset in expected if synset not in present]
    return Labelled(found.training.images, labels, expected), missing


def _only_folder(config: EvaluateConfig) -> str:
    sources = config.data.source
    if len(sources) != 1 or not os.path.isdir(sources[0]):
        raise DataError(
            f"--robustness {config.robustness} takes one folder, that of {NAMES[config.robustness]}, "
            f"and got {', '.join(sources) or 'none'}: check the path"
        )
    return sources[0]
