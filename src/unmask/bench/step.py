"""How fast a training step is, in its three parts, and what share of the machine's limit it reaches."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from unmask.bench.limit import Limit
from unmask.bench.model import Setting, inputs, make_setting
from unmask.bench.profile import time_by_kind
from unmask.bench.setting import BenchConfig
from unmask.cost.cards import Card
from unmask.cost.count import count
from unmask.cost.setting import SMALL_STEP
from unmask.cost.speed import now
from unmask.engine.machine import (
    autocast,
    give_back_memory,
    keep_freed_memory,
    peak_memory_gib,
    threads,
)
from unmask.engine.optim import build_optimizer, decay_groups, update_weights
from unmask.units import GIB, data_size

LEARNING_RATE = 1e-4
"""Small enough that training on noise stays finite; the speed does not depend on it."""


@dataclass(frozen=True)
class Seconds:
    """Times of one training step."""

    forward: float
    backward: float
    optimizer: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.optimizer


class TrainingStep:
    """Forward, backward and update as the loop does them, on images that are already there."""

    def __init__(self, setting: Setting, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]):
        """`loss` is called with images and noise, and uses the model."""
        keep_freed_memory(setting.device.type)
        self.plan = replace(setting.plan.training, lr=LEARNING_RATE)
        self.device = setting.device
        self.loss = loss
        self.images, self.noise = inputs(setting)
        self.parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.optimizer = build_optimizer(decay_groups(model, self.plan.weight_decay), self.plan)
        self.scale = torch.ones((), dtype=torch.float64, device=self.device)

    def run(self) -> Seconds:
        """One step."""
        began = now(self.device)
        with autocast(self.plan):
            loss = self.loss(self.images, self.noise)
        forward = now(self.device)
        loss.backward()
        backward = now(self.device)
        update_weights(self.optimizer, self.scale, self.plan.clip)
        return Seconds(forward - began, backward - forward, now(self.device) - backward)


def our_step(setting: Setting) -> TrainingStep:
    """Measurements of a freshly initialised model."""
    torch.manual_seed(0)
    model = setting.build()
    if setting.plan.training.compile:
        model.compile()
    return TrainingStep(setting, model, lambda images, noise: model(images, noise=noise).loss)


def bench_step(config: BenchConfig) -> list[Card]:
    """A card for each model: images per second, FLOP/s, share of the limit, memory."""
    with threads(config.threads):
        names = config.model or (SMALL_STEP,)
        return [_measure(make_setting(config, name), config.rounds) for name in names]


def _measure(setting: Setting, rounds: int) -> Card:
    give_back_memory()
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(setting.device)
    step = our_step(setting)
    step.run()  # warms up, and makes the optimizer's moments
    step.run()
    memory = peak_memory_gib(setting.device)
    limit = Limit(setting)
    limit.measure()
    steps, limits = [], []
    for _ in range(rounds):
        steps.append(step.run())
        limits.append(limit.measure())
    profile = time_by_kind(step.run, setting.device)
    return _card(setting, steps, limits, limit.flops, memory, profile)


def _card(
    setting: Setting,
    steps: list[Seconds],
    limits: list[float],
    limit_flops: int,
    memory: float,
    profile: dict[str, float],
) -> Card:
    seconds, limit = median(s.total for s in steps), median(limits)
    parts = {
        name: median(getattr(s, name) for s in steps) for name in ("forward", "backward", "optimizer")
    }
    flops = count(setting.spec).training_flops * setting.batch
    record: dict[str, Any] = {
        "bench": "step",
        **setting.facts(),
        "rounds": len(steps),
        "images_per_second": setting.batch / seconds,
        "seconds": seconds,
        "seconds_of_rounds": [s.total for s in steps],
        **{f"{name}_seconds": value for name, value in parts.items()},
        "flops": flops,
        "flops_per_second": flops / seconds,
        "limit_seconds": limit,
        "limit_flops_per_second": limit_flops / limit,
        "share_of_limit": limit / seconds,
        "peak_memory_gib": memory,
        "profile": profile,
    }
    of_what = " of this process so far" if setting.device.type != "cuda" else ""
    rows = [
        ("images/s", f"{setting.batch / seconds:.4g}"),
        ("step", f"{seconds:.4g} s, median of {len(steps)}"),
        *((f"  {name}", f"{value:.4g} s, {value / seconds:.0%}") for name, value in parts.items()),
        ("model", f"{flops / seconds / 1e9:.4g} GFLOP/s of {flops / 1e9:.4g} GFLOP a step"),
        ("the machine's limit", f"{limit_flops / limit / 1e9:.4g} GFLOP/s: {limit:.4g} s a step"),
        ("share of the limit", f"{limit / seconds:.0%}"),
        ("peak memory", data_size(memory * GIB) + of_what),
        ("where the time goes", "in one more step, by kind of operation"),
        *((f"  {kind}", f"{share:.0%}") for kind, share in profile.items()),
    ]
    return Card(title="A training step", setting=setting.facts(), rows=rows, record=record)
