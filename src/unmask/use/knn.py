"""What frozen features are worth: neighbours among the training images, and a quick linear probe."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.config.commands import KnnConfig
from unmask.config.fields import check
from unmask.data.bad_images import none_readable
from unmask.data.centre_crops import CentreCrops
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.paths import slugs
from unmask.data.records import Labelled
from unmask.data.split import take_fraction
from unmask.evals.classification import Scores, classification_scores
from unmask.evals.knn import knn_votes
from unmask.evals.linear import choose_l2, fit_linear_probe
from unmask.inference import Rows, infer
from unmask.models.classifier import Classifier
from unmask.tasks.labelled import find_split
from unmask.tasks.validation import Scored, pictures
from unmask.use.embed import features_of
from unmask.use.results import (
    Result,
    log_bad_images,
    results_in,
    score_record,
    score_tables,
    write_result,
)
from unmask.use.rows import write_rows
from unmask.use.trained import Trained, read_trained
from unmask.viz.report import Table

ENCODER, PIXELS, RANDOM = "encoder", "pixels", "random encoder"
PIXEL_SIDE = 64
"""Larger images are averaged down to this, if pixels are features."""

Extract = Callable[[Tensor], Tensor]
"""From normalised images [B, C, H, W] to features [B, D]."""


class Features(NamedTuple):
    """Features of the readable images, by kind; `indices` are theirs in the data."""

    kinds: dict[str, Tensor]
    indices: list[int]
    bad: list[BadImage]


class Compared(NamedTuple):
    """What features of one kind make of the validation images: logits, and scores of them."""

    knn: dict[int, tuple[Tensor, Scores]]
    """By the number of neighbours."""
    probe: Scores
    l2: float
    """The probe's penalty."""

    @property
    def best(self) -> int:
        """The number of neighbours with the most right answers; the smallest of several."""
        return max(self.knn, key=lambda k: (self.knn[k][1].top1, -k))


def run_knn(config: KnnConfig) -> Result:
    """Writes scores, pictures and a report; nothing is trained but the probe's one layer.

    Raises ValueError, DataError or CheckpointError with a fix.
    """
    d = config.data
    _check(config)
    trained = read_trained(
        "knn",
        config.init,
        heads=config.model.heads,
        view=d,
        device=config.device,
        workers=d.workers,
        max_megapixels=d.max_megapixels,
        timeout=d.timeout,
    )
    extracts = _extracts(config, trained)
    split = find_split(d)
    training = take_fraction(
        split.training, fraction=d.fraction, per_class=d.per_class, seed=d.subset_seed
    )
    with results_in(config.out or f"runs/knn-{slugs(d.source)}") as folder:
        with trained.arithmetic():
            known = extract_features(training.images, trained, extracts, title="training images")
            asked = extract_features(
                split.validation.images, trained, extracts, title="validation images"
            )
        bad, images = [*known.bad, *asked.bad], len(training) + len(split.validation)
        log_bad_images(folder, bad, images=images, max_share=d.max_bad_share)
        compared = {
            kind: compare(config, kind, known, asked, training, split.validation) for kind in extracts
        }
        notes = [
            *trained.description.notes,
            *split.notes,
            split.counts,
            "the best number of neighbours is chosen on the same validation images",
            "the linear probe's penalty is chosen on the training images, by cross-validation",
        ]
        result = _result(config, compared, training, known, asked, notes)
        best = compared[ENCODER]
        logits, scores = best.knn[best.best]
        scored = Scored(scores, Rows(logits, asked.indices, asked.bad))
        rows = write_rows(folder, split.validation, scored)
        result = replace(result, tables=[*result.tables, *rows])
        return write_result(result, folder, pictures(split.validation, trained.image, scored))


def extract_features(
    images: Images, trained: Trained, extracts: dict[str, Extract], *, title: str
) -> Features:
    """In the order of the data, on the model's device; every image is decoded once."""
    loading = trained.loading
    crops = CentreCrops(
        images,
        trained.image,
        max_megapixels=loading.max_megapixels,
        workers=loading.workers,
        timeout=loading.timeout,
    )
    parts: dict[str, list[Tensor]] = {kind: [] for kind in extracts}
    indices, bad = list[int](), list[BadImage]()

    def each(normal: Tensor) -> dict[str, Tensor]:
        return {kind: extract(normal).float() for kind, extract in extracts.items()}

    for rows in infer(each, crops, trained.device, title=title):
        bad += rows.unreadable
        indices += rows.indices
        for kind, found in (rows.output or {}).items():
            parts[kind].append(found)
    if not indices:
        raise none_readable(bad)
    return Features({kind: torch.cat(some).clone() for kind, some in parts.items()}, indices, bad)


