"""What a measurement leaves behind: scores.json for programs, pictures and report.html for people."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from unmask.config.io import to_json
from unmask.config.output import claim_output
from unmask.data.bad_images import BadImageLog
from unmask.data.decode.pictures import BadImage
from unmask.distributed.processes import ALONE, Processes
from unmask.engine.locks import only_writer_in
from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError
from unmask.evals.classification import Scores, largest_confusions
from unmask.viz.report import Table, report_html
from unmask.viz.saving import png_bytes
from unmask.viz.words import one_line

BAD_IMAGES, REPORT, SCORES = "bad_images.jsonl", "report.html", "scores.json"
NAME_LENGTH = 60
CONFUSIONS_SHOWN = 20
CAPTIONS = {
    "objects": "Ground truth and detections",
    "worst": "Missed objects and false positives",
    "precision-recall": "Precision-recall curve of boxes",
    "precision-recall-masks": "Precision-recall curve of masks",
    "segmentation": "Images, label maps, predictions and errors",
    "confusion": "Confusion matrix",
    "mistakes": "Most confident errors",
    "calibration": "Reliability diagram",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measurement."""

    title: str
    facts: list[tuple[str, str]]
    summary: Table | None = None
    """What the reader came for, above everything."""
    tables: list[Table]
    record: dict[str, Any]
    """The numbers, as scores.json has them."""
    notes: tuple[str, ...] = ()
    bad: list[BadImage]
    path: Path = Path()
    """The folder that holds them."""


def _result_folder(out: str | Path) -> Path:
    """Made if it is not there. Raises CheckpointError if it is a run, or holds files of others."""
    folder = Path(out)
    if (folder / "config.json").exists() or RunDirectory(folder).model.exists():
        raise CheckpointError(f"{folder} holds a run or a model: choose another --out")
    claim_output(folder)
    return folder


@contextmanager
def results_in(out: str | Path, processes: Processes = ALONE) -> Iterator[Path]:
    """A folder for results, made if it is not there; other commands are kept out of it meanwhile.

    Raises CheckpointError if it is a run, holds files of others, or another command is writing there.
    """
    with ExitStack() as stack:

        def enter() -> Path:
            folder = _result_folder(out)
            stack.enter_context(only_writer_in(folder))
            return folder

        yield processes.on_main(enter)


def write_result(result: Result, folder: Path, pictures: Iterable[tuple[str, Image]]) -> Result:
    """Writes numbers, pictures and the report; returns the result with its place."""
    page, drawn = RunDirectory(folder), list[tuple[str, bytes]]()
    for name in CAPTIONS:  # those of an earlier measurement
        (folder / f"{name}.png").unlink(missing_ok=True)
    for name, picture in pictures:
        png = png_bytes(picture)
        page.write(f"{name}.png", png)
        drawn.append((CAPTIONS[name], png))
    facts = [*result.facts, *(("Note", note) for note in result.notes)]
    text = report_html(
        result.title,
        summary=result.summary,
        facts=facts,
        pictures=drawn,
        tables=[*result.tables, *_bad_table(result.bad)],
    )
    page.write(REPORT, text)
    page.write(SCORES, to_json(finite({**result.record, "notes": result.notes})))
    return replace(result, path=folder)


def log_bad_images(folder: Path, bad: list[BadImage], *, images: int, max_share: float) -> None:
    """Lists them in a new file of their own; raises DataError if they are too large a share."""
    (folder / BAD_IMAGES).unlink(missing_ok=True)
    BadImageLog(folder / BAD_IMAGES, images=images, max_share=max_share).add(bad)


def score_facts(scores: Scores) -> list[tuple[str, str]]:
    """The scores of a classifier, for people; top-5 accuracy if there are more than five classes."""
    classes = int(scores.recall.isfinite().sum())
    top5 = [("Top-5 accuracy", f"{scores.top5:.2%}")] if len(scores.recall) > 5 else []
    return [
        ("Images", f"{scores.images} in {classes} classes"),
        ("Top-1 accuracy", f"{scores.top1:.2%}"),
        *top5,
        ("Balanced accuracy", f"{scores.balanced_accuracy:.2%}"),
        ("Negative log-likelihood", f"{scores.nll:.4f} nats"),
        ("Calibration error", f"{scores.calibration_error:.4f}"),
    ]


def score_tables(scores: Scores, names: Sequence[str]) -> list[Table]:
    """Each class, lowest recall first; and the largest entries of the confusion matrix."""
    return [
        Table(
            "Classes, those with the lowest recall first",
            ("class", "images", "recall", "precision", "F1"),
            [
                (
                    one_line(row["class"], NAME_LENGTH),
                    str(row["images"]),
                    *(rate(row[kind]) for kind in ("recall", "precision", "f1")),
                )
                for row in sorted(_classes(scores, names), key=_recall)
            ],
        ),
        Table(
            "Most frequent confusions",
            ("true class", "predicted", "images"),
            [
                (one_line(names[true], NAME_LENGTH), one_line(names[wrong], NAME_LENGTH), str(count))
                for true, wrong, count in largest_confusions(scores.confusion, CONFUSIONS_SHOWN)
            ],
        ),
    ]


def score_record(scores: Scores, names: Sequence[str]) -> dict[str, Any]:
    """The same, for programs."""
    return {
        "images": scores.images,
        "commonest_class": scores.commonest_class,
        **dict(scores.named()),
        "per_class": list(_classes(scores, names)),
        "most_confused": [
            {"class": names[true], "taken_for": names[wrong], "images": count}
            for true, wrong, count in largest_confusions(scores.confusion, CONFUSIONS_SHOWN)
        ],
    }


def _classes(scores: Scores, names: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Those that have images, or that some were predicted as."""
    images, taken = scores.confusion.sum(1).tolist(), scores.confusion.sum(0).tolist()
    for i, name in enumerate(names):
        if images[i] or taken[i]:
            rates = {kind: getattr(scores, kind)[i].item() for kind in ("recall", "precision", "f1")}
            yield {"class": name, "images": images[i], **rates}


def _recall(row: dict[str, Any]) -> float:
    """Classes without images stand last."""
    return math.inf if math.isnan(row["recall"]) else row["recall"]


def _bad_table(bad: list[BadImage]) -> list[Table]:
    rows = [(repr(image.path), one_line(image.reason, 200)) for image in bad]
    return [Table("Images that could not be read", ("path", "reason"), rows)] if bad else []


def rate(share: float) -> str:
    """A share with one decimal place; a dash if it is none."""
    return "-" if math.isnan(share) else f"{share:.1%}"


def finite(value: Any) -> Any:
    """NaN and infinity as null, which every JSON reader takes."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
