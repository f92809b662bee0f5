"""What this machine offers, and how to use its arithmetic."""

import ctypes
import gc
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Literal

import torch

from unmask.config.plan import Machine, TrainingPlan
from unmask.config.settings import Device
from unmask.errors import lacks_memory
from unmask.units import GIB, KIB

FAST_BF16 = "UNMASK_FAST_BF16"
"""Environment variable: 1 or 0 in place of what is detected, for tests and CI."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Constants of glibc's malloc.h."""


def detect_machine(device: Device) -> Machine:
    """Looks for a GPU unless told otherwise; UNMASK_FAST_BF16 overrides what it finds of bf16.

    Raises ValueError if the device that was asked for is not there, or that variable is not 0 or 1.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    chosen = next(name for name, there in available.items() if there) if device == "auto" else device
    if not available[chosen]:
        raise ValueError(f"this machine has no {chosen} device that torch can use: try --run.device cpu")
    if chosen == "cuda":
        return Machine(
            device=chosen,
            name=torch.cuda.get_device_name(),
            fast_bf16=_fast_bf16(torch.cuda.get_device_capability() >= (8, 0)),
            cores=_cores(),
            compiles=find_spec("triton") is not None,
        )
    return Machine(
        device=chosen,
        name="this Apple GPU" if chosen == "mps" else f"this {platform.machine()} processor",
        fast_bf16=_fast_bf16(chosen == "cpu" and _cpu_has_bf16()),
        cores=_cores(),
    )


def autocast(plan: TrainingPlan) -> AbstractContextManager:
    """Matrix multiplications in the plan's precision; weights and losses stay float32."""
    return arithmetic(plan.device, plan.precision)


def arithmetic(device: str, precision: Literal["bf16", "fp32"]) -> AbstractContextManager:
    """Matrix multiplications in a precision; the others stay float32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Torch uses so many threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory(device: str) -> None:
    """Tells glibc to keep what is freed: on a CPU every step asks for the same memory again.

    Otherwise glibc gives large tensors back to the system, which has to clear their pages again, for
    about a tenth of a small model's step. Does nothing without glibc.
    """
    if device == "cpu" and _has_glibc():
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def give_back_memory() -> None:
    """Returns what is free to the system, between things of different sizes; glibc would keep pieces."""
    gc.collect()
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device has too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or lacks_memory(error)


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (GIB if platform.system() == "Darwin" else GIB / KIB)


def _cores() -> int:
    """Cores for this process: torchrun says how many processes share the machine."""
    return max(1, _cores_of_machine() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _cores_of_machine() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fast_bf16(detected: bool) -> bool:
    asked = os.environ.get(FAST_BF16, "")
    if asked not in ("", "0", "1"):
        raise ValueError(
            f"{FAST_BF16} is {asked!r}: set it to 1 (bf16 arithmetic is fast here) or 0 (it is not), or "
            f"unset it to detect that"
        )
    return asked == "1" if asked else detected


def _cpu_has_bf16() -> bool:
    has = torch.cpu.get_capabilities()
    return any(has.get(feature, False) for feature in ("avx512_bf16", "amx_bf16", "bf16"))
