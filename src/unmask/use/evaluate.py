"""The scores of a classifier on labelled images."""

from contextlib import AbstractContextManager
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from unmask.config.commands import EvaluateConfig, Part
from unmask.config.fields import check
from unmask.config.settings import Subset
from unmask.data.centre_crops import CentreCrops
from unmask.data.decode.pictures import Picture
from unmask.data.decode.reading import Reading
from unmask.data.images import Images
from unmask.data.labels import find_every
from unmask.data.paths import PathList, slugs
from unmask.data.records import Labelled
from unmask.data.split import take_fraction
from unmask.distributed.processes import Processes, connected
from unmask.engine.machine import detect_machine
from unmask.evals.classification import classification_scores
from unmask.inference import Rows, infer_all
from unmask.tasks.labelled import find_split
from unmask.tasks.validation import Scored, labels_of, pictures
from unmask.use.classes import Matching, folder_order, match_classes
from unmask.use.results import (
    Result,
    log_bad_images,
    results_in,
    score_facts,
    score_record,
    score_tables,
    write_result,
)
from unmask.use.robustness import evaluate_corruptions, find_variant
from unmask.use.rows import write_rows
from unmask.use.trained import (
    Trained,
    as_in_training,
    data_of_run,
    notes_on_labels,
    read_trained,
    refuse_if_given,
)

PARTS: dict[Part, str] = {"val": "validation", "train": "training", "all": "all"}
"""What the images of each part are called."""
IN_BF16 = (
    "computed in bf16, as the model was trained and validated: single predictions may differ from other "
    "libraries', which compute in fp32"
)


def run_evaluation(config: EvaluateConfig) -> Result:
    """Writes scores, pictures and a report; under torchrun the processes divide the images.

    On the validation images of a run its scores are those that its training measured last.
    Raises ValueError, DataError or CheckpointError with a fix.
    """
    check(config)
    with connected(detect_machine(config.device).device) as processes:
        return _run(config, processes)


def _run(config: EvaluateConfig, processes: Processes) -> Result:
    d = config.data
    trained = read_trained(
        "evaluate",
        config.init,
        heads=config.model.heads,
        view=d,
        device=config.device,
        workers=d.workers,
        max_megapixels=d.max_megapixels,
        timeout=d.timeout,
    )
    trained.classifier(config.init)
    refuse_if_given(
        "--data.single-class", d.single_class, of="detectors", init=config.init, kind="classifier"
    )
    out = config.out or f"runs/evaluate-{slugs(d.source)}"
    if config.robustness == "c":
        return evaluate_corruptions(trained, config, out, processes)
    labelled, notes = _find(config)
    matching = match_classes(
        labelled.classes, trained.classes, named=trained.is_named, order=folder_order(labelled)
    )
    if config.robustness in ("a", "r"):
        names = tuple(matching.names[i] for i in matching.outputs)
        labelled, outputs = replace(labelled, classes=names), matching.outputs
        notes.append(f"as published, an image is classified as one of these {len(names)} classes")
    else:
        labelled, outputs = _as_known(labelled, matching), None
        notes += _note_on_others(labelled, matching)
    in_bf16 = IN_BF16 if trained.description.precision == "bf16" else ""
    notes = [*trained.description.notes, *notes, *filter(None, [matching.note, in_bf16])]
    return _evaluate(trained, config, labelled, outputs, notes, out, processes)


def joined(first: Labelled, second: Labelled) -> Labelled:
    """The images of both, which have the same classes."""
    paths = PathList([*first.images.paths, *second.images.paths])
    same = first.images.opener == second.images.opener
    opener = first.images.opener if same else OneOfTwo(first.images, second.images)
    return Labelled(
        replace(first.images, paths=paths, opener=opener),
        np.concatenate([first.labels, second.labels]),
        first.classes,
    )


class OneOfTwo:
    """Opens what one of two data sets names."""

    def __init__(self, first: Images, second: Images):
        self.openers, self.of_the_first = (first.opener, second.opener), set(first.paths)

    def __call__(self, name: str, reading: Reading) -> AbstractContextManager[Picture]:
        return self.openers[name not in self.of_the_first](name, reading)


