"""A trained detector on new images: its precision on annotated ones, and what it finds in others."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unmask.config.annotations import ObjectOptions
from unmask.config.commands import EvaluateConfig, PredictConfig
from unmask.config.fields import check
from unmask.core.spec import Size
from unmask.data.bad_images import none_readable
from unmask.data.decode.pictures import BadImage
from unmask.data.detections import find_boxes, find_detections
from unmask.data.images import Images
from unmask.data.instances import Detections
from unmask.data.paths import slugs
from unmask.data.sources.find import find_images
from unmask.distributed.processes import Processes, connected
from unmask.engine.machine import detect_machine
from unmask.errors import DataError
from unmask.evals.detection import recall_at
from unmask.evals.objects import FoundObjects, coco_masks, coco_results
from unmask.inference import evaluating
from unmask.models.detector import Detector
from unmask.tasks.detections import Finder, Judged, find_all, judge, pictures, shown
from unmask.units import counted
from unmask.use.evaluate import PARTS
from unmask.use.predict import whole
from unmask.use.results import Result, log_bad_images, rate, results_in, write_result
from unmask.use.segment import file_names
from unmask.use.trained import Trained, as_in_training, data_of_run, read_trained, refuse_if_given
from unmask.viz.detections import SHOWN_SCORE, objects_figure
from unmask.viz.report import Table
from unmask.viz.saving import save_picture
from unmask.viz.words import one_line

COCO, PICTURES, NAME_LENGTH = "detections.json", "pictures", 60
SIGNIFICANT_DIGITS = 6
LEAST_SIDE = 1024
"""Pixels: smaller pictures are enlarged, so that names and scores cover less of them."""
LOW_OVERLAP = 0.4
"""Overlap that counts as found if outlines are vague, as of tree crowns."""

MEASURES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "small": "AP small",
    "medium": "AP medium",
    "large": "AP large",
    "recall": "average recall",
}
"""What is told of boxes and masks. Small objects are below 32 x 32 pixels, medium ones up to 96 x 96."""


def run_evaluation(config: EvaluateConfig) -> Result:
    """Writes scores, pictures and a report of a detector on images with annotated objects.

    Under torchrun the processes divide the images.
    On the validation images of a run its scores are those that its training measured last.
    Raises ValueError, DataError or CheckpointError with a fix.
    """
    check(config)
    coco_masks()  # says what to install
    asked = None if config.robustness == "none" else config.robustness
    refuse_if_given("--robustness", asked, of="classifiers", init=config.init, kind="detector")
    d = config.data
    if d.size is not None or d.eval_crop is not None:
        raise ValueError(
            "--data.size and --data.eval-crop are of classifiers, and a detector sees whole images on "
            "the canvas of its training: leave them out"
        )
    with connected(detect_machine(config.device).device) as processes:
        return _evaluate(config, processes)


def _evaluate(config: EvaluateConfig, processes: Processes) -> Result:
    d = config.data
    trained = read_trained(
        "evaluate", config.init, device=config.device, workers=d.workers, max_megapixels=d.max_megapixels
    )
    model = _detector(trained)
    data, notes = _find(config, model.spec.classes)
    out = config.out or f"runs/evaluate-{slugs(d.source)}"
    with results_in(out, processes) as folder, trained.arithmetic(), torch.inference_mode():
        title = "evaluation" if processes.is_main else ""
        judged = judge(model, data, trained.image, trained.loading, processes=processes, title=title)

        def written() -> Result:
            assert judged is not None, "the main process has it"
            log_bad_images(folder, judged.rows.unreadable, images=len(data), max_share=d.max_bad_share)
            result = _result(config, judged, data, [*trained.description.notes, *notes])
            return write_result(result, folder, pictures(data, trained.image, judged))

        return processes.on_main(written)


def _detector(trained: Trained) -> Detector:
    model: Any = trained.model
    assert isinstance(model, Detector)
    return model


def _find(config: EvaluateConfig, classes: tuple[str, ...]) -> tuple[Detections, list[str]]:
    """The images to evaluate, with the labels of the detector's classes, and what was decided."""
    d, notes, single = config.data, list[str](), config.data.single_class
    if single is None and (single := data_of_run(config.init, ObjectOptions).single_class) is not None:
        notes.append(f"as in training, all objects are taken as {single!r}")
    if config.split == "all":
        parts = find_boxes(
            d.source,
            label_column=d.label_column,
            single_class=single,
            max_megapixels=d.max_megapixels,
        )
        several = [p for p in (parts.training, parts.validation, parts.test) if p is not None]
        known = [_as_known(part, classes) for part in several]
        notes += [*map(str, parts.findings), *parts.notes]
        return known[0].joined(known[1:]), notes
    d, _, divided = as_in_training(config.init, d)
    split = find_detections(
        d.source,
        val=d.val,
        val_share=d.val_share,
        label_column=d.label_column,
        single_class=single,
        max_megapixels=d.max_megapixels,
    )
    notes += [*map(str, split.findings), *split.notes, split.counts, *divided]
    part = split.validation if config.split == "val" else split.training
    return _as_known(part, classes), notes


