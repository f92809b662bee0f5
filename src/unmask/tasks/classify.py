"""Classification as a task of the loop: fine-tuning, probing, partial tuning, from scratch.

Legend: B images of a micro-batch, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.config.resolve_classify import ClassifyPlan
from unmask.data.crops import on_device
from unmask.data.labels import Labelled
from unmask.data.loader import Batch
from unmask.data.mixing import Mix, draw_mix, mix, mixed_targets, partners
from unmask.data.normalize import normalize
from unmask.data.sampler import generator
from unmask.engine.optim import layer_decay_groups
from unmask.engine.task import Scheduled, StepOutput
from unmask.models.classifier import Classifier, drop_path_keep
from unmask.tasks.validation import Validation, ValidationPictures

MIX, DROP_PATH = 1, 2
"""Keys that keep apart what a step draws."""


class ClassifyTask:
    """Predicts the class of augmented, mixed images."""

    def __init__(
        self,
        model: Classifier,
        plan: ClassifyPlan,
        device: torch.device,
        *,
        training: Labelled,
        weights: np.ndarray | None,
        validation: Validation,
    ):
        """`weights` [n]: how much each training image counts; all the same if None."""
        self.model = model.to(device).train()  # the probe's BatchNorm is all that it concerns
        self.plan, self.device = plan, device
        self.labels = torch.from_numpy(training.labels)
        every = np.ones(len(training.labels)) if weights is None else weights
        self.weights = torch.from_numpy(every.astype(np.float32))
        t = plan.training
        self._evaluators = [
            Scheduled(validation, t.evaluate_every),
            Scheduled(ValidationPictures(validation), t.sample_every),
        ]

    def step(self, batch: Batch, progress: float) -> StepOutput:
        """Soft cross-entropy of one micro-batch; `progress` is not needed."""
        a, d = self.plan.augment, self.plan.data
        images = normalize(on_device(batch.images, self.device, d.image_size), d.mean, d.std)
        how = self._mix(batch.step)
        # On the host, where the weights' total is known without waiting for the device.
        labels, weights = self.labels[batch.samples], self.weights[batch.samples]
        weights = weights * how.share + weights[partners(weights)] * (1 - how.share)
        shares = (weights / weights.sum()).to(self.device, non_blocking=True)
        targets = mixed_targets(labels, len(self.plan.classes), how, a.smoothing)
        targets = targets.to(self.device, non_blocking=True)
        logits = self.model(mix(images, how), keep=self._keep(batch))
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        right = logits.argmax(dim=1) == targets.argmax(dim=1)
        scalars = {"accuracy": (right * shares).sum()}
        return StepOutput((losses * shares).sum(), weight=float(weights.sum()), scalars=scalars)

    def param_groups(self) -> list[dict[str, Any]]:
        """What is trained, with rates that fall towards the input."""
        return layer_decay_groups(
            self.model.named_parameters(),
            depth=len(self.model.encoder.blocks),
            weight_decay=self.plan.training.weight_decay,
            layer_decay=self.plan.layer_decay,
        )

    def evaluators(self) -> Sequence[Scheduled]:
        """Scores on the validation images, and pictures of them."""
        return self._evaluators

    def _mix(self, step: int) -> Mix:
        """One draw for the whole step."""
        a, d = self.plan.augment, self.plan.data
        return draw_mix(generator(d.seed, MIX, step), d.image_size, mixup=a.mixup, cutmix=a.cutmix)

    def _keep(self, batch: Batch) -> Tensor | None:
        """Drawn for the whole step; this micro-batch takes its columns."""
        rate = self.plan.head.drop_path
        if not rate:
            return None
        t, depth = self.plan.training, len(self.model.encoder.blocks)
        keep = drop_path_keep(depth, rate, t.batch, generator(t.seed, DROP_PATH, batch.step))
        return keep[:, :, batch.first : batch.first + len(batch.samples)].to(
            self.device, non_blocking=True
        )
