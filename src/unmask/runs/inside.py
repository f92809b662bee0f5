"""The inside of a step: what its modules gave, its gradients, and each of its images by itself."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # of any number of dimensions

from unmask.data.loader import Batch, Batches
from unmask.data.sampler import SampleKey
from unmask.data.samples import Sample
from unmask.engine.loop import accumulate
from unmask.engine.machine import autocast
from unmask.engine.observe import Observation, note_gradients, observed, tensors_in
from unmask.engine.session import Session, TrainingState
from unmask.engine.task import Draw, TrainingStep


@dataclass(frozen=True, kw_only=True)
class OneImage:
    """An image of a batch, and what it does by itself: alone in its batch, unmixed with others."""

    key: SampleKey
    image: int
    """Its index among the training images; it differs from the key's if that one is broken."""
    loss: float | None
    """None if the task takes no single images."""
    gradient_norm: float | None
    nan: float
    infinite: float
    """Share of the values of its crop that are NaN, which count as no-data, and infinite."""
    bad: tuple[str, ...]
    """Broken images that it stands for."""
    crop: Tensor | None
    """As the loader gave it, [C, h, w]; None if the task's samples hold no image."""

    @property
    def is_finite(self) -> bool:
        """Whether its loss and gradient are numbers and its pixels are none of them infinite."""
        known = [value for value in (self.loss, self.gradient_norm) if value is not None]
        return not self.infinite and all(map(math.isfinite, known))


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What was seen in a step, before its update of the weights."""

    observation: Observation
    loss_is_finite: bool
    images: list[OneImage]
    """In the order of the batch."""

    def worst(self) -> list[OneImage]:
        """Images by what they do to the loss: first those that are not finite, then by rising rank."""
        return sorted(self.images, key=lambda one: (one.is_finite, -(one.loss or 0.0)))


def look_inside(session: Session, state: TrainingState, micro_batches: list[Batch]) -> Inside:
    """Computes the loss and gradients of the step to come, and of each of its images, and forgets them.

    Weights, buffers and the optimizer's state are afterwards as before.
    """
    model = session.model
    with _buffers_kept(model):
        with observed(model) as seen:
            step = TrainingStep(session.task, model)
            totals, weight = accumulate(session, step, micro_batches, state.step)
            note_gradients(seen, model, 1 / float(weight) if float(weight) else 1.0)
            model.zero_grad(set_to_none=True)
        images = list(_images_of(session, state.step))
    loss = totals["loss"] / weight
    return Inside(observation=seen, loss_is_finite=bool(loss.isfinite()), images=images)


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Running statistics of BatchNorm are put back."""
    before = {name: value.clone() for name, value in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(before[name])


@contextmanager
def _batch_norm_by_running_statistics(model: nn.Module) -> Iterator[None]:
    """One image has no statistics of its own."""
    norms = [one for one in model.modules() if isinstance(one, _BatchNorm) and one.training]
    try:
        for norm in norms:
            norm.eval()
        yield
    finally:
        for norm in norms:
            norm.train()


def _images_of(session: Session, step: int) -> Iterator[OneImage]:
    """Each image of a step, with a forward and backward of its own."""
    batches = session.batches
    assert isinstance(batches, Batches)
    keys = [key for micro_batch in batches.sampler(range(step, step + 1)) for key in micro_batch]
    with (
        _batch_norm_by_running_statistics(session.model),
        torch.compiler.set_stance("force_eager"),
    ):
        for place, key in enumerate(keys):
            sample = batches.samples[key]
            loss, norm = _alone(session, batches, sample, step, place)
            crop = next((x for x in tensors_in(sample.content) if x.ndim == 3), None)
            values = crop if crop is not None and crop.is_floating_point() else torch.zeros(1)
            yield OneImage(
                key=key,
                image=sample.image,
                loss=loss,
                gradient_norm=norm,
                nan=values.isnan().float().mean().item(),
                infinite=values.isinf().float().mean().item(),
                bad=tuple(bad.path for bad in sample.bad),
                crop=crop,
            )


def _alone(
    session: Session, batches: Batches, sample: Sample, step: int, place: int
) -> tuple[float | None, float | None]:
    """Loss and gradient norm of one image, as if it were the whole batch.

    A model that takes no single image is given it twice; None if it does not take that either.
    """
    model = session.model
    for copies in (1, 2):
        first = min(place, max(0, session.training.batch - copies))
        draw = Draw(plan=session.plan, device=session.processes.device, step=step, first=first)
        batch: Any = batches.collate([sample] * copies).content
        try:
            with autocast(session.training):
                output = session.task.step(model, batch, draw)
            output.loss.backward()
        except ValueError:
            continue
        finally:
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            model.zero_grad(set_to_none=True)
        return output.loss.item(), torch.nn.utils.get_total_norm(gradients).item()
    return None, None
