"""What a classifier says of each labelled image, as tables: all images, and those it is wrong about."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unmask.data.records import Labelled
from unmask.tasks.validation import Scored, labels_of
from unmask.use.predict import CSV, SIGNIFICANT_DIGITS, cell, whole
from unmask.viz.predictions import worst_mistakes
from unmask.viz.report import Table
from unmask.viz.words import last_part, one_line, percent

ERRORS = "errors.csv"
HEADER = ("path", "class", "predicted class", "probability", "probability of the class", "correct")
ERRORS_SHOWN, PATH_LENGTH, NAME_LENGTH = 24, 100, 60


class Row(NamedTuple):
    """One image."""

    path: str
    truth: str
    predicted: str
    probability: float
    probability_of_truth: float


def write_rows(folder: Path, labelled: Labelled, scored: Scored) -> list[Table]:
    """Writes predictions.csv, in the order of the data, and errors.csv, the most confident first.

    Returns the first errors as a table of the report; none if there are none.
    """
    predicted = scored.predicted
    probabilities, labels = predicted.output.softmax(dim=1), labels_of(labelled, predicted.indices)
    best, outputs = (values.tolist() for values in probabilities.max(dim=1))
    of_truth = probabilities.gather(1, labels[:, None])[:, 0].tolist()

    def row(place: int) -> Row:
        return Row(
            labelled.images.paths[predicted.indices[place]],
            labelled.classes[labels[place]],
            labelled.classes[outputs[place]],
            best[place],
            of_truth[place],
        )

    wrong = worst_mistakes(probabilities, labels, len(labels)).tolist()
    _write(folder / CSV, map(row, range(len(labels))))
    _write(folder / ERRORS, map(row, wrong))
    return _table([row(place) for place in wrong[:ERRORS_SHOWN]], len(wrong))


def _write(path: Path, rows: Iterator[Row]) -> None:
    with whole(path) as text:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(HEADER)
        for row in rows:
            names = map(cell, (row.path, row.truth, row.predicted))
            shares = (f"{p:.{SIGNIFICANT_DIGITS}g}" for p in (row.probability, row.probability_of_truth))
            table.writerow([*names, *shares, int(row.truth == row.predicted)])


def _table(rows: Sequence[Row], count: int) -> list[Table]:
    if not rows:
        return []
    more = f", {len(rows)} of {count} ({ERRORS} has all)" if count > len(rows) else ""
    shown = [
        (
            last_part(row.path, PATH_LENGTH),
            *(one_line(name, NAME_LENGTH) for name in (row.truth, row.predicted)),
            *(percent(p) for p in (row.probability, row.probability_of_truth)),
        )
        for row in rows
    ]
    header = ("image", "true class", "predicted", "probability", "of the true class")
    return [Table(f"Most confident errors{more}", header, shown)]
