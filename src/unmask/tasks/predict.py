"""Images with the classes that a classifier takes them for: tables, and a contact sheet."""

import csv
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

import torch
from torch import Tensor

from unmask.config.schema_classify import LabelledDataConfig
from unmask.config.schema_use import PredictConfig
from unmask.data.bad_images import none_readable
from unmask.data.decode.pictures import BadImage
from unmask.data.sources.find import find_images, slug
from unmask.tasks.classes import readable
from unmask.tasks.results import log_bad_images, result_folder
from unmask.tasks.trained import read_trained, watched
from unmask.tasks.validation import Predictions
from unmask.viz.predictions import contact_sheet
from unmask.viz.tiles import displayable
from unmask.viz.words import escaped, one_line

CSV, JSONL, SHEET = "predictions.csv", "predictions.jsonl", "sheet.png"
SIGNIFICANT_DIGITS = 6
FORMULA = ("=", "+", "-", "@")
"""What a cell must not begin with, since spreadsheets would compute it."""

Write = Callable[[str, list[float]], None]
"""Of one image: its path, and the probability of each class."""


class Classified(NamedTuple):
    """What was written."""

    path: Path
    """The folder."""
    counts: dict[str, int]
    """Images taken for each class, the most frequent first."""
    bad: list[BadImage]
    notes: tuple[str, ...]
    sheet: Path | None
    """The first images with their classes."""

    @property
    def images(self) -> int:
        return sum(self.counts.values())


def run_prediction(config: PredictConfig) -> Classified:
    """Writes the probabilities of all readable images, in the order of the data.

    Raises ValueError, DataError or CheckpointError with the mend.
    """
    _check(config)
    d = LabelledDataConfig(workers=config.workers)
    trained = read_trained("predict", config.init, d, config.device)
    model, classes = trained.classifier(config.init), readable(trained.classes)
    images = find_images(config.source, root=config.root)
    folder = result_folder(config.out or f"runs/predict-{'-'.join(map(slug, config.source))}")
    predictions = Predictions(images, trained.view, watch=watched("predictions"))
    counts, bad, first = Counter[str](), list[BadImage](), list[tuple[int, Tensor]]()
    with trained.arithmetic(), _tables(folder, classes, config.top) as write:
        for part in predictions.each(model):
            bad += part.bad
            for number, row in zip(part.numbers, part.logits.softmax(dim=1), strict=True):
                write(images.paths[number], row.tolist())
                counts[classes[int(row.argmax())]] += 1
                if len(first) < config.sheet:
                    first.append((number, row))
        if not counts:
            raise none_readable(bad)
    log_bad_images(folder, bad, images=len(images), max_share=1)
    sheet = folder / SHEET if first else None
    (folder / SHEET).unlink(missing_ok=True)
    if sheet:
        shown = displayable(predictions.crops([number for number, _ in first]), trained.view.shown())
        probabilities = torch.stack([row for _, row in first])
        title = f"{one_line(images.name, 60)}: {len(first)} of {counts.total()} images"
        contact_sheet(shown, probabilities, classes, title=title).save(sheet)
    return Classified(folder, dict(counts.most_common()), bad, trained.description.notes, sheet)


def cell(text: str) -> str:
    """A text that neither a spreadsheet nor a terminal takes for more than text."""
    line = escaped(text)
    begins = unicodedata.normalize("NFKC", line.lstrip()[:1])
    return f"'{line}" if begins.startswith(FORMULA) else line


def _check(config: PredictConfig) -> None:
    least = {"top": (config.top, 1), "sheet": (config.sheet, 0), "workers": (config.workers, 0)}
    for name, (value, limit) in least.items():
        if value is not None and value < limit:
            raise ValueError(f"--{name} is {value} and must be {limit} or more")


@contextmanager
def _tables(folder: Path, classes: tuple[str, ...], top: int | None) -> Iterator[Write]:
    """Writes both files, which are there at the end or not at all."""
    count = len(classes) if top is None else min(top, len(classes))
    with _whole(folder / JSONL) as lines, _whole(folder / CSV) as text:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_header(classes, None if top is None else count))

        def write(path: str, row: list[float]) -> None:
            likeliest = sorted(range(len(row)), key=lambda i: -row[i])[:count]
            found = {classes[i]: float(f"{row[i]:.{SIGNIFICANT_DIGITS}g}") for i in likeliest}
            name, probability = next(iter(found.items()))
            record = {"path": path, "class": name, "probability": probability, "probabilities": found}
            lines.write(json.dumps(record) + "\n")
            listed = [value for pair in found.items() for value in (cell(pair[0]), pair[1])]
            others = [found[name] for name in classes] if top is None else listed[2:]
            table.writerow([cell(path), cell(name), probability, *others])

        yield write


def _header(classes: tuple[str, ...], top: int | None) -> list[str]:
    """A column for each class, or two for each place."""
    if top is None:
        others = [f"probability of {escaped(name)}" for name in classes]
    else:
        others = [f"{what} {place}" for place in range(2, top + 1) for what in ("class", "probability")]
    return ["path", "class", "probability", *others]


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    aside = path.with_name(f".{path.name}.unfinished")
    try:
        with aside.open("w", newline="", encoding="utf-8") as file:
            yield file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
