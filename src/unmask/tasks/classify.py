"""Classification: fine-tuning, partial tuning, linear probing, from scratch (paper, Tables 9 to 11,
Fig. 9).

Legend: B images of a micro-batch, C channels, H x W pixels, K classes.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch.nn.functional as F

from unmask.config.commands import ClassifyConfig, FinetuneConfig, ProbeConfig, ScratchConfig
from unmask.config.image import ImageSpec, usual_crop
from unmask.config.plan import Plan
from unmask.core.spec import Size
from unmask.data.crops import prepared
from unmask.data.mixing import draw_mix, mix, mixed_targets, partners
from unmask.data.records import Labelled
from unmask.data.split import take_fraction
from unmask.engine.task import Draw, Metric, Scheduled, StepOutput
from unmask.interop.description import Weights
from unmask.models.classifier import Classifier, check_trainable, set_trainable
from unmask.models.classifier_spec import ClassifierSpec
from unmask.recipes.classify import FINETUNE, PROBE, SCRATCH
from unmask.tasks.base import Data, EncoderTask
from unmask.tasks.facts import input_facts
from unmask.tasks.labelled import (
    LabelledBatch,
    LabelledSamples,
    augmentation,
    check_batch_norm,
    check_mixing,
    check_resizing,
    find_split,
    fingerprint_of,
    is_picture,
    trained_blocks,
    without_effect,
)
from unmask.tasks.validation import Validation, ValidationFigures

MIX, DROP_PATH = 1, 2
"""Keys that keep apart what a step draws."""
NAMED_CLASSES = 20

METRICS = (
    Metric(
        key="val/top1",
        label="validation accuracy",
        format="{:.2%}",
        better="higher",
        on_console=True,
        baseline_key="val/commonest_class",
        baseline_label="the majority class",
        images_key="val/images",
        advice="a longer run or another learning rate usually helps (--sweep optim.base-lr 1e-3,4e-3), "
        "or correcting labels: begin with the most confident errors",
    ),
    Metric(
        key="val/balanced_accuracy",
        label="balanced accuracy",
        format="{:.2%}",
        better="higher",
        has_curve=False,
    ),
    Metric(key="val/top5", label="top-5 accuracy", format="{:.2%}", better="higher", has_curve=False),
    Metric(key="val/nll", label="validation negative log-likelihood", format="{:.4f}"),
)
CAPTIONS = {
    "confusion": "Confusion matrix",
    "mistakes": "Most confident errors",
    "calibration": "Reliability diagram",
}


@dataclass(frozen=True, kw_only=True)
class LabelledImages(Data):
    """Also the labels of both parts."""

    labelled: Labelled
    validation: Labelled


class Finetune(EncoderTask):
    """Trains an encoder and a new head on augmented, mixed images."""

    name, title = "finetune", "Fine-tuning"
    config_class: ClassVar[type] = FinetuneConfig
    recipes: ClassVar[Mapping[str, Callable[[], Any]]] = FINETUNE
    metrics, captions = METRICS, CAPTIONS
    needs_init = keeps_channels = True
    config: ClassifyConfig

    def find(self) -> LabelledImages:
        """Images with labels, divided into training and validation."""
        d = self.config.data
        split = find_split(d)
        training = take_fraction(
            split.training, fraction=d.fraction, per_class=d.per_class, seed=d.subset_seed
        )
        return LabelledImages(
            training=training.images,
            held_out=split.validation.images,
            labelled=training,
            validation=split.validation,
            fingerprint=f"{fingerprint_of(training)}; validation {fingerprint_of(split.validation)}",
            messages=split.notes,
        )

    def eval_crop(self, size: Size) -> float:
        """As asked, or the usual one."""
        asked = self.config.data.eval_crop
        return usual_crop(size) if asked is None else asked

    def spec(self, data: LabelledImages, image: ImageSpec, init: Weights | None) -> ClassifierSpec:
        """The encoder of --init for these images, with a head for these classes."""
        head = self.config.head
        return ClassifierSpec(
            encoder=self.encoder(image, init),
            classes=data.labelled.classes,
            pool=head.pool,
            batch_norm=head.batch_norm,
        )

    def check(self, plan: Plan, data: Data) -> Iterator[str]:
        """Refuses what cannot be mixed or normalised; says what was decided."""
        c = self.config
        check_trainable(plan.model.encoder.depth, c.head.tune_blocks)
        check_mixing(c, plan)
        check_resizing(c)
        yield from check_batch_norm(c, plan)
        if c.augment.rand_augment and not is_picture(plan.image):
            yield "RandAugment is left out: it takes 8 bits in 1 or 3 channels"
        yield from without_effect(c)
        yield from self.notes_on_encoder()

    def samples(self, plan: Plan, data: LabelledImages) -> LabelledSamples:
        """Augmented crops with their classes."""
        return LabelledSamples(self.config, plan, data.labelled)

    def freeze(self, model: Classifier) -> None:
        """Everything but the last blocks that are tuned."""
        set_trainable(model, self.config.head.tune_blocks)

    def step(self, model: Classifier, batch: LabelledBatch, draw: Draw) -> StepOutput:
        """Soft cross-entropy of one micro-batch."""
        a, image = self.config.augment, draw.plan.image
        images = prepared(batch.images, draw.device, image)
        how = draw_mix(draw.generator(MIX), image.size, mixup=a.mixup, cutmix=a.cutmix)
        # On the host, where the weights' total is known without waiting for the device.
        labels, weights = batch.labels, batch.weights
        weights = weights * how.share + weights[partners(weights)] * (1 - how.share)
        shares = (weights / weights.sum()).to(draw.device, non_blocking=True)
        targets = mixed_targets(labels, model.head.out_features, how, a.smoothing)
        targets = targets.to(draw.device, non_blocking=True)
        rate, depth = self.config.head.drop_path, len(model.encoder.blocks)
        keep = self.drop_path(rate, len(labels), draw, key=DROP_PATH, depth=depth)
        logits = model(mix(images, how), keep=keep)
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        right = logits.argmax(dim=1) == targets.argmax(dim=1)
        scalars = {"accuracy": (right * shares).sum()}
        return StepOutput((losses * shares).sum(), weight=float(weights.sum()), scalars=scalars)

    def evaluators(self, plan: Plan, data: LabelledImages) -> Sequence[Scheduled]:
        """Scores on the validation images, and pictures of them."""
        bad_images = self.bad_validation_images(plan)
        validation = Validation(data.validation, plan.image, plan.loading, bad_images=bad_images)
        t = plan.training
        return [
            Scheduled(validation, t.evaluate_every),
            Scheduled(ValidationFigures(validation), t.sample_every),
        ]

    def summary(self, record: Mapping[str, Any], plan: Plan) -> str:
        """Top-5 accuracy only if there are more classes; and what could not be read."""
        shown = ["val/top1", "val/balanced_accuracy"]
        shown += ["val/top5"] if len(data_classes(plan)) > 5 else []
        text = ", ".join(m.shown(record[m.key]) for m in METRICS if m.key in shown)
        bad = record.get("val/unreadable")
        left_out = f"; {bad} validation images cannot be read: see bad_images.jsonl" if bad else ""
        return text + left_out

    def facts(self, plan: Plan, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Images that can be read, classes, what is trained and how samples are augmented."""
        c, f, classes = self.config, plan.facts, data_classes(plan)
        head, readable = c.head, f.held_out_images - int(record.get("val/unreadable", 0))
        return [
            ("Images", f"{f.training_images} for training, {readable} for validation"),
            ("Classes", f"{len(classes)}: {', '.join(classes[:NAMED_CLASSES])}"),
            *input_facts(plan),
            (
                "Trained parts",
                f"{trained_blocks(head.tune_blocks)}; {head.pool} pooling; drop path {head.drop_path:g}",
            ),
            ("Augmentation", augmentation(c, plan.image)),
            ("Layer decay", f"{c.optim.layer_decay:g}"),
        ]

    def conclude(self, run: Path, step: int) -> Iterator[str]:
        """Where the confusion matrix is, and how to use the classifier."""
        yield f"  confusion        {run / 'samples' / f'confusion-{step:08d}.png'}"
        yield f"next: {shlex.join(['unmask', 'predict', 'IMAGES', '--init', str(run)])}"


class Probe(Finetune):
    """Trains a linear classifier on the frozen encoder's features (paper, Table 10)."""

    name, title = "probe", "Linear probe"
    config_class, recipes = ProbeConfig, PROBE


class Scratch(Finetune):
    """Trains a new encoder and head on labels alone (paper, Table 11): what pre-training has to beat."""

    name, title = "scratch", "From scratch"
    config_class, recipes = ScratchConfig, SCRATCH
    needs_init = keeps_channels = False


def data_classes(plan: Plan) -> tuple[str, ...]:
    """The names of the outputs."""
    assert isinstance(plan.model, ClassifierSpec)
    return plan.model.classes
