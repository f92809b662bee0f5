"""What a benchmark is asked for, and the plan that follows, by the same `resolve` as a run's."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unmask.config.cost import patch_counts, stacks
from unmask.config.plan import DataFacts, Machine, Plan
from unmask.config.resolve import resolve
from unmask.config.schema import Device, ModelConfig, Precision, PretrainConfig
from unmask.core.blocks import attention_kernel
from unmask.core.mae import Architecture
from unmask.core.vit import SIZES
from unmask.engine.machine import detect_machine
from unmask.recipes import PRETRAIN, pretrain_recipe
from unmask.recipes.pretrain import laptop

IMAGENET_IMAGES = 1_281_167
"""ImageNet-1K's training images."""

SMALL_STEP = "small-step"
"""A model for processors: 192 wide, 6 blocks, decoder 96 x 2 blocks, 144 patches; 64 images a step."""

DEFAULT_BATCH = {SMALL_STEP: 64}
OTHER_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure, and how."""

    model: tuple[str, ...] = ()
    """Recipes' names, sizes (tiny, small, base, large, huge) or small-step. Default: by benchmark."""
    batch: int | None = None
    """Images per step. Default: 64 of small-step, else 32."""
    precision: Precision = "auto"
    """Arithmetic of the matrix multiplications; auto takes bf16 where the processor has it."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""
    threads: int | None = None
    """Threads of the processor. Default: torch's choice."""
    compile: bool = False
    """Compile the models with torch.compile."""
    rounds: int = 5
    """Each variant is measured once a round, one after another; medians are shown."""

    images: tuple[str, ...] = ()
    """Folders of your own images to read in the data benchmark, instead of those that it makes."""

    def check(self) -> None:
        """Raises ValueError where a number is outside what makes sense."""
        for name in ("batch", "threads", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value} and must be 1 or more")


@dataclass(frozen=True)
class Setting:
    """One model on one machine: what a benchmark measures."""

    name: str
    plan: Plan

    @property
    def architecture(self) -> Architecture:
        return self.plan.architecture

    @property
    def device(self) -> torch.device:
        return torch.device(self.plan.training.device)

    @property
    def batch(self) -> int:
        return self.plan.training.batch

    @property
    def kernels(self) -> tuple[str, str]:
        """The attention kernels of encoder and decoder."""
        dtype = torch.bfloat16 if self.plan.training.precision == "bf16" else torch.float32
        encoder, decoder = (s.tokens for s in stacks(self.architecture))
        kind = self.device.type
        return attention_kernel(kind, dtype, encoder), attention_kernel(kind, dtype, decoder)

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

    Raises ValueError where there is no such model or device.
    """
    base = named_model(name)
    batch = config.batch or DEFAULT_BATCH.get(name, OTHER_BATCH)
    base = replace(
        base,
        optim=replace(base.optim, batch=batch, micro_batch=None),
        run=replace(base.run, precision=config.precision, compile="on" if config.compile else "off"),
    )
    return Setting(name, planned(base, detect_machine(config.device)))


def named_model(name: str) -> PretrainConfig:
    """A recipe, or the defaults around a size."""
    if name == SMALL_STEP:
        return laptop()
    if name in SIZES:
        return PretrainConfig(model=ModelConfig(size=name))  # type: ignore[arg-type]
    if name in PRETRAIN or not name.isidentifier():
        return pretrain_recipe(name)
    raise ValueError(
        f"there is no model {name}: choose {SMALL_STEP}, one of {', '.join(SIZES)}, or a recipe of "
        f"unmask list"
    )


def planned(
    config: PretrainConfig, machine: Machine, *, images: int = IMAGENET_IMAGES, processes: int = 1
) -> Plan:
    """The plan of a run on so many images, which need not exist."""
    channels = config.data.channels or 3
    facts = DataFacts(
        training_images=images,
        held_out_images=0,
        channels=channels,
        mean=config.data.mean or (0.5,) * channels,
        std=config.data.std or (0.25,) * channels,
        fingerprint="",
        decoded_bytes=0,
    )
    return resolve(config, facts=facts, machine=machine, world_size=processes)


def inputs(setting: Setting, batch: int | None = None) -> tuple[Tensor, Tensor]:
    """Random images and mask noise, the same in every call."""
    a, seed = setting.architecture, torch.Generator().manual_seed(0)
    count = setting.batch if batch is None else batch
    images = torch.randn(count, a.channels, *a.image_size, generator=seed)
    noise = torch.rand(count, sum(patch_counts(a)), generator=seed)
    return images.to(setting.device), noise.to(setting.device)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Torch uses so many threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def now(device: torch.device) -> float:
    """Seconds, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
