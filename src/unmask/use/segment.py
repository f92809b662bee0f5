"""A trained segmenter on new images: scores on those with label maps, and label maps of others."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unmask.config.annotations import MapOptions
from unmask.config.commands import EvaluateConfig, PredictConfig
from unmask.config.fields import check
from unmask.config.settings import Labels, Reading
from unmask.data.bad_images import none_readable
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.label_maps import find_label_maps, find_map_parts
from unmask.data.maps import LabelMaps
from unmask.data.normalize import normalize
from unmask.data.paths import slugs
from unmask.data.sources.find import find_images
from unmask.distributed.processes import Processes, connected
from unmask.engine.machine import detect_machine
from unmask.errors import DataError
from unmask.evals.segmentation import SegmentationScores, segmentation_scores
from unmask.inference import evaluating, infer
from unmask.models.segmenter import Segmenter
from unmask.tasks.pixels import (
    model_spec,
    most_probable_classes,
    pixel_figures,
    scenes_of,
    score_pixels,
    slid,
    whole_images,
)
from unmask.tasks.reconstruction import display_of
from unmask.use.evaluate import PARTS
from unmask.use.predict import cell, whole
from unmask.use.results import Result, log_bad_images, rate, results_in, write_result
from unmask.use.trained import Trained, as_in_training, data_of_run, read_trained, refuse_if_given
from unmask.viz.report import Table
from unmask.viz.saving import save_picture
from unmask.viz.segmentation import (
    ClassColours,
    colours_of,
    label_image,
    overlaid,
    segmentation_sheet,
)
from unmask.viz.tiles import displayable
from unmask.viz.words import escaped, one_line

CLASSES, SHARES, LABELS, OVERLAYS, SHEET = "classes.csv", "shares.csv", "labels", "overlays", "sheet.png"
OVERLAY_QUALITY = 90


def run_evaluation(config: EvaluateConfig) -> Result:
    """Writes scores, pictures and a report of a segmenter on images with label maps.

    Under torchrun the processes divide the images.
    On the validation images of a run its scores are those that its training measured last.
    Raises ValueError, DataError or CheckpointError with a fix.
    """
    check(config)
    d = config.data
    others = (
        ("--robustness", "classifiers", config.robustness, "none"),
        ("--data.single-class", "detectors", d.single_class, None),
        ("--data.label-column", "classifiers and detectors", d.label_column, Labels().label_column),
    )
    for flag, of, value, usual in others:
        given = None if value == usual else value
        refuse_if_given(flag, given, of=of, init=config.init, kind="segmenter")
    with connected(detect_machine(config.device).device) as processes:
        return _evaluate(config, processes)


def _evaluate(config: EvaluateConfig, processes: Processes) -> Result:
    d = config.data
    trained = read_trained(
        "evaluate", config.init, device=config.device, workers=d.workers, max_megapixels=d.max_megapixels
    )
    parts, notes = _find(config, model_spec(trained.description.model).classes)
    if d.size is not None or d.eval_crop is not None:
        notes.append("--data.size and --data.eval-crop change nothing here: whole images are measured")
    out = config.out or f"runs/evaluate-{slugs(d.source)}"
    model, title = _segmenter(trained), "evaluation" if processes.is_main else ""
    with results_in(out, processes) as folder, trained.arithmetic(), torch.inference_mode():
        found = [
            score_pixels(model, maps, trained.image, trained.loading, processes=processes, title=title)
            for maps in parts
        ]
        confusion = torch.stack([part.scores.confusion for part in found]).sum(dim=0)
        bad = [image for part in found for image in part.unreadable]
        images = sum(part.images for part in found)

        def written() -> Result:
            log_bad_images(folder, bad, images=images + len(bad), max_share=d.max_bad_share)
            result = _result(config, segmentation_scores(confusion), parts, images, bad, notes)
            drawn = pixel_figures(model, parts[0], trained.image, trained.loading, confusion)
            return write_result(result, folder, drawn)

        return processes.on_main(written)


def _segmenter(trained: Trained) -> Segmenter:
    model: Any = trained.model
    assert isinstance(model, Segmenter)
    return model


def _find(config: EvaluateConfig, classes: tuple[str, ...]) -> tuple[list[LabelMaps], list[str]]:
    """The parts to measure, with the labels of the model's classes, and what was decided."""
    d = config.data
    options, notes = options_of(config.init, d.max_megapixels), list[str]()
    if config.split == "all":
        found = find_map_parts(d.source, options)
        parts = [p for p in (found.training, found.validation, found.test) if p is not None]
        return [_as_known(part, classes) for part in parts], [*map(str, found.findings), *found.notes]
    d, _, notes = as_in_training(config.init, d)
    split = find_label_maps(d.source, val=d.val, val_share=d.val_share, options=options)
    notes = [*map(str, split.findings), *split.notes, split.counts, *notes]
    part = split.validation if config.split == "val" else split.training
    return [_as_known(part, classes)], notes


