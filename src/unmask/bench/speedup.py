"""Table 2: what an encoder without mask tokens, and a smaller decoder, save in time and memory."""

from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from unmask.bench.model import Setting, inputs, make_setting
from unmask.bench.setting import BenchConfig
from unmask.cost.cards import Card
from unmask.cost.count import count, count_activations, count_state
from unmask.cost.memory import bytes_per_image, free_bytes
from unmask.cost.paper import VARIANTS, published_speedup, variant_name, variant_of
from unmask.cost.speed import now
from unmask.engine.machine import autocast, give_back_memory, threads
from unmask.units import data_size

MEMORY_SHARE = 0.7
"""Share of the free memory that a micro-batch may be predicted to need."""


@dataclass(kw_only=True)
class Variant:
    """A row of the table, and what was measured of it, round by round."""

    name: str
    setting: Setting
    micro_batch: int
    published: float | None
    seconds: list[float] = field(default_factory=list)
    """Forward and backward of the whole batch."""
    bytes_per_image: int = 0
    """What the forward keeps for the backward."""

    def record(self, first: "Variant") -> dict[str, Any]:
        """Numbers, and ratios to the table's first row."""
        ours, theirs = median(self.seconds), median(first.seconds)
        return {
            "name": self.name,
            "seconds": ours,
            "seconds_of_rounds": self.seconds,
            "speedup": theirs / ours,
            "flops_ratio": first.flops / self.flops,
            "paper": self.published,
            "activation_bytes": self.bytes_per_image * self.setting.batch,
            "memory_ratio": first.bytes_per_image / self.bytes_per_image,
            "micro_batch": self.micro_batch,
        }

    @property
    def flops(self) -> int:
        """Operations of training on one image."""
        return count(self.setting.spec).training_flops


def bench_speedup(config: BenchConfig) -> list[Card]:
    """A card for each model, with its three variants."""
    with threads(config.threads):
        names = config.model or ("large",)
        return [_compare(make_setting(config, name), config.rounds) for name in names]


def _compare(base: Setting, rounds: int) -> Card:
    """Variants take turns, each with a fresh model, so that two never share the memory."""
    variants = [_variant(base, *choice) for choice in VARIANTS]
    for _ in range(rounds):
        for variant in variants:
            _measure(variant)
    return _card(base, variants, rounds)


def _variant(base: Setting, mask_tokens: bool, decoder_depth: int) -> Variant:
    spec = variant_of(base.spec, mask_tokens, decoder_depth)
    setting = Setting(base.name, replace(base.plan, model=spec))
    return Variant(
        name=variant_name(base.name, mask_tokens, decoder_depth),
        setting=setting,
        micro_batch=_micro_batch(setting),
        published=published_speedup(base.name, mask_tokens, decoder_depth),
    )


def _micro_batch(setting: Setting) -> int:
    """The whole batch, or its largest divisor whose activations are predicted to fit."""
    spec, precision, device = setting.spec, setting.plan.training.precision, setting.device.type
    activations = count_activations(spec, precision, device).total
    state = count_state(spec, precision, device, average=False)
    room = MEMORY_SHARE * free_bytes(setting.device)
    room -= state.weights + state.gradients + state.half_weights
    divisors = (n for n in range(setting.batch, 0, -1) if setting.batch % n == 0)
    return next((n for n in divisors if n * activations <= room), 1)


def _measure(variant: Variant) -> None:
    """Counts what each image keeps, before anything is compiled; warms up; then times the batch."""
    give_back_memory()
    setting, plan = variant.setting, variant.setting.plan.training
    torch.manual_seed(0)
    model = setting.build()
    images, noise = inputs(setting, max(setting.batch, 3))

    def loss(first: int, count: int) -> Tensor:
        rows = slice(first, first + count)
        with autocast(plan):
            return model(images[rows], noise=noise[rows]).loss

    variant.bytes_per_image = bytes_per_image(model, lambda count: loss(0, count))
    if plan.compile:
        model.compile()
    loss(0, variant.micro_batch if plan.compile else 2).backward()
    began = now(setting.device)
    for first in range(0, setting.batch, variant.micro_batch):
        loss(first, variant.micro_batch).backward()
    variant.seconds.append(now(setting.device) - began)


def _card(base: Setting, variants: list[Variant], rounds: int) -> Card:
    records = [variant.record(first=variants[0]) for variant in variants]
    return Card(
        title=f"Table 2: forward and backward of {base.batch} images, medians of {rounds}",
        setting=base.facts(),
        columns=("", "seconds", "faster", "fewer FLOPs", "the paper", "activations", "less", "at once"),
        rows=[_row(record) for record in records],
        notes=(
            "faster, fewer, less: than the first row. the paper: faster, on TPU-v3 cores. at once: "
            "images in a micro-batch, as the memory allows.",
        ),
        record={"bench": "speedup", **base.facts(), "rounds": rounds, "variants": records},
    )


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    return (
        record["name"],
        f"{record['seconds']:.4g}",
        f"{record['speedup']:.2f}x",
        f"{record['flops_ratio']:.2f}x",
        f"{record['paper']}x" if record["paper"] else "-",
        data_size(record["activation_bytes"]),
        f"{record['memory_ratio']:.2f}x",
        str(record["micro_batch"]),
    )
