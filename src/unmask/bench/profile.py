"""Where the time of a step goes: a profile of one, by kind of operation."""

import os
from collections import Counter
from collections.abc import Callable

import torch

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear"),
    "attention": ("scaled_dot_product", "flash_attention", "efficient_attention", "softmax"),
    "activation function": ("gelu",),
    "norms": ("layer_norm",),
    "optimizer": ("fused_adam", "optimizer.", "foreach"),
    "copies": ("copy_", "cat", "index", "gather", "scatter", "fill_", "zero_"),
}
"""Parts of the names of torch's operations; whole names of the products."""

OTHER = "other"


def time_by_kind(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Shares of the time of `run`, on the device that does the work; they sum to 1."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would write about itself
    on_gpu = device.type == "cuda"
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if on_gpu else activity.CPU]) as profile:
        run()
    times: Counter[str] = Counter()
    for event in profile.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        times[kind_of(event.key)] += own
    total = sum(times.values())
    return {kind: times[kind] / total for kind in (*KINDS, OTHER)}


def kind_of(operation: str) -> str:
    """Kind of an operation such as `aten::mm`."""
    name = operation.split("::")[-1].lower()
    products, *others = KINDS.items()
    if name in products[1]:
        return products[0]
    return next((kind for kind, parts in others if any(part in name for part in parts)), OTHER)
