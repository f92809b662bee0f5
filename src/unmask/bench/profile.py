"""Where the time of a step goes: a profile of one, by kind of operation."""

import os
from collections import Counter
from collections.abc import Callable

import torch

OPERATIONS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear"),
    "attention": ("scaled_dot_product", "flash_attention", "efficient_attention", "softmax"),
    "activation function": ("gelu",),
    "norms": ("layer_norm",),
    "optimizer": ("fused_adam", "optimizer.", "foreach"),
    "copies": ("copy_", "cat", "index", "gather", "scatter", "fill_", "zero_"),
}
"""Parts of the names of torch's operations on a CPU; whole names of the products."""

KERNELS = {
    "attention": ("sdpa", "flash", "fmha", "softmax", "compute_dot_do_o", "convert_dq"),
    "matrix products": ("nvjet", "gemm", "gemv", "cutlass", "splitk"),
    "activation function": ("gelu",),
    "norms": ("layer_norm", "gammabeta"),
    "optimizer": ("multi_tensor_apply", "adam"),
    "copies": ("copy", "memcpy", "memset", "index", "gather", "scatter", "fill", "_cat_", "_clone_"),
}
"""Parts of the names of kernels on a GPU, the first that fits: cuDNN's and CUTLASS's attention are also
products by name, and a kernel of torch.compile is named after all that it does."""

OTHER = "other"


def time_by_kind(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Shares of the time of `run`, on the device that does the work; they sum to 1."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would write about itself
    on_gpu = device.type == "cuda"
    activity = torch.profiler.ProfilerActivity
    chosen = activity.CUDA if on_gpu else activity.CPU
    with torch.profiler.profile(activities=[chosen], acc_events=True) as profile:
        run()
    kind_of = kind_of_kernel if on_gpu else kind_of_operation
    times: Counter[str] = Counter()
    for event in profile.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        times[kind_of(event.key)] += own
    total = sum(times.values())
    return {kind: times[kind] / total for kind in (*OPERATIONS, OTHER)}


def kind_of_operation(name: str) -> str:
    """Kind of an operation such as `aten::mm`."""
    name = name.split("::")[-1].lower()
    products, *others = OPERATIONS.items()
    if name in products[1]:
        return products[0]
    return next((kind for kind, parts in others if any(part in name for part in parts)), OTHER)


def kind_of_kernel(name: str) -> str:
    """Kind of a GPU's kernel such as `nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_bias_TNT`."""
    name = name.lower()
    return next((kind for kind, parts in KERNELS.items() if any(part in name for part in parts)), OTHER)