def _as_known(maps: LabelMaps, classes: tuple[str, ...]) -> LabelMaps:
    if unknown := [name for name in maps.classes if name not in classes]:
        raise DataError(
            f"{maps.images.name} has the class {unknown[0]!r}, which the model does not know: it knows "
            f"{', '.join(classes[:10])}; give maps with its classes"
        )
    return maps.with_classes(classes)


@dataclass(frozen=True, kw_only=True)
class _MapReading(Reading, MapOptions):
    """What the values mean, and how large maps may be."""


def options_of(init: str, max_megapixels: float) -> MapOptions:
    """What the values in label maps meant in the training of a run; the usual if it is not known."""
    return _MapReading(max_megapixels=max_megapixels, **vars(data_of_run(init, MapOptions)))


def _result(
    config: EvaluateConfig,
    scores: SegmentationScores,
    parts: list[LabelMaps],
    images: int,
    bad: list[BadImage],
    notes: list[str],
) -> Result:
    classes, rows = parts[0].classes, list(_classes(scores, parts[0].classes))
    licence = parts[0].images.licence_note
    return Result(
        title=f"Evaluation: {parts[0].images.name}",
        facts=[
            ("Segmenter", config.init),
            ("Data", f"{PARTS[config.split]} images of {', '.join(config.data.source)}"),
            *([("Licence of the data", licence)] if licence else []),
            ("Images", f"{images}, {scores.pixels:,} labelled pixels of {len(classes)} classes"),
            ("Mean IoU", f"{scores.mean_iou:.2%}"),
            ("Mean accuracy of the classes", f"{scores.mean_accuracy:.2%}"),
            ("Pixel accuracy", f"{scores.pixel_accuracy:.2%}"),
        ],
        tables=[
            Table(
                "Classes, those with the lowest IoU first",
                ("class", "share of pixels", "IoU", "accuracy"),
                [
                    (
                        one_line(row["class"], 60),
                        *(rate(row[k]) for k in ("share", "iou", "accuracy")),
                    )
                    for row in sorted(rows, key=lambda row: (np.isnan(row["iou"]), row["iou"]))
                ],
            )
        ],
        record={
            "data": config.data.source,
            "init": config.init,
            "split": config.split,
            "images": images,
            "unreadable": len(bad),
            "pixels": scores.pixels,
            **dict(scores.named()),
            "per_class": rows,
        },
        notes=tuple(notes),
        bad=bad,
    )


