"""A task that nothing in src/ knows: by how many quarter turns has an image been rotated?"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.config.commands import TrainingConfig
from unmask.config.resolve import resolve_encoder
from unmask.config.settings import Bands, Cache, Crops, Encoder, Optim, Reading, Run, Source
from unmask.core.spec import ViTSpec, register
from unmask.data.crops import pack, prepared
from unmask.data.samples import RandomCrops
from unmask.engine.task import Draw, Metric, Scheduled, StepOutput
from unmask.inference import SharedCrops
from unmask.tasks import Entry
from unmask.tasks.base import BaseTask, Data

ACCURACY = Metric(
    key="held_out/accuracy", label="rotation accuracy", format="{:.1%}", better="higher",
    baseline=0.25, baseline_label="chance", on_console=True,
)  # fmt: skip


@register("rotation")
@dataclass(frozen=True, kw_only=True)
class RotationSpec:
    encoder: ViTSpec

    def build(self) -> nn.Module:
        return Rotation(self)


class Rotation(nn.Module):
    def __init__(self, spec: RotationSpec):
        super().__init__()
        self.encoder, self.head = spec.encoder.build(), nn.Linear(spec.encoder.width, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder.pool(self.encoder(images), "mean"))


@dataclass(frozen=True, kw_only=True)
class RotateData(Cache, Reading, Crops, Bands, Source):
    size: tuple[int, ...] = (16,)


@dataclass(frozen=True, kw_only=True)
class RotateConfig(TrainingConfig):
    """Predicts rotations of small images."""

    data: RotateData = field(default_factory=RotateData)
    model: Encoder = field(default_factory=lambda: Encoder(patch=(4,), width=16, depth=1, heads=2))
    optim: Optim = field(default_factory=lambda: Optim(steps=6, warmup_steps=1, batch=8, base_lr=0.1))
    run: Run = field(default_factory=Run)


class Rotated(RandomCrops):
    def sample(self, picture: Any, key: Any, rng: Any) -> tuple[Tensor, int]:
        crop, turns = self.crop(picture, rng), int(rng.integers(4))
        return crop.rot90(turns, (1, 2)), turns

    def collate(self, samples: list[tuple[Tensor, int]]) -> tuple[Any, Tensor]:
        return pack([crop for crop, _ in samples]), torch.tensor([turns for _, turns in samples])


class Turns(SharedCrops):
    def run(self, model: nn.Module, processes: Any) -> Any:
        def right(images: Tensor) -> Tensor:
            found = [model(images.rot90(k, (2, 3))).argmax(dim=1) == k for k in range(4)]
            return torch.stack(found).float().mean(dim=0)

        yield ACCURACY.key, self.rows(right, model, processes).checked().output.mean().item()


class Rotate(BaseTask):
    name, title, config_class, metrics = "rotate", "Rotation prediction", RotateConfig, (ACCURACY,)

    def spec(self, data: Data, image: Any, init: Any) -> RotationSpec:
        c = self.config.model
        return RotationSpec(encoder=resolve_encoder(c, size=image.size, channels=image.channels))

    def samples(self, plan: Any, data: Data) -> Rotated:
        return Rotated(self.config.data, plan)

    def step(self, model: nn.Module, batch: tuple[Any, Tensor], draw: Draw) -> StepOutput:
        images, turns = prepared(batch[0], draw.device, draw.plan.image), batch[1].to(draw.device)
        return StepOutput(F.cross_entropy(model(images).float(), turns), len(turns), {})

    def evaluators(self, plan: Any, data: Data) -> list[Scheduled]:
        return [Scheduled(Turns(data.held_out, plan.image, plan.loading), plan.training.evaluate_every)]


RECIPES = {"four-turns": RotateConfig}
ENTRY = Entry(
    summary="which way up?", description="Predicts rotations.", task="tasks.rotation:Rotate",
    recipes="tasks.rotation:RECIPES", recipe="four-turns", model="rotation",
)  # fmt: skip
