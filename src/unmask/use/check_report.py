"""What `unmask check` says of a data set: rows of a table, sentences, and one JSON object."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unmask.config.advice import Advice
from unmask.config.image import ImageSpec
from unmask.cost.predict import Prediction
from unmask.cost.reading import ReadingTime
from unmask.data.images import Images
from unmask.data.inspect import Inspection
from unmask.data.sources.find import sums
from unmask.data.sources.index import Ignored
from unmask.data.split import default_held_out
from unmask.units import counted, data_size, duration
from unmask.use.check_annotations import AnnotationCheck
from unmask.viz.words import percent

LIST = "images.jsonl"
NAMED = 10
"""Number of images that a sentence names."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A data set, looked at."""

    name: str
    inspection: Inspection
    ignored: Counter[Ignored]
    """What is in the folders and is no image, by suffix and reason."""
    image: ImageSpec
    recipe: str
    reason: str
    prediction: Prediction
    reading: ReadingTime
    samples: Image.Image
    """What the model will see."""
    folder: Path
    """Where the picture belongs."""
    commands: tuple[str, ...]
    """What to type next."""
    listed: Sequence[str] = ()
    """The images, for a list of them in `folder`, if label maps lie among them."""
    notes: tuple[str, ...] = ()
    """Sentences on what was decided about the images, and on what a run would stop at."""
    annotations: tuple[AnnotationCheck, ...] = ()
    """What stands beside the images: label maps, for one."""
    advice: Advice | None = None
    """What suits the images, if no recipe was asked for."""

    def rows(self) -> list[tuple[str, str]]:
        """Names and values to show."""
        i, aside = self.inspection, default_held_out(self.inspection.images)
        others = "other files" if self.annotations else "ignored"  # annotations are read
        return [
            ("images", f"{i.images}, of which a run would hold out {aside}"),
            *((others, one) for one in sums(self.ignored)),
            ("formats", ", ".join(f"{count} {kind}" for kind, count in sorted(i.kinds.items()))),
            ("height x width", f"{_size(i.smallest)} to {_size(i.largest)}, median {_size(i.median)}"),
            *(row for found in self.annotations for row in found.rows),
            ("unreadable", f"{len(i.bad)} (all headers read, {i.decoded} images decoded)"),
            ("of one colour", f"{len(i.one_colour)} of the {i.decoded} decoded"),
            ("duplicates", f"{counted(len(i.duplicates), 'group')} of files with the same content"),
            ("read as", f"{counted(self.image.channels, 'channel')} of {self.image.dtype}"),
            ("mean", " ".join(f"{value:.4g}" for value in self.image.mean)),
            ("standard deviation", " ".join(f"{value:.4g}" for value in self.image.std)),
            ("recipe", f"{self.recipe}: {self.reason}"),
            *(self.advice.rows() if self.advice else ()),
            ("time", self._time()),
            ("bottleneck", self.reading.verdict),
            ("memory", self._memory()),
        ]

    def record(self) -> dict[str, Any]:
        """One JSON object: of the images, not of a run. `unreadable` are among the `images`.

        Mean and standard deviation per channel, on the scale that training uses: 0 to 1 for integers of
        8 and 16 bits. `ignored` counts by suffix, "/" for folders.
        """
        ignored: Counter[str] = Counter()
        for (suffix, _), count in self.ignored.items():
            ignored[suffix] += count
        return {
            "images": self.inspection.images,
            "channels": self.image.channels,
            "dtype": self.image.dtype,
            "mean": self.image.mean,
            "std": self.image.std,
            "ignored": dict(sorted(ignored.items())),
            "unreadable": {bad.path: bad.reason for bad in self.inspection.bad},
            "notes": self.notes,
        }

    def _time(self) -> str:
        p, t, d = self.prediction, self.prediction.plan.training, self.prediction.plan.loading
        reading = self.reading.seconds
        kept = f", then {self.reading.later_ms:.2g} from memory" if d.keep_decoded else ""
        return (
            f"about {duration(max(p.seconds, reading))} here: {t.steps} steps of {t.batch} images, "
            f"{duration(p.seconds)} of computation, {duration(reading)} of data loading in "
            f"{counted(d.workers, 'process')} at {p.sample_ms:.2g} ms a sample{kept}"
        )

    def _memory(self) -> str:
        p, f = self.prediction, self.prediction.plan.facts
        t = p.plan.training
        kept = p.activation_bytes[1 if t.activation_checkpointing else 0]
        working = p.replicated().state + kept * t.micro_batch
        decoded = f.training_images * f.decoded_bytes if p.plan.loading.keep_decoded else 0
        images = f"; {data_size(decoded)} for decoded images, which all fit" if decoded else ""
        step = f"weights, optimizer and a micro-batch of {t.micro_batch}"
        return f"about {data_size(working)} for {step}{images}"


@dataclass(frozen=True, kw_only=True)
class BadShare:
    """What a run makes of the images that cannot be read."""

    training: float
    """Their share of the training images."""
    held_out: float
    """Unreadable share of the held-out images; 1 if none of these can be read."""
    allowed: float
    """`--data.max-bad-share`."""

    @classmethod
    def of(cls, images: Images, inspection: Inspection, allowed: float) -> "BadShare":
        """As a run would divide the images; those that were not decoded are like the others."""
        bad = {one.path for one in inspection.bad}
        parts = images.split(default_held_out(len(images)))
        shares = [sum(path in bad for path in part.paths) / max(1, len(part)) for part in parts]
        if inspection.decoded < inspection.images:
            shares[0] = max(shares[0], inspection.bad_share)
        return cls(training=shares[0], held_out=shares[1], allowed=allowed)

    @property
    def stops_a_run(self) -> bool:
        """Whether a run would stop without another share."""
        return self.training > self.allowed

    @property
    def enough(self) -> str:
        """A value for --data.max-bad-share that a run goes on with."""
        return f"{min(1.0, (int(self.training * 100) + 1) / 100):g}"

    def notes(self) -> Iterator[str]:
        """Sentences on what a run would stop at."""
        if self.stops_a_run:
            yield (
                f"about {percent(self.training)} of the training images cannot be read, and a run stops "
                f"at more than {percent(self.allowed)}: correct or remove them, or let it go on without "
                f"them by --data.max-bad-share {self.enough}"
            )
        if self.held_out == 1:
            yield (
                "none of the images that a run would hold out can be read, and it would stop: correct "
                "or remove them"
            )


def one_colour_notes(inspection: Inspection) -> Iterator[str]:
    """Names images in which all pixels are the same; they are kept."""
    if same := inspection.one_colour:
        yield f"{counted(len(same), 'image')} of one colour, kept for training: {named(same)}"


def named(paths: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(repr(os.fspath(path)) for path in paths[:NAMED]) + more


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
