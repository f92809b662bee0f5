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

from unmask.config.commands import PredictConfig
from unmask.config.fields import check
from unmask.data.bad_images import none_readable
from unmask.data.centre_crops import CentreCrops, load_centre_crops
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.normalize import normalize
from unmask.data.paths import slugs
from unmask.data.sources.find import find_images
from unmask.inference import infer
from unmask.models.classifier import Classifier
from unmask.storage import written_aside
from unmask.tasks.reconstruction import display_of
from unmask.use.classes import readable
from unmask.use.results import log_bad_images, results_in
from unmask.use.trained import Trained, read_trained, refuse_if_given
from unmask.viz.predictions import contact_sheet
from unmask.viz.saving import save_picture
from unmask.viz.tiles import displayable
from unmask.viz.words import escaped, one_line

CSV, JSONL, SHEET = "predictions.csv", "predictions.jsonl", "sheet.png"
SIGNIFICANT_DIGITS = 6
FORMULA = ("=", "+", "-", "@")
"""What a cell must not begin with, since spreadsheets would compute it."""

Write = Callable[[str, list[float]], None]
"""A row for one image: its path, and the probability of each class."""


class Classified(NamedTuple):
    """What was written."""

    path: Path
    """The folder."""
    counts: dict[str, int]
    """Number of images predicted as each class, the most frequent first."""
    bad: list[BadImage]
    notes: tuple[str, ...]
    sheet: Path | None
    """The first images with their classes."""

    @property
    def header(self) -> tuple[str, str]:
        """Column names of the rows."""
        return "predicted class", "images"

    @property
    def images(self) -> int:
        return sum(self.counts.values())

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The classes that occur, and how many images are predicted as each."""
        return [(one_line(name, 60), str(count)) for name, count in self.counts.items()]


def run_prediction(config: PredictConfig, given: Images | None = None) -> Classified:
    """Writes the probabilities of all readable images, in the order of the data.

    Raises ValueError, DataError or CheckpointError with a fix.
    """
    check(config)
    trained = read_trained(
        "predict", config.init, heads=config.model.heads, device=config.device, workers=config.workers
    )
    model, classes = trained.classifier(config.init), readable(trained.classes)
    refuse_if_given("--tile", config.tile, of="detectors", init=config.init, kind="classifier")
    images = find_images(config.source, root=config.root) if given is None else given
    with results_in(config.out or f"runs/predict-{slugs(config.source)}") as folder:
        return _predicted(config, trained, model, classes, images, folder)


def _predicted(
    config: PredictConfig,
    trained: Trained,
    model: Classifier,
    classes: tuple[str, ...],
    images: Images,
    folder: Path,
) -> Classified:
    loading = trained.loading
    crops = CentreCrops(images, trained.image, workers=loading.workers, timeout=loading.timeout)
    counts, bad, first = Counter[str](), list[BadImage](), list[tuple[int, Tensor]]()
    with trained.arithmetic(), _tables(folder, classes, config.top) as write:
        for rows in infer(model, crops, trained.device, title="predictions"):
            bad += rows.unreadable
            probabilities = rows.output.float().cpu().softmax(dim=1) if rows.indices else ()
            for index, row in zip(rows.indices, probabilities, strict=True):
                write(images.paths[index], row.tolist())
                counts[classes[int(row.argmax())]] += 1
                if len(first) < config.sheet:
                    first.append((index, row))
        if not counts:
            raise none_readable(bad)
    log_bad_images(folder, bad, images=len(images), max_share=1)
    sheet = folder / SHEET if first else None
    (folder / SHEET).unlink(missing_ok=True)
    if sheet:
        chosen = load_centre_crops(images.subset([index for index, _ in first]), trained.image)
        normal = normalize(chosen, trained.image.mean, trained.image.std)
        shown = displayable(normal, display_of(trained.image))
        probabilities = torch.stack([row for _, row in first])
        title = f"{one_line(images.name, 60)}: {len(first)} of {counts.total()} images"
        files = [images.paths[index] for index, _ in first]
        save_picture(contact_sheet(shown, probabilities, classes, files, title=title), sheet)
    return Classified(folder, dict(counts.most_common()), bad, trained.description.notes, sheet)


def cell(text: str) -> str:
    """A text that neither a spreadsheet nor a terminal takes for more than text."""
    line = escaped(text)
    begins = unicodedata.normalize("NFKC", line.lstrip()[:1])
    return f"'{line}" if begins.startswith(FORMULA) else line


@contextmanager
def _tables(folder: Path, classes: tuple[str, ...], top: int | None) -> Iterator[Write]:
    """Writes both files, which are there at the end or not at all."""
    count = len(classes) if top is None else min(top, len(classes))
    with whole(folder / JSONL) as lines, whole(folder / CSV) as text:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_header(classes, None if top is None else count))

        def write(path: str, row: list[float]) -> None:
            best = sorted(range(len(row)), key=lambda i: -row[i])[:count]
            found = {classes[i]: float(f"{row[i]:.{SIGNIFICANT_DIGITS}g}") for i in best}
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
def whole(path: Path) -> Iterator[TextIO]:
    """A text file that is there at the end or not at all."""
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        yield file