def _classes(scores: SegmentationScores, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each class with its share of the labelled pixels, its IoU and its accuracy."""
    shares = (scores.confusion.sum(1) / max(1, scores.pixels)).tolist()
    columns = zip(names, shares, scores.iou.tolist(), scores.accuracy.tolist(), strict=True)
    for name, share, iou, accuracy in columns:
        yield {"class": name, "share": share, "iou": iou, "accuracy": accuracy}


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """What was written of images without label maps."""

    path: Path
    """The folder."""
    header: tuple[str, str] = ("class", "share of all pixels")
    rows: list[tuple[str, str]]
    """The classes, the largest first."""
    images: int
    bad: list[BadImage]
    notes: tuple[str, ...]
    sheet: Path | None
    """The first images with their classes."""


def run_prediction(config: PredictConfig, given: Images | None = None) -> Segmented:
    """Writes label maps, overlays, and each image's shares of the classes, in the order of the data.

    labels/ holds a PNG for each image, as large as it: the values are the places of the classes in
    classes.csv, counted from 0, and its palette their colours. Raises ValueError, DataError or
    CheckpointError with a fix.
    """
    check(config)
    refuse_if_given("--tile", config.tile, of="detectors", init=config.init, kind="segmenter")
    refuse_if_given("--top", config.top, of="classifiers", init=config.init, kind="segmenter")
    trained = read_trained(
        "predict", config.init, heads=config.model.heads, device=config.device, workers=config.workers
    )
    model = _segmenter(trained)
    images = find_images(config.source, root=config.root) if given is None else given
    with results_in(config.out or f"runs/predict-{slugs(config.source)}") as folder:
        return _predicted(config, trained, model, images, folder)


def _predicted(
    config: PredictConfig, trained: Trained, model: Segmenter, images: Images, folder: Path
) -> Segmented:
    classes, colours = model.spec.classes, colours_of(model.spec)
    names, total = file_names(images), np.zeros(len(classes), dtype=np.int64)
    bad, done = list[BadImage](), list[int]()
    _write_classes(folder / CLASSES, classes, colours)
    with trained.arithmetic(), torch.inference_mode(), evaluating(model) as device:
        crops = whole_images(images, trained.image, model.spec.sides, trained.loading)
        seen = partial(slid, model, window=trained.image.size)
        with whole(folder / SHARES) as text:
            table = csv.writer(text, lineterminator="\n")
            table.writerow(["path", *(f"share of {escaped(name)}" for name in classes)])
            for rows in infer(seen, crops, device, title="predictions"):
                bad += rows.unreadable
                for index in rows.indices:
                    logits = rows.output
                    counts = _write_image(folder, names[index], images, index, logits, trained, colours)
                    shares = [float(f"{share:.6g}") for share in counts / counts.sum()]
                    table.writerow([cell(images.paths[index]), *shares])
                    total += counts
                    done.append(index)
            if not done:
                raise none_readable(bad)
        log_bad_images(folder, bad, images=len(images), max_share=1)
        sheet = _write_sheet(folder, images, done[: config.sheet], trained)
    order = np.argsort(-total, kind="stable")
    return Segmented(
        path=folder,
        rows=[(one_line(classes[i], 60), rate(float(total[i] / total.sum()))) for i in order],
        images=len(done),
        bad=bad,
        notes=trained.description.notes,
        sheet=sheet,
    )


def file_names(images: Images) -> list[str]:
    """For each image the path, without suffix, of what is written of it: that from where all part.

    With its suffix if another image has the same path without.
    """
    names = [name.lstrip("./\\").replace("#", "-") or "image" for name in images.names()]
    short = [str(PurePath(name).with_suffix("")) for name in names]
    count = Counter(short)
    return [one if count[one] == 1 else name for one, name in zip(short, names, strict=True)]


def _write_image(
    folder: Path,
    name: str,
    images: Images,
    index: int,
    logits: Tensor,
    trained: Trained,
    colours: ClassColours,
) -> np.ndarray:
    """Writes one image's label map and overlay, at its own size; returns the pixels of each class."""
    pixels = images.decode(index, trained.image.pixels(trained.loading.max_megapixels))
    assert isinstance(pixels, Tensor), "it was read a moment ago"
    size = pixels.shape[1], pixels.shape[2]
    labels = most_probable_classes(logits, size)[0].cpu().numpy()
    normal = normalize(pixels[None], trained.image.mean, trained.image.std)
    picture = displayable(normal, display_of(trained.image))[0]
    label_file, overlay_file = folder / LABELS / f"{name}.png", folder / OVERLAYS / f"{name}.jpg"
    save_picture(label_image(labels, colours.values), label_file)
    overlay = Image.fromarray(overlaid(picture, labels, colours))
    save_picture(overlay, overlay_file, quality=OVERLAY_QUALITY)
    return np.bincount(labels.reshape(-1), minlength=len(colours.values))


def _write_classes(path: Path, classes: Sequence[str], colours: ClassColours) -> None:
    """What each value of a label map means, and its colour."""
    with whole(path) as text:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["value", "name", "r", "g", "b"])
        for value, (name, colour) in enumerate(zip(classes, colours.values, strict=True)):
            table.writerow([value, cell(name), *colour.tolist()])


def _write_sheet(folder: Path, images: Images, chosen: list[int], trained: Trained) -> Path | None:
    (folder / SHEET).unlink(missing_ok=True)
    if not chosen:
        return None
    model = _segmenter(trained)
    scenes = list(scenes_of(model, images.subset(chosen), trained.image, trained.loading))
    title = f"{one_line(images.name, 60)}: {len(chosen)} of {len(images)} images"
    sheet = segmentation_sheet(scenes, model.spec.classes, colours_of(model.spec), title=title)
    save_picture(sheet, folder / SHEET)
    return folder / SHEET
