"""Devices that a run can be planned for, with their makers' numbers. Facts, not measurements."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Device:
    """Peak throughput in TFLOP/s of dense products; None if there is no such arithmetic."""

    name: str
    bf16: float | None
    fp32: float | None
    """As torch multiplies float32 by default: not rounded to TF32."""
    memory_gib: float
    source: str

    def peak(self, precision: Literal["bf16", "fp32"]) -> float:
        """Operations per second; ValueError if the device has no such arithmetic."""
        rate = self.bf16 if precision == "bf16" else self.fp32
        if rate is None:
            other = "fp32" if precision == "bf16" else "bf16"
            raise ValueError(
                f"{self.name} has no fast {precision} arithmetic: choose --run.precision {other}, or "
                f"another device"
            )
        return rate * 1e12


DEVICES = {
    "v100-16": Device(
        name="V100 SXM2 16 GB", bf16=None, fp32=15.7, memory_gib=16, source="NVIDIA V100 data sheet"
    ),
    "v100-32": Device(
        name="V100 SXM2 32 GB", bf16=None, fp32=15.7, memory_gib=32, source="NVIDIA V100 data sheet"
    ),
    "a100-40": Device(
        name="A100 SXM 40 GB", bf16=312, fp32=19.5, memory_gib=40, source="NVIDIA A100 data sheet"
    ),
    "a100-80": Device(
        name="A100 SXM 80 GB", bf16=312, fp32=19.5, memory_gib=80, source="NVIDIA A100 data sheet"
    ),
    "h100": Device(
        name="H100 SXM 80 GB",
        bf16=989.4,
        fp32=66.9,
        memory_gib=80,
        source="NVIDIA H100 white paper (the data sheet's 1,979 is for sparse matrices)",
    ),
    "h200": Device(
        name="H200 SXM 141 GB",
        bf16=989.4,
        fp32=66.9,
        memory_gib=140,
        source="NVIDIA H200 data sheet, sparse figures halved",
    ),
    "b200": Device(
        name="B200 SXM 180 GB",
        bf16=2250,
        fp32=75,
        memory_gib=180,
        source="NVIDIA HGX B200 data sheet, per GPU, sparse figures halved",
    ),
    "l4": Device(
        name="L4 24 GB",
        bf16=121,
        fp32=30.3,
        memory_gib=22,
        source="NVIDIA L4 data sheet, sparse figures halved",
    ),
    "rtx-4090": Device(
        name="RTX 4090 24 GB",
        bf16=165.2,
        fp32=82.6,
        memory_gib=24,
        source="NVIDIA Ada white paper, bf16 with fp32 accumulation",
    ),
    "tpu-v3": Device(
        name="TPU-v3 core",
        bf16=61.5,
        fp32=None,
        memory_gib=16,
        source="Google Cloud TPU v3 documentation: 123 TFLOP/s and 32 GiB for a chip of two cores",
    ),
}

ALIASES = {"v100": "v100-16", "a100": "a100-40", "4090": "rtx-4090", "rtx4090": "rtx-4090"}
"""The smaller one, if two go by the same name."""


def parse_devices(text: str) -> tuple[int, str]:
    """`8xh100` is eight of h100, `h100` one; ValueError if the number makes no sense."""
    count, cross, name = text.lower().partition("x")
    if cross and count.isdecimal():
        if int(count) < 1:
            raise ValueError(f"--devices {text} is no device at all: write 1x{name} or more")
        return int(count), name
    return 1, text.lower()


def find_device(name: str) -> Device:
    """Raises ValueError that lists the names if there is none."""
    device = DEVICES.get(ALIASES.get(name, name))
    if device is None:
        names = ", ".join([*DEVICES, "cpu", "cuda"])
        raise ValueError(f"there is no device {name}: choose one of {names}, such as 8xh100")
    return device