def _as_known(data: Detections, classes: tuple[str, ...]) -> Detections:
    """With the classes of the detector."""
    occurring = {data.classes[i] for i in set(data.instances.labels.tolist())}
    if unknown := sorted(occurring - set(classes)):
        named = classes[0] if len(classes) == 1 else "NAME"
        raise DataError(
            f"{data.images.name} has objects of the class {unknown[0]!r}, which the detector does not "
            f"know: it knows {', '.join(classes[:10])}; give objects of its classes, or write "
            f"--data.single-class {named} to take all as one class"
        )
    return data.with_classes(classes)


def _result(config: EvaluateConfig, judged: Judged, data: Detections, notes: list[str]) -> Result:
    found: Sequence[FoundObjects] = judged.rows.output
    kinds = {"box": judged.boxes, **({"mask": judged.masks} if judged.masks else {})}
    recall = recall_at(judged.truth, found, data.classes, "boxes", LOW_OVERLAP)
    licence = data.images.licence_note
    objects = sum(int((~t.crowd).sum()) for t in judged.truth)
    annotated = f"{counted(objects, 'object')} of {counted(len(data.classes), 'class')}"
    return Result(
        title=f"Evaluation: {data.images.name}",
        facts=[
            ("Detector", config.init),
            ("Data", f"{PARTS[config.split]} images of {', '.join(config.data.source)}"),
            *([("Licence of the data", licence)] if licence else []),
            ("Images", f"{len(found)} with {annotated}"),
            *(
                (f"{kind.capitalize()} {label}", rate(getattr(precision, name)))
                for kind, precision in kinds.items()
                for name, label in MEASURES.items()
            ),
            (f"Box recall at an overlap of {LOW_OVERLAP}", rate(recall)),
        ],
        tables=[_class_table(judged, data.classes)],
        record={
            "data": config.data.source,
            "init": config.init,
            "split": config.split,
            "images": len(found),
            "objects": objects,
            "unreadable": len(judged.rows.unreadable),
            **dict(judged.named()),
            "box_recall40": recall,
            "per_class": list(_classes(judged, data.classes)),
        },
        notes=tuple(notes),
        bad=judged.rows.unreadable,
    )


