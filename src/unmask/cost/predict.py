"""What a pre-training run would take on devices that need not be here: hours, memory, loader cores."""

import math
from dataclasses import dataclass

import torch

from unmask.config.commands import PretrainConfig
from unmask.config.plan import Machine, Plan
from unmask.core.spec import MAESpec
from unmask.cost.count import (
    FLOAT,
    StateBytes,
    TokenizerCost,
    count,
    count_activations,
    count_state,
    count_tokenizer,
)
from unmask.cost.devices import Device, find_device, parse_devices
from unmask.cost.memory import total_bytes
from unmask.cost.setting import IMAGENET_IMAGES, planned, planned_model, tokenizer_of
from unmask.cost.speed import square_rate
from unmask.engine.machine import detect_machine
from unmask.models.tokenizer_spec import TokenizerSpec
from unmask.units import GIB

MEASURED = ("cpu", "cuda")
"""Devices of this machine, whose speed is measured."""

UTILISATION, CPU_UTILISATION = 0.4, 0.5
"""The share of the peak that training reaches: of a maker's number, and of a matrix multiplication here.

The paper's own hours imply 0.29 to 0.34 of the TPU's peak.
"""

DECODE_MS = 5.0
"""One core's milliseconds to read, decode, crop and resize a JPEG of 500 x 375 pixels to 224."""

DECODING_SHARE = 2 / 3
"""Share of those milliseconds that repeats of an image share (benchmarks/data.md)."""

USABLE_MEMORY = 0.9
"""The rest is for kernels' workspaces, fragments and the driver."""


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Bytes on each device: what is there whatever the batch, and how many images fit beside it."""

    state: int
    images_at_once: int
    images_at_once_checkpointed: int
    """With activation checkpointing, which costs a third more computation."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A run on devices, by arithmetic."""

    plan: Plan
    device: Device
    count: int
    peak: float
    """Operations per second of one device, in the plan's precision."""
    utilisation: float
    decode_ms: float
    tokenizer: TokenizerSpec | None = None
    """What makes the tokens that are predicted, on the same devices."""

    @property
    def model(self) -> MAESpec:
        """What is trained."""
        return planned_model(self.plan)

    @property
    def total_flops(self) -> int:
        """Operations of the whole run."""
        t = self.plan.training
        tokens = self.tokens.encoder_flops if self.tokens else 0
        return (count(self.model).training_flops + tokens) * t.batch * t.steps

    @property
    def tokens(self) -> TokenizerCost | None:
        """What tokens of images cost; made in each step, without a backward."""
        grid = self.model.encoder.grid
        return count_tokenizer(self.tokenizer, grid) if self.tokenizer else None

    @property
    def seconds(self) -> float:
        """Wall-clock time."""
        return self.total_flops / (self.count * self.peak * self.utilisation)

    @property
    def hours(self) -> float:
        """Wall-clock time."""
        return self.seconds / 3600

    @property
    def images_per_second(self) -> float:
        """Samples, over all devices."""
        return self.plan.training.batch * self.plan.training.steps / self.seconds

    @property
    def sample_ms(self) -> float:
        """One core's milliseconds for a sample, some of which its repeats share."""
        return self.decode_ms * (1 - DECODING_SHARE + DECODING_SHARE / self.plan.loading.repeats)

    @property
    def loader_cores(self) -> int:
        """That keep up, over all devices."""
        return math.ceil(self.images_per_second * self.sample_ms / 1000)

    @property
    def activation_bytes(self) -> tuple[int, int]:
        """Bytes of one image, without and with activation checkpointing."""
        t = self.plan.training
        kept = count_activations(self.model, t.precision, t.device)
        return kept.total, kept.checkpointed

    def replicated(self) -> DeviceMemory:
        """DDP: everything on each device, and buckets for the gradients' exchange."""
        state = self._state()
        return self._memory(state.total + (state.gradients if self.count > 1 else 0) + self._held())

    def sharded(self) -> DeviceMemory:
        """FSDP, full shard: a part of everything, two gathered blocks and the gradients of one."""
        state, block = self._state(), FLOAT * count(self.model).largest_block
        parts = (state.total - state.half_weights) / self.count
        return self._memory(math.ceil(parts) + 3 * block + self._held())

    def _held(self) -> int:
        """Bytes of the tokenizer's weights, on each device."""
        return FLOAT * self.tokens.parameters if self.tokens else 0

    def _state(self) -> StateBytes:
        t = self.plan.training
        return count_state(self.model, t.precision, t.device, average=t.ema is not None)

    def _memory(self, state: int) -> DeviceMemory:
        room = USABLE_MEMORY * self.device.memory_gib * GIB - state
        without, checkpointed = (max(0, int(room // each)) for each in self.activation_bytes)
        most = self.plan.training.process_batch
        return DeviceMemory(
            state=state,
            images_at_once=min(most, without),
            images_at_once_checkpointed=min(most, checkpointed),
        )


def predict(
    config: PretrainConfig,
    *,
    devices: str,
    images: int = IMAGENET_IMAGES,
    utilisation: float | None = None,
    decode_ms: float = DECODE_MS,
) -> Prediction:
    """A run of `config` on so many images, on devices such as 8xh100, or cpu for this machine.

    Raises ValueError that names the fix if the request does not fit together.
    """
    if images < 1 or decode_ms < 0:
        raise ValueError("--images must be 1 or more, and --decode-ms 0 or more")
    if utilisation is not None and not 0 < utilisation <= 1:
        raise ValueError(f"--utilisation is {utilisation} and must be above 0 and at most 1")
    count, name = parse_devices(devices)
    if name in MEASURED:
        machine = detect_machine("cuda" if name == "cuda" else "cpu")
        plan = planned(config, machine, images=images, processes=count)
        device = _measured(plan)
    else:
        device = find_device(name)
        machine = Machine(device="cuda", name=device.name, fast_bf16=device.bf16 is not None, cores=1)
        plan = planned(config, machine, images=images, processes=count)
    return Prediction(
        plan=plan,
        device=device,
        count=count,
        peak=device.peak(plan.training.precision),
        utilisation=utilisation or (CPU_UTILISATION if name == "cpu" else UTILISATION),
        decode_ms=decode_ms,
        tokenizer=tokenizer_of(config),
    )


def predict_here(plan: Plan, *, decode_ms: float = DECODE_MS) -> Prediction:
    """A planned run on the device of this machine."""
    device = _measured(plan)
    return Prediction(
        plan=plan,
        device=device,
        count=plan.processes,
        peak=device.peak(plan.training.precision),
        utilisation=CPU_UTILISATION if plan.training.device == "cpu" else UTILISATION,
        decode_ms=decode_ms,
    )


def _measured(plan: Plan) -> Device:
    """The device of this machine, by a short matrix multiplication in the plan's precision."""
    device, precision = torch.device(plan.training.device), plan.training.precision
    rate = square_rate(precision, device) / 1e12
    memory = (
        torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else total_bytes()
    )
    return Device(
        name=plan.machine.name,
        bf16=rate if precision == "bf16" else None,
        fp32=rate if precision == "fp32" else None,
        memory_gib=memory / GIB,
        source=f"measured here, {torch.get_num_threads()} threads",
    )