def _find(config: EvaluateConfig) -> tuple[Labelled, list[str]]:
    d = config.data
    if config.robustness != "none":
        return find_variant(config), notes_on_labels(d)
    if config.split == "all":
        parts, found = find_every(
            d.source, root=d.root, download=d.download, label_column=d.label_column
        )
        return reduce(joined, parts), [*notes_on_labels(d, ("label_column",)), *found]
    d, its_own, as_trained = as_in_training(config.init, d)
    split = find_split(d)
    notes = [*split.notes, split.counts, *as_trained]
    if config.split == "val":
        if not d.val:
            total = len(split.training) + len(split.validation)
            notes.append(f"evaluated on the validation images; --split all takes all {total}")
        return split.validation, notes
    used = data_of_run(config.init, Subset) if its_own else Subset()
    part = take_fraction(
        split.training,
        fraction=used.fraction,
        per_class=used.per_class,
        seed=used.subset_seed,
    )
    return part, notes


def _as_known(labelled: Labelled, matching: Matching) -> Labelled:
    """With the classes of the classifier."""
    labels = np.array(matching.outputs, dtype=np.int64)[labelled.labels]
    return replace(labelled, labels=labels, classes=matching.names)


def _note_on_others(labelled: Labelled, matching: Matching) -> list[str]:
    others = len(labelled.classes) - len(matching.outputs)
    if not others:
        return []
    return [
        f"the classifier knows {others} more classes, and an image classified as one of them is an error"
    ]


def _evaluate(
    trained: Trained,
    config: EvaluateConfig,
    labelled: Labelled,
    outputs: list[int] | None,
    notes: list[str],
    out: str,
    processes: Processes,
) -> Result:
    """`outputs`: the classes to choose among; all if None."""
    with results_in(out, processes) as folder:
        crops = CentreCrops(
            labelled.images,
            trained.image,
            max_megapixels=config.data.max_megapixels,
            workers=trained.loading.workers,
            timeout=trained.loading.timeout,
            indices=processes.share(len(labelled.images)),
        )
        with trained.arithmetic():
            model, title = trained.classifier(config.init), "evaluation" if processes.is_main else ""
            rows = infer_all(model, crops, trained.device, processes=processes, title=title).checked()
        if outputs is not None:
            rows = rows._replace(output=rows.output[:, outputs])
        return processes.on_main(lambda: _written(trained, config, labelled, rows, notes, folder))


def _written(
    trained: Trained,
    config: EvaluateConfig,
    labelled: Labelled,
    predicted: Rows,
    notes: list[str],
    folder: Path,
) -> Result:
    max_share = config.data.max_bad_share
    log_bad_images(folder, predicted.unreadable, images=len(labelled), max_share=max_share)
    with trained.arithmetic():
        scores = classification_scores(predicted.output, labels_of(labelled, predicted.indices))
    scored = Scored(scores, predicted)
    result = Result(
        title=f"Evaluation: {labelled.images.name}",
        facts=[*_setting(config, labelled), *score_facts(scores)],
        tables=[*score_tables(scores, labelled.classes), *write_rows(folder, labelled, scored)],
        record={
            **_setting_record(config, len(predicted.unreadable)),
            **score_record(scores, labelled.classes),
        },
        notes=tuple(notes),
        bad=predicted.unreadable,
    )
    return write_result(result, folder, pictures(labelled, trained.image, scored))


def _setting(config: EvaluateConfig, labelled: Labelled) -> list[tuple[str, str]]:
    part = "all" if config.robustness != "none" else PARTS[config.split]
    facts = [
        ("Classifier", config.init),
        ("Data", f"{part} images of {', '.join(config.data.source)}"),
    ]
    licence = labelled.images.licence_note
    return [*facts, ("Licence of the data", licence)] if licence else facts


def _setting_record(config: EvaluateConfig, unreadable: int) -> dict[str, Any]:
    return {
        "data": config.data.source,
        "init": config.init,
        "split": "all" if config.robustness != "none" else config.split,
        "robustness": config.robustness,
        "unreadable": unreadable,
    }
