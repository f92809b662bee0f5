"""What the forward pass keeps for the backward, measured; and how much memory there is."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

Kept = dict[StorageWeakRef, Tensor]
"""A tensor for each distinct storage, in the order in which they were kept."""


def storage_of(tensor: Tensor) -> StorageWeakRef:
    """What two views of the same memory have in common, tensors without data too."""
    return StorageWeakRef(tensor.untyped_storage())


def saved_bytes(model: nn.Module, loss: Callable[[], object], kept: Kept | None = None) -> int:
    """Bytes of the distinct storages that `loss()` keeps for its backward, the parameters' aside.

    The graph is dropped without a backward. `kept` is filled as the forward goes on.
    """
    own = {storage_of(p) for p in model.parameters()}
    kept = {} if kept is None else kept  # the tensors are held, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()  # else a graph that saves its own result would never be freed
        storage = storage_of(tensor)
        if storage not in own:
            kept.setdefault(storage, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def bytes_per_image(model: nn.Module, loss: Callable[[int], object]) -> int:
    """What each further image of a batch keeps; `loss(n)` runs a batch of n.

    A batch of one is not looked at: it takes views, and larger ones copy.
    """
    return saved_bytes(model, lambda: loss(3)) - saved_bytes(model, lambda: loss(2))


def free_bytes(device: torch.device) -> int:
    """Memory that a program could take now, as far as the system tells; else all of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if table.exists() and (found := re.search(r"MemAvailable:\s+(\d+) kB", table.read_text())):
        return int(found[1]) * 1024
    return total_bytes()


def total_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
