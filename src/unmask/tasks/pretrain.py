"""Masked-autoencoder pre-training as a task of the loop."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from unmask.config.plan import PixelFormat, Plan
from unmask.core.mae import MaskedAutoencoder
from unmask.data.crops import on_device
from unmask.data.loader import Batch
from unmask.data.normalize import normalize
from unmask.data.sampler import generator
from unmask.engine.optim import decay_groups
from unmask.engine.task import Scheduled, StepOutput
from unmask.evals.reconstruction import HeldOutReconstruction
from unmask.tasks.features import FeatureRank, LabelledFeatures
from unmask.viz.reconstruction import mask_ratio_strip, reconstruction_grid
from unmask.viz.tiles import Display

PICTURED_IMAGES, STRIP_IMAGES = 8, 4


class PretrainTask:
    """Predicts masked patches; looks at held-out images along the way."""

    def __init__(
        self,
        model: MaskedAutoencoder,
        plan: Plan,
        device: torch.device,
        *,
        held_out: Tensor,
        other: Tensor | None = None,
        features: FeatureRank | LabelledFeatures | None = None,
    ):
        """`held_out` and `other`: [n, C, H, W], not normalised; measured and drawn, and only drawn.

        `features`: looks at those of whole images.
        """
        self.model = model.to(device)
        self.plan, self.device = plan, device
        self._evaluators = evaluators(plan, held_out, other)
        if features is not None:
            self._evaluators.append(Scheduled(features, plan.probe_every))

    def step(self, batch: Batch, progress: float) -> StepOutput:
        """The loss of one micro-batch; `progress` is not needed."""
        images = on_device(batch.images, self.device, self.plan.data.image_size)
        noise = batch.noise.to(self.device, non_blocking=True)
        output = self.model(normalize(images, self.plan.data.mean, self.plan.data.std), noise=noise)
        counted = output.prediction if self.plan.architecture.loss_on == "masked" else noise
        return StepOutput(output.loss, weight=counted.shape[0] * counted.shape[1], scalars={})

    def param_groups(self) -> list[dict[str, Any]]:
        """Weights decayed, biases and norms not."""
        return decay_groups(self.model, self.plan.training.weight_decay)

    def evaluators(self) -> Sequence[Scheduled]:
        """The error on held-out images, pictures of them, and what the features are worth."""
        return self._evaluators


class SamplePictures:
    """The same images under the same masks, drawn again as the model learns."""

    def __init__(self, name: str, title: str, images: Tensor, noise: Tensor, plan: Plan):
        self.name, self.title, self.noise = name, title, noise
        self.display = display_of(plan.data.mean, plan.data.std, plan.data.display, plan.data.pixels)
        self.images = normalize(images, plan.data.mean, plan.data.std)

    def run(self, model: MaskedAutoencoder) -> Iterator[tuple[str, Image]]:
        """A grid at the mask ratio of the training, and a strip over higher ones (Fig. 4)."""
        images, noise, show = self.images, self.noise, self.display
        grid = reconstruction_grid(model, images, noise, display=show, title=self.title)
        yield self.name, grid
        few = slice(STRIP_IMAGES)
        strip = mask_ratio_strip(model, images[few], noise[few], display=show)
        yield f"{self.name}-ratios", strip


def evaluators(plan: Plan, held_out: Tensor, other: Tensor | None) -> list[Scheduled]:
    """What a pre-training run measures and draws, with masks that never change."""
    t, d = plan.training, plan.data
    noise = fixed_noise(len(held_out), d.noise_length)
    error = HeldOutReconstruction(normalize(held_out, d.mean, d.std), noise)
    few = slice(PICTURED_IMAGES)
    which = "Held-out images" if plan.facts.held_out_images else "Training images"
    pictures = SamplePictures("reconstruction", which, held_out[few], noise[few], plan)
    scheduled = [Scheduled(error, t.evaluate_every), Scheduled(pictures, t.sample_every)]
    if other is not None:
        noise = fixed_noise(len(other), d.noise_length)
        title = "Images of another data set"
        elsewhere = SamplePictures("other-data", title, other[few], noise[few], plan)
        scheduled.append(Scheduled(elsewhere, t.sample_every))
    return scheduled


def display_of(
    mean: tuple[float, ...], std: tuple[float, ...], bands: tuple[int, ...] | None, pixels: PixelFormat
) -> Display:
    """How images of a run are shown: pixels without a usual range are stretched around their mean."""
    return Display(mean, std, bands, stretch=pixels.pixel_type == "float32")


def fixed_noise(images: int, length: int, seed: int = 0) -> Tensor:
    """The noise of evaluation masks: the same in every run."""
    return torch.from_numpy(generator(seed, length).random((images, length), dtype="float32"))
