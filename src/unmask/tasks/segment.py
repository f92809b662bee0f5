"""Semantic segmentation: UperNet (paper, Table 5), or a linear layer on every patch.

Legend: B images of a micro-batch, C channels, H x W pixels, K classes.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from unmask.config.image import ImageSpec
from unmask.config.plan import Plan
from unmask.config.segment import SegmentConfig
from unmask.data.images import Images
from unmask.data.label_maps import find_label_maps
from unmask.data.maps import IGNORE_INDEX, LabelMaps
from unmask.data.normalize import normalize
from unmask.data.paths import PathList
from unmask.engine.task import Draw, Metric, Scheduled, StepOutput
from unmask.interop.description import Weights
from unmask.models.segmenter import Segmenter, channel_keep, freeze_encoder, segmentation_loss
from unmask.models.segmenter_spec import SegmenterSpec
from unmask.recipes.segment import SEGMENT
from unmask.tasks.base import Data, EncoderTask
from unmask.tasks.facts import input_facts
from unmask.tasks.labelled import is_picture
from unmask.tasks.mapped import MappedBatch, MappedSamples
from unmask.tasks.pixels import PixelFigures, PixelValidation, model_spec

DROP_PATH, DROPOUT = 1, 2
"""Keys that keep apart what a step draws."""
AUXILIARY_WIDTH = 256
NAMED_CLASSES = 40


@dataclass(frozen=True, kw_only=True)
class MappedImages(Data):
    """Also the label maps of both parts."""

    maps: LabelMaps
    validation: LabelMaps
    files_called = "image files or label maps"

    @property
    def files(self) -> tuple[Images, ...]:
        """Also the label maps."""
        parts = self.maps, self.validation
        names = (PathList(part.maps.name(i) for i in range(len(part))) for part in parts)
        return (*super().files, *(Images("label maps", paths) for paths in names))


class Segment(EncoderTask):
    """Trains a segmenter on random crops; measures it on whole images."""

    name, title, config_class, recipes = "segment", "Semantic segmentation", SegmentConfig, SEGMENT
    metrics = (
        Metric(key="val/mean_iou", label="mean IoU", format="{:.2%}", better="higher", on_console=True),
        Metric(
            key="val/mean_accuracy",
            label="mean accuracy of the classes",
            format="{:.2%}",
            better="higher",
            has_curve=False,
        ),
        Metric(key="val/pixel_accuracy", label="pixel accuracy", format="{:.2%}", better="higher"),
    )
    captions: ClassVar[Mapping[str, str]] = {
        "segmentation": "Images, label maps, predictions and errors",
        "confusion": "Confusion matrix of pixels",
    }
    keeps_channels = True
    exact_on_gpus = False  # resizing and pooling of features
    config: SegmentConfig

    def find(self) -> MappedImages:
        """Images with label maps, divided into training and validation."""
        d = self.config.data
        split = find_label_maps(d.source, val=d.val, val_share=d.val_share, options=d)
        training, validation = split.training, split.validation
        return MappedImages(
            training=training.images,
            held_out=validation.images,
            maps=training,
            validation=validation,
            fingerprint=(
                f"{training.fingerprint()}; validation {validation.fingerprint()}; "
                f"classes {' '.join(training.classes)}"
            ),
            messages=(*map(str, split.findings), *split.notes),
        )

    def spec(self, data: MappedImages, image: ImageSpec, init: Weights | None) -> SegmenterSpec:
        """The encoder of --init, or a new one, for these images, with a head for these classes."""
        c, h = self.config, self.config.head
        encoder = self.encoder(image, init)
        shorter, palette = min(image.size), data.maps.palette
        spec = SegmenterSpec(
            encoder=encoder,
            classes=data.maps.classes,
            colours=None if palette is None else tuple((r, g, b) for r, g, b in palette.tolist()),
            sides=None if c.data.own_size else c.data.resize or (4 * shorter, shorter),
            head=h.kind,
            layers=h.layers,
            width=h.width,
            auxiliary_width=min(AUXILIARY_WIDTH, h.width or encoder.width),
            relative_position=h.relative_position and not h.frozen,
            layer_scale=None if h.frozen else 1.0,
        )
        assert spec.blocks  # raises if the encoder lacks them
        return spec

    def check(self, plan: Plan, data: Data) -> Iterator[str]:
        """Refuses single images for BatchNorm; says what was decided, and what changes nothing."""
        c, t = self.config, plan.training
        seen = (t.process_batch % t.micro_batch or t.micro_batch) * plan.processes
        if c.head.kind == "upernet" and seen < 2:
            raise ValueError(
                f"UperNet's BatchNorm needs two images in every micro-batch, and --optim.micro-batch "
                f"{t.micro_batch} of {t.process_batch} leaves one alone: choose another, or --head "
                f"linear"
            )
        if t.micro_batch < t.process_batch:
            yield (
                f"BatchNorm sees {t.micro_batch * plan.processes} images at a time, not all {t.batch} "
                f"of a step"
            )
        if c.data.distort and not is_picture(plan.image):
            yield "colours are not distorted: that takes 8 bits in 1 or 3 channels"
        yield from self.notes_on_encoder()
        yield from self._notes_on_head()

    def _notes_on_head(self) -> Iterator[str]:
        c = self.config
        recipe = SEGMENT[c.recipe]() if c.recipe in SEGMENT else SegmentConfig()
        changed = [n for n in ("width", "layers") if getattr(c.head, n) != getattr(recipe.head, n)]
        for name in changed if c.head.kind == "linear" else ():
            yield f"--head.{name} changes nothing here: the linear head has none"
        if c.scratch and c.head.frozen:
            yield "the frozen encoder has random weights: this measures the baseline of a random encoder"

    def samples(self, plan: Plan, data: MappedImages) -> "MappedSamples":
        """Random crops with their label maps."""
        return MappedSamples(self.config, plan, data.maps)

    def freeze(self, model: Segmenter) -> None:
        """The encoder, if the head alone is to be trained."""
        if self.config.head.frozen:
            freeze_encoder(model)

    def step(self, model: Segmenter, batch: MappedBatch, draw: Draw) -> StepOutput:
        """Cross-entropy of one micro-batch, averaged over its labelled pixels."""
        image, h = draw.plan.image, self.config.head
        # On the host, where the count is known without waiting for the device.
        pixels = int((batch.labels != IGNORE_INDEX).sum())
        images = batch.images.to(draw.device, non_blocking=True)
        labels = batch.labels.to(draw.device, non_blocking=True)
        rate, depth = 0.0 if h.frozen else h.drop_path, len(model.encoder.blocks)
        output = model(
            normalize(images, image.mean, image.std),
            keep=self.drop_path(rate, len(labels), draw, key=DROP_PATH, depth=depth),
            channel_keep=self._dropout(len(labels), draw, model.dropped_channels),
        )
        loss = segmentation_loss(output, labels, auxiliary_weight=h.auxiliary_weight)
        right = (output.logits.detach().argmax(dim=1) == labels).sum()
        count = max(1, pixels)
        return StepOutput(loss.total / count, weight=pixels, scalars={"accuracy": right / count})

    def _dropout(self, images: int, draw: Draw, channels: tuple[int, ...]) -> Tensor | None:
        """Drawn for the whole step; this micro-batch takes its rows."""
        if not self.config.head.dropout or not channels:
            return None
        batch, rng = draw.plan.training.batch, draw.generator(DROPOUT)
        keep = channel_keep(channels, self.config.head.dropout, batch, rng)
        return keep[draw.first : draw.first + images].to(draw.device, non_blocking=True)

    def evaluators(self, plan: Plan, data: MappedImages) -> Sequence[Scheduled]:
        """Scores on the validation images, and pictures of them."""
        bad_images = self.bad_validation_images(plan)
        validation = PixelValidation(data.validation, plan.image, plan.loading, bad_images)
        t = plan.training
        return [
            Scheduled(validation, t.evaluate_every),
            Scheduled(PixelFigures(validation), t.sample_every),
        ]

    def facts(self, plan: Plan, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Images, classes with their IoU, what is trained and how samples are augmented."""
        c, spec, f = self.config, model_spec(plan.model), plan.facts
        (low, high), factors = c.data.scale, plan.image.size
        readable = f.held_out_images - int(record.get("val/unreadable", 0))
        sides = "own size" if spec.sides is None else f"within {spec.sides[0]} x {spec.sides[1]} pixels"
        return [
            ("Images", f"{f.training_images} for training, {readable} for validation"),
            ("Classes", f"{len(spec.classes)}: {', '.join(spec.classes[:NAMED_CLASSES])}"),
            ("IoU of classes", _ious(spec.classes, record)),
            *input_facts(plan),
            ("Head", f"{spec.head} on blocks {' '.join(map(str, spec.blocks))}"),
            (
                "Trained parts",
                "the head alone" if c.head.frozen else f"all; drop path {c.head.drop_path:g}",
            ),
            ("Whole images", f"{sides}, in windows of {factors[0]} x {factors[1]}"),
            (
                "Augmentation",
                f"scale {low:g} to {high:g}, crops"
                + (", flips" if c.data.flip else "")
                + (", colours" if c.data.distort and is_picture(plan.image) else ""),
            ),
            ("Layer decay", f"{c.optim.layer_decay:g}"),
        ]

    def conclude(self, run: Path, step: int) -> Iterator[str]:
        """Where the pictures are, and how to use the segmenter."""
        yield f"  segmentation     {run / 'samples' / f'segmentation-{step:08d}.png'}"
        yield f"next: {shlex.join(['unmask', 'predict', 'IMAGES', '--init', str(run)])}"


def _ious(classes: Sequence[str], record: Mapping[str, Any]) -> str:
    """Those of the classes that occur, the lowest first."""
    known = [(record.get(f"val/iou/{name}"), name) for name in classes]
    found = sorted((value, name) for value, name in known if value is not None and isfinite(value))
    shown = [f"{name} {value:.1%}" for value, name in found[:NAMED_CLASSES]]
    rest = len(found) - len(shown)
    return ", ".join(shown) + (f"; {rest} more with higher ones" if rest else "")
