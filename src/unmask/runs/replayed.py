"""The report of a replayed step: sentences, replay.json, and a picture of its images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from unmask.config.io import to_json
from unmask.config.plan import Plan
from unmask.data.images import Images
from unmask.data.normalize import normalize
from unmask.engine.captured import SKIPPED, SPIKE, replay_command
from unmask.engine.optim import learning_rate
from unmask.engine.readings import Measured
from unmask.engine.run_directory import RunDirectory
from unmask.runs.inside import Inside, OneImage
from unmask.tasks.reconstruction import display_of
from unmask.use.results import finite
from unmask.viz.saving import png_bytes
from unmask.viz.tiles import Sheet, Tile, displayable, draw
from unmask.viz.words import last_part

JSON, PICTURE = "replay.json", "worst.png"
FORMAT = 1
MODULES_SHOWN, COLUMNS, NAME_LENGTH = 5, 4, 40


@dataclass(frozen=True, kw_only=True)
class StepLoss:
    """One step of those on the way."""

    step: int
    loss: float
    gradient_norm: float

    @classmethod
    def of(cls, step: int, measured: Measured) -> "StepLoss":
        """As it was measured."""
        loss = measured.sums["loss"] / measured.weight if measured.weight else math.nan
        return cls(step=step, loss=loss, gradient_norm=measured.norm)

    @property
    def is_skipped(self) -> bool:
        """Whether the weights stayed as they were."""
        return not math.isfinite(self.gradient_norm)


@dataclass(frozen=True, kw_only=True)
class Walked:
    """What came of the steps from a checkpoint to the one asked for, and to the next record."""

    inside: Inside
    window: tuple[StepLoss, ...]
    """The steps that one record averages, the one asked for among them, as far as they were taken."""
    averages: dict[str, float] | None
    """What the run would have written of them; None if it wrote nothing."""
    record: dict[str, Any] | None
    """What it did write."""

    @property
    def equal(self) -> bool | None:
        """Whether every average equals the recorded one to the last bit; None without a record."""
        if self.record is None or self.averages is None:
            return None
        return all(self.record.get(name) == value for name, value in self.averages.items())


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One step of a run, taken again."""

    run: Path
    step: int
    reason: str
    """Why the run captured it; empty if it did not."""
    start: int
    """Step of the checkpoint that it began from; 0 for the start of the run."""
    plan: Plan
    names: tuple[str, ...]
    """File names of the images, in the order of the batch."""
    walked: Walked
    notes: tuple[str, ...]
    path: Path
    """The folder that holds the report."""

    @property
    def taken(self) -> StepLoss:
        """The step itself."""
        return next(one for one in self.walked.window if one.step == self.step)

    def sentences(self) -> Iterator[str]:
        """What happened in the step, the cause first."""
        yield from _outcome(self)
        yield from _causes(self)
        yield from _comparison(self)
        for note in self.notes:
            yield f"note: {note}"

    def record(self) -> dict[str, Any]:
        """The same and more, for programs; null stands for what is not finite."""
        inside, walked = self.walked.inside, self.walked
        seen = inside.observation
        activations = sorted(seen.largest.items(), key=lambda pair: -pair[1])
        compared = walked.record is not None and {
            "step": walked.record["step"],
            "recorded": {name: walked.record.get(name) for name in walked.averages or {}},
            "replayed": walked.averages,
            "equal": walked.equal,
        }
        return {
            "format": FORMAT,
            "run": str(self.run),
            "step": self.step,
            "captured": self.reason or None,
            "from_step": self.start,
            "seed": self.plan.training.seed,
            "learning_rate": learning_rate(self.step - 1, self.plan.training),
            "loss": self.taken.loss,
            "gradient_norm": self.taken.gradient_norm,
            "skipped": self.taken.is_skipped,
            "record": compared or None,
            "steps": [vars(one) for one in walked.window],
            "first_not_finite": {
                "weight": seen.bad_weight,
                "module": seen.bad_module,
                "gradient": seen.bad_gradient,
            },
            "largest_activations": [{"module": name, "largest": x} for name, x in activations],
            "gradient_norms": [{"parameters": name, "norm": x} for name, x in seen.gradients.items()],
            "images": [
                _image_record(one, name) for one, name in zip(inside.images, self.names, strict=True)
            ],
            "sentences": list(self.sentences()),
        }


def write_replay(replayed: Replayed, *, worst: int) -> None:
    """Writes replay.json and, if any images are to be drawn, worst.png."""
    page = RunDirectory(replayed.path)
    (replayed.path / PICTURE).unlink(missing_ok=True)
    page.write(JSON, to_json(finite(replayed.record())))
    if picture := _sheet(replayed, worst):
        page.write(PICTURE, png_bytes(picture))


def names_of(inside: Inside, training: Images) -> tuple[str, ...]:
    """The file names of a step's images."""
    return tuple(training.paths[one.image] for one in inside.images)


def _outcome(replayed: Replayed) -> Iterator[str]:
    step, start = replayed.taken, replayed.start
    began = f"the checkpoint of step {start}" if start else "the start of the run"
    captured = f", captured as {replayed.reason}" if replayed.reason else ""
    yield (
        f"step {step.step}{captured}: loss {step.loss:.6g}, gradient norm {step.gradient_norm:.4g}, "
        f"learning rate {learning_rate(step.step - 1, replayed.plan.training):.3g}; replayed from "
        f"{began}"
    )
    was_skipped = replayed.reason == SKIPPED
    if was_skipped != step.is_skipped:
        then, now = ("skipped", "is not") if was_skipped else ("did not skip", "is")
        yield f"this is not what happened: the run {then} this step, and here it {now} skipped"
    if step.is_skipped:
        yield "the gradient is not finite: the step is skipped, and the weights stay as they were"