def _classes(judged: Judged, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    counts = Counter(int(label) for t in judged.truth for label in t.labels[~t.crowd])
    for i, name in enumerate(names):
        of_boxes = {"box_ap": judged.boxes.per_class[name], "box_ap50": judged.boxes.per_class50[name]}
        of_masks = {"mask_ap": judged.masks.per_class[name]} if judged.masks else {}
        yield {"class": name, "objects": counts[i], **of_boxes, **of_masks}


def _class_table(judged: Judged, names: Sequence[str]) -> Table:
    rows = sorted(_classes(judged, names), key=lambda row: (math.isnan(row["box_ap"]), row["box_ap"]))
    measured = [name for name in ("box_ap", "box_ap50", "mask_ap") if name in rows[0]]
    header = {"box_ap": "box AP", "box_ap50": "box AP50", "mask_ap": "mask AP"}
    return Table(
        "Classes, those with the lowest box AP first",
        ("class", "objects", *(header[name] for name in measured)),
        [
            (
                one_line(row["class"], NAME_LENGTH),
                str(row["objects"]),
                *(rate(row[name]) for name in measured),
            )
            for row in rows
        ],
    )


@dataclass(frozen=True, kw_only=True)
class Detected:
    """What was written of images without annotations."""

    path: Path
    """The folder."""
    header: tuple[str, str] = ("class", f"objects with a score of {SHOWN_SCORE:g} or more")
    rows: list[tuple[str, str]]
    """The classes that were found, the most frequent first."""
    images: int
    bad: list[BadImage]
    notes: tuple[str, ...]
    sheet: Path | None
    """The folder of the pictures, if any were drawn."""


def run_prediction(config: PredictConfig, given: Images | None = None) -> Detected:
    """Writes what is found in all readable images, in the order of the data.

    detections.json is in COCO's format with a score for each annotation; pictures/ shows the first
    images with what was found. Raises ValueError, DataError or CheckpointError with a fix.
    """
    check(config)
    coco_masks()  # says what to install
    trained = read_trained(
        "predict", config.init, heads=config.model.heads, device=config.device, workers=config.workers
    )
    model, notes = _detector(trained), list(trained.description.notes)
    if config.top is not None:
        notes.append("--top changes nothing here: every detection has one class")
    images = find_images(config.source, root=config.root) if given is None else given
    with results_in(config.out or f"runs/predict-{slugs(config.source)}") as folder:
        return _predicted(config, trained, model, images, notes, folder)


def _predicted(
    config: PredictConfig,
    trained: Trained,
    model: Detector,
    images: Images,
    notes: list[str],
    folder: Path,
) -> Detected:
    names, drawn = file_names(images), 0
    finder = Finder(model, trained.image.size, tile=config.tile)
    found, bad = list[tuple[str, FoundObjects]](), list[BadImage]()
    with trained.arithmetic(), torch.inference_mode(), evaluating(model) as device:
        for rows in find_all(
            finder, images, trained.image, trained.loading, device, title="predictions"
        ):
            bad += rows.unreadable
            for index in rows.indices:
                found.append((images.paths[index], rows.output))
                if drawn < config.sheet:
                    drawn += 1
                    place = folder / PICTURES / f"{names[index]}.png"
                    sure = confident(rows.output)
                    picture = shown(images, index, trained.image)
                    side = max(LEAST_SIDE, *picture.shape[:2])
                    figure = objects_figure(picture, sure, model.spec.classes, side=side)
                    save_picture(figure, place)
    if not found:
        raise none_readable(bad)
    with whole(folder / COCO) as file:
        json.dump(coco_file(found, model.spec.classes), file)
    log_bad_images(folder, bad, images=len(images), max_share=1)
    counts = Counter(int(label) for _, one in found for label in confident(one).labels)
    return Detected(
        path=folder,
        rows=[(one_line(model.spec.classes[k], NAME_LENGTH), str(n)) for k, n in counts.most_common()],
        images=len(found),
        bad=bad,
        notes=tuple(notes),
        sheet=folder / PICTURES if drawn else None,
    )


def confident(found: FoundObjects) -> FoundObjects:
    """The detections that are shown."""
    return found.select(torch.nonzero(found.scores >= SHOWN_SCORE)[:, 0])


def coco_file(found: Sequence[tuple[str, FoundObjects]], classes: Sequence[str]) -> Mapping[str, Any]:
    """COCO's file of images, categories and annotations, which have scores besides; ids are from 1."""
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for image_id, (path, objects) in enumerate(found, start=1):
        size: Size = objects.size
        images.append({"id": image_id, "file_name": path, "height": size[0], "width": size[1]})
        ids = range(1, len(classes) + 1)
        for row in coco_results(objects, image_id=image_id, category_ids=ids):
            box = [_short(edge) for edge in row["bbox"]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    **row,
                    "bbox": box,
                    "area": _area(row),
                    "iscrowd": 0,
                    "score": _short(row["score"]),
                }
            )
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, start=1)]
    return {"info": {}, "images": images, "categories": categories, "annotations": annotations}


def _area(row: Mapping[str, Any]) -> float:
    """Pixels of the mask, or of the box if there is none."""
    if "segmentation" in row:
        code = row["segmentation"]
        return float(coco_masks().area({**code, "counts": code["counts"].encode()}))
    return _short(row["bbox"][2] * row["bbox"][3])


def _short(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
