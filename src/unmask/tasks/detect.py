"""Detection and instance segmentation: Mask R-CNN on a plain encoder (paper, Table 4).

Legend: B images of a micro-batch, C channels, H x W pixels.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from unmask.config.detect import DetectConfig
from unmask.config.image import ImageSpec
from unmask.config.plan import Plan
from unmask.data.detections import find_detections
from unmask.data.instances import Detections
from unmask.data.normalize import normalize
from unmask.engine.task import Draw, Metric, Scheduled, StepOutput
from unmask.evals.detection import MOST_DETECTIONS
from unmask.evals.objects import coco_masks
from unmask.interop.description import Weights
from unmask.models.detector import Detector, valid_patches
from unmask.models.detector_spec import DetectorSpec
from unmask.recipes.detect import DETECT
from unmask.tasks.base import Data, EncoderTask
from unmask.tasks.detections import CAPTIONS, DetectionFigures, Validation
from unmask.tasks.facts import input_facts
from unmask.tasks.objects import ObjectBatch, ObjectSamples, moved

DROP_PATH, IMAGES = 0, 1
"""Keys that keep apart what a step draws: one for drop path, and from 1 on one for each image."""
NAMED_CLASSES = 20

METRICS = (
    Metric(
        key="detection/box_ap",
        label="box AP",
        format="{:.2%}",
        better="higher",
        on_console=True,
    ),
    Metric(key="detection/box_ap50", label="box AP50", format="{:.2%}", better="higher"),
    Metric(key="detection/mask_ap", label="mask AP", format="{:.2%}", better="higher"),
    Metric(key="detection/mask_ap50", label="mask AP50", format="{:.2%}", better="higher"),
)
BY_SIZE = {
    "small": "below 32 x 32 pixels",
    "medium": "32 x 32 to 96 x 96",
    "large": "above 96 x 96",
}


@dataclass(frozen=True, kw_only=True)
class ObjectImages(Data):
    """Also the objects of both parts."""

    objects: Detections
    validation: Detections


class Detect(EncoderTask):
    """Trains an encoder, a pyramid and the heads of a Mask R-CNN on jittered images."""

    name, title, config_class = "detect", "Detection", DetectConfig
    recipes: ClassVar[Mapping[str, Callable[[], Any]]] = DETECT
    metrics: ClassVar[Sequence[Metric]] = METRICS
    captions: ClassVar[Mapping[str, str]] = CAPTIONS
    keeps_channels = True
    exact_on_gpus = False  # resizing of features, and their pooling in regions
    config: DetectConfig

    def find(self) -> ObjectImages:
        """Images with objects, divided into training and validation."""
        coco_masks()  # says what to install
        d = self.config.data
        split = find_detections(
            d.source,
            val=d.val,
            val_share=d.val_share,
            label_column=d.label_column,
            single_class=d.single_class,
            max_megapixels=d.max_megapixels,
        )
        prints = split.training.fingerprint(), split.validation.fingerprint()
        return ObjectImages(
            training=split.training.images,
            held_out=split.validation.images,
            objects=split.training,
            validation=split.validation,
            fingerprint="{}; validation {}".format(*prints),
            messages=(*split.notes, *map(str, split.findings)),
        )

    def spec(self, data: ObjectImages, image: ImageSpec, init: Weights | None) -> DetectorSpec:
        """The encoder of --init, or a new one, for this canvas, with heads for these classes."""
        parts = {
            name: value for name, value in vars(self.config.detector).items() if name != "drop_path"
        }
        parts["masks"] = parts["masks"] and data.objects.instances.has_masks
        spec = DetectorSpec(encoder=self.encoder(image, init), classes=data.objects.classes, **parts)
        spec.windows(spec.encoder.depth)  # too few blocks are refused here
        return spec

    def check(self, plan: Plan, data: ObjectImages) -> Iterator[str]:
        """Says what is learnt, and what of it depends on how a batch is divided."""
        spec, t = spec_of(plan), plan.training
        yield from self.notes_on_encoder()
        if not spec.masks:
            why = "the data have none" if self.config.detector.masks else "as asked"
            yield f"boxes are learnt, and no masks: {why}"
        if spec.head_norm == "batch" and t.micro_batch < t.process_batch:
            yield (
                f"BatchNorm in the heads sees {t.micro_batch * plan.processes} images at a time, not "
                f"all {t.batch} of a step"
            )
        if not len(data.validation.instances.labels):
            yield "no validation image has an object, so that nothing can be measured"
        elif (most := int(data.validation.instances.counts().max())) > MOST_DETECTIONS:
            yield (
                f"a validation image has {most} objects, and average precision counts the "
                f"{MOST_DETECTIONS} most confident detections of each, as COCO's does: cut large "
                f"images into parts with fewer objects; --detector.detections {most} finds more in each"
            )

    def samples(self, plan: Plan, data: ObjectImages) -> ObjectSamples:
        """Jittered images with their objects."""
        return ObjectSamples(self.config, plan, data.objects, masks=spec_of(plan).masks)

    def step(self, model: Detector, batch: ObjectBatch, draw: Draw) -> StepOutput:
        """The mean over images of each image's own losses."""
        image, count = draw.plan.image, len(batch.sizes)
        images = normalize(batch.images.to(draw.device, non_blocking=True), image.mean, image.std)
        canvas = (images.shape[2], images.shape[3])
        if (inside := valid_patches(batch.sizes, canvas, draw.device)) is not None:
            images = images * inside[:, None]
        rate, depth = self.config.detector.drop_path, len(model.encoder.blocks)
        losses = model(
            images,
            batch.sizes,
            [moved(target, draw.device) for target in batch.targets],
            [draw.generator(IMAGES + draw.first + i) for i in range(count)],
            keep=self.drop_path(rate, count, draw, key=DROP_PATH, depth=depth),
        )
        scalars = {f"loss/{name}": value.mean() for name, value in losses.items()}
        return StepOutput(sum(losses.values()).mean(), weight=count, scalars=scalars)

    def evaluators(self, plan: Plan, data: ObjectImages) -> Sequence[Scheduled]:
        """Average precision on the validation images, and pictures of them."""
        if not len(data.validation.instances.labels):
            return ()
        bad_images = self.bad_validation_images(plan)
        validation = Validation(data.validation, plan.image, plan.loading, bad_images=bad_images)
        t = plan.training
        return [
            Scheduled(validation, t.evaluate_every),
            Scheduled(DetectionFigures(validation, data.objects), t.sample_every),
        ]

    def facts(self, plan: Plan, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Images that can be read, classes, the detector's parts, and precision by size and class."""
        f, spec = plan.facts, spec_of(plan)
        readable = f.held_out_images - int(record.get("detection/unreadable", 0))
        bias = (
            "" if spec.relative_position == "none" else f", {spec.relative_position} relative positions"
        )
        windows = f"windows of {spec.window} patches{bias}" if spec.window else f"no windows{bias}"
        return [
            ("Images", f"{f.training_images} for training, {readable} for validation"),
            ("Classes", f"{len(spec.classes)}: {', '.join(spec.classes[:NAMED_CLASSES])}"),
            *input_facts(plan),
            (
                "Detector",
                f"{spec.pyramid} pyramid, {windows}, {'masks' if spec.masks else 'boxes alone'}",
            ),
            *_parts_of(record, spec.classes),
            ("Layer decay", f"{self.config.optim.layer_decay:g}"),
        ]

    def conclude(self, run: Path, step: int) -> Iterator[str]:
        """Where truth stands beside detections, and how to use the detector."""
        picture = run / "samples" / f"objects-{step:08d}.png"
        if picture.exists():
            yield f"  detections       {picture}"
        yield f"next: {shlex.join(['unmask', 'predict', 'IMAGES', '--init', str(run)])}"


def spec_of(plan: Plan) -> DetectorSpec:
    """The plan's model."""
    assert isinstance(plan.model, DetectorSpec)
    return plan.model


def _parts_of(record: Mapping[str, Any], classes: Sequence[str]) -> list[tuple[str, str]]:
    """Precision of boxes and masks by the objects' size, and of boxes by class."""
    rows = []
    for kind in ("box", "mask"):
        known = {size: record.get(f"detection/{kind}_{size}") for size in BY_SIZE}
        parts = [f"{BY_SIZE[size]} {value:.2%}" for size, value in known.items() if value is not None]
        rows += [(f"{kind.capitalize()} AP by size", ", ".join(parts))] if parts else []
    named = [(name, record.get(f"detection/box_ap of {name}")) for name in classes]
    shown = [f"{name} {value:.2%}" for name, value in named if value is not None]
    return [*rows, ("Box AP by class", ", ".join(shown))] if shown else rows
