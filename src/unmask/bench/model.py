"""One model on one machine; its plan is made by the same `resolve` as a run's."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unmask.bench.setting import BenchConfig
from unmask.config.plan import Plan
from unmask.core.spec import MAESpec
from unmask.cost.setting import SMALL_STEP, named_model, planned, planned_model
from unmask.engine.machine import detect_machine

DEFAULT_BATCH = {SMALL_STEP: 64}
OTHER_BATCH = 32


@dataclass(frozen=True)
class Setting:
    """One model on one machine: what a benchmark measures."""

    name: str
    plan: Plan

    @property
    def spec(self) -> MAESpec:
        """The model's."""
        return planned_model(self.plan)

    @property
    def device(self) -> torch.device:
        """Where it is measured."""
        return torch.device(self.plan.training.device)

    @property
    def batch(self) -> int:
        """Images per step."""
        return self.plan.training.batch

    def build(self) -> nn.Module:
        """A model with fresh weights, made where it is measured: a CPU takes seconds for a large one."""
        with self.device:
            return self.spec.build().to(self.device)

    def facts(self) -> dict[str, Any]:
        """What a result means nothing without."""
        t = self.plan.training
        return {
            "model": self.name,
            "batch": t.batch,
            "precision": t.precision,
            "compile": t.compile,
            "device": self.plan.machine.name,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def make_setting(config: BenchConfig, name: str) -> Setting:
    """The named model under the asked conditions.

    Raises ValueError if there is no such model or device.
    """
    base = named_model(name)
    batch = config.batch or DEFAULT_BATCH.get(name, OTHER_BATCH)
    base = replace(
        base,
        optim=replace(base.optim, batch=batch, micro_batch=None),
        run=replace(base.run, precision=config.precision, compile="on" if config.compile else "off"),
    )
    return Setting(name, planned(base, detect_machine(config.device)))


def inputs(setting: Setting, batch: int | None = None) -> tuple[Tensor, Tensor]:
    """Random images and mask noise, the same in every call."""
    encoder, seed = setting.spec.encoder, torch.Generator().manual_seed(0)
    count = setting.batch if batch is None else batch
    images = torch.randn(count, encoder.channels, *encoder.image_size, generator=seed)
    noise = torch.rand(count, encoder.patches, generator=seed)
    return images.to(setting.device), noise.to(setting.device)