def compare(
    config: KnnConfig,
    kind: str,
    known: Features,
    asked: Features,
    training: Labelled,
    validation: Labelled,
) -> Compared:
    """Asks the known images for the classes of the others, by features of one kind."""
    labels = torch.from_numpy(training.labels[known.indices])
    answers = torch.from_numpy(validation.labels[asked.indices])
    classes, mine, others = len(training.classes), known.kinds[kind], asked.kinds[kind]
    numbers = tuple(sorted({min(k, len(mine)) for k in config.neighbours}))
    votes = knn_votes(
        mine, labels, others, classes=classes, neighbours=numbers, temperature=config.temperature
    )
    logits = {k: share.log().cpu() for k, share in votes.items()}
    l2 = choose_l2(mine, labels, classes=classes)
    probe = fit_linear_probe(mine, labels, classes=classes, l2=l2)
    return Compared(
        {k: (one, classification_scores(one, answers)) for k, one in logits.items()},
        classification_scores(probe.logits(others).cpu(), answers),
        l2,
    )


def _check(config: KnnConfig) -> None:
    check(config)
    if not config.neighbours or min(config.neighbours) < 1:
        raise ValueError("--neighbours takes one number or more, each 1 or more: write 10 20 100 200")


def _extracts(config: KnnConfig, trained: Trained) -> dict[str, Extract]:
    """How features of each kind are made; what cannot be is refused before data are read."""
    model, spec = trained.model, trained.description.encoder
    pool = config.pool or (model.pool if isinstance(model, Classifier) else "mean")
    extracts: dict[str, Extract] = {
        ENCODER: lambda images: features_of(model, images, pool=pool).flatten(1)
    }
    if config.baselines:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            encoder = spec.build().to(trained.device).eval()
        extracts[PIXELS] = _pixels
        extracts[RANDOM] = lambda images: encoder.features(images, pool=pool).flatten(1)
    with torch.no_grad():
        extracts[ENCODER](torch.zeros(1, spec.channels, *spec.image_size, device=trained.device))
    return extracts


def _pixels(images: Tensor) -> Tensor:
    height, width = (min(side, PIXEL_SIDE) for side in images.shape[2:])
    return F.interpolate(images, (height, width), mode="area").flatten(1)


def _result(
    config: KnnConfig,
    compared: dict[str, Compared],
    training: Labelled,
    known: Features,
    asked: Features,
    notes: list[str],
) -> Result:
    best = compared[ENCODER]
    scores = best.knn[best.best][1]
    commonest = scores.commonest_class
    numbers = list(best.knn)
    table = Table(
        "Top-1 accuracy on the validation images, by the number of neighbours and by a linear probe",
        ("features", *map(str, numbers), "linear"),
        [
            (kind, *(f"{one.knn[k][1].top1:.2%}" for k in numbers), f"{one.probe.top1:.2%}")
            for kind, one in compared.items()
        ],
    )
    licence = training.images.licence_note
    facts = [
        ("Model", config.init),
        ("Data", ", ".join(config.data.source)),
        ("Images", f"{len(known.indices)} that vote, {len(asked.indices)} to classify"),
        ("Best", f"{best.best} neighbours: {scores.top1:.2%}, balanced {scores.balanced_accuracy:.2%}"),
        ("Linear probe", f"{best.probe.top1:.2%}, balanced {best.probe.balanced_accuracy:.2%}"),
        ("Majority-class baseline", f"{commonest:.2%}"),
        *([("Licence of the data", licence)] if licence else []),
    ]
    record = {
        "data": config.data.source,
        "init": config.init,
        "training_images": len(known.indices),
        "validation_images": len(asked.indices),
        "unreadable": len(known.bad) + len(asked.bad),
        "temperature": config.temperature,
        "best": {"neighbours": best.best, **dict(scores.named())},
        "commonest_class": commonest,
        "features": {kind: _numbers(one) for kind, one in compared.items()},
        "per_class": score_record(scores, training.classes)["per_class"],
    }
    return Result(
        title=f"Nearest neighbours: {training.images.name}",
        facts=facts,
        summary=table,
        tables=score_tables(scores, training.classes),
        record=record,
        notes=tuple(notes),
        bad=[*known.bad, *asked.bad],
    )


def _numbers(compared: Compared) -> dict[str, Any]:
    knn = {str(k): dict(scores.named()) for k, (_, scores) in compared.knn.items()}
    return {"knn": knn, "linear": {"l2": compared.l2, **dict(compared.probe.named())}}