def _causes(replayed: Replayed) -> Iterator[str]:
    inside = replayed.walked.inside
    seen, named = inside.observation, dict(zip(map(id, inside.images), replayed.names, strict=True))
    if seen.bad_weight:
        yield f"the weights were not finite before the step: {seen.bad_weight} is the first"
    if seen.bad_module:
        yield f"the first output that is not finite is that of {seen.bad_module}"
    elif not inside.loss_is_finite:
        yield "the outputs of all modules are finite, and the loss is not"
    elif seen.bad_gradient:
        yield (
            f"loss and outputs are finite; the first gradient that is not, on its way back, is that of "
            f"{seen.bad_gradient}"
        )
    bad = [one for one in inside.images if not one.is_finite]
    for one in bad[:MODULES_SHOWN]:
        yield f"image {named[id(one)]!r} {_trouble(one)}"
    if len(bad) > MODULES_SHOWN:
        yield f"... and {len(bad) - MODULES_SHOWN} more images, all of them in {JSON}"
    for one in inside.images:
        for name in one.bad:
            yield f"image {name!r} cannot be read, and {named[id(one)]!r} stands for it"
    empty = [named[id(one)] for one in inside.images if one.nan == 1]
    if empty:
        yield f"image {empty[0]!r} has no pixel that is a number ({len(empty)} such in the batch)"
    losses = [one for one in inside.worst() if one.is_finite and one.loss is not None]
    if losses:
        yield f"largest loss of an image by itself: {losses[0].loss:.4g}, of {named[id(losses[0])]!r}"
    largest = max(seen.largest.items(), key=lambda pair: pair[1], default=None)
    if largest:
        yield f"largest activation: {largest[1]:.4g}, of {largest[0]}"
    steepest = max(seen.gradients.items(), key=lambda pair: pair[1], default=None)
    if steepest and math.isfinite(steepest[1]):
        yield f"largest gradient norm: {steepest[1]:.4g}, of {steepest[0]}"


def _trouble(one: OneImage) -> str:
    if one.infinite:
        return f"holds infinite pixels ({one.infinite:.1%} of its crop)"
    if one.loss is not None and not math.isfinite(one.loss):
        return "has by itself a loss that is not finite"
    return "has by itself a gradient that is not finite"


def _comparison(replayed: Replayed) -> Iterator[str]:
    walked = replayed.walked
    if walked.record is None or walked.averages is None:
        yield "the run recorded no loss of this step: there is nothing to compare with"
        return
    last, every = walked.record["step"], replayed.plan.training.log_every
    first = (last - 1) // every * every + 1
    what = f"steps {first} to {last}" if first < last else f"step {last}"
    was, now = walked.record.get("loss"), walked.averages.get("loss")
    if walked.equal:
        yield f"the recorded loss of {what} is the same to the last bit: {was!r}"
    else:
        yield f"the recorded loss of {what} is {was!r}, and the replayed one {now!r}"
    trained = [one for one in walked.window if math.isfinite(one.loss)]
    high = max(trained, key=lambda one: one.loss, default=None)
    if replayed.reason == SPIKE and high and high.step != replayed.step:
        command = replay_command(replayed.run, high.step)
        yield f"the highest loss of these steps is that of step {high.step}; see it with {command}"


def _image_record(one: OneImage, name: str) -> dict[str, Any]:
    return {
        "image": one.image,
        "name": name,
        "epoch": one.key.epoch,
        "repeat": one.key.repeat,
        "loss": one.loss,
        "gradient_norm": one.gradient_norm,
        "is_finite": one.is_finite,
        "nan": one.nan,
        "infinite": one.infinite,
        "in_place_of": list(one.bad),
    }


def _sheet(replayed: Replayed, count: int) -> Image.Image | None:
    """The worst images as the model was given them; None if there is nothing to draw."""
    inside = replayed.walked.inside
    named = dict(zip(map(id, inside.images), replayed.names, strict=True))
    drawn = [one for one in inside.worst() if one.crop is not None][:count]
    if not drawn:
        return None
    tiles = [_tile(one, replayed.plan) for one in drawn]
    words = [f"{_loss_in_words(one)}  {last_part(named[id(one)], NAME_LENGTH)}" for one in drawn]
    title = f"Step {replayed.step}: images with the largest losses"
    footnote = "Crops as the model was given them; losses of each image by itself."
    headings = [""] * min(COLUMNS, len(drawn))
    return draw(Sheet.in_rows(tiles, words, headings, title=title, footnote=footnote))


def _loss_in_words(one: OneImage) -> str:
    if not one.is_finite:
        return "not finite"
    return "" if one.loss is None else f"loss {one.loss:.4g}"


def _tile(one: OneImage, plan: Plan) -> Tile | None:
    """A crop, fitted into the size that the model sees; what is not finite is drawn as the mean."""
    assert one.crop is not None
    image, (h, w) = plan.image, plan.image.size
    normal = normalize(one.crop[None], image.mean, image.std).nan_to_num(0.0, 0.0, 0.0)
    shown = displayable(normal, display_of(image))[0]
    return np.asarray(ImageOps.pad(Image.fromarray(shown), (w, h), color="white"))
