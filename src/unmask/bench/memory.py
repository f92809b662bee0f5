"""What the forward pass keeps for the backward, measured; and how much memory there is."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


def saved_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Bytes of the distinct storages that `loss()` keeps for its backward, the parameters' aside.

    The graph is dropped without a backward.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}  # held, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()  # else a graph that saves its own result would never be freed
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            kept.setdefault(address, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def bytes_per_image(model: nn.Module, loss: Callable[[int], Tensor]) -> int:
    """What each further image of a batch keeps; `loss(n)` runs a batch of n.

    A batch of one is not looked at: where it takes a view, larger ones copy.
    """
    return saved_bytes(model, lambda: loss(3)) - saved_bytes(model, lambda: loss(2))


def free_bytes(device: torch.device) -> int:
    """Memory that a program could take now, as far as the system tells; all of it where it does not."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if table.exists() and (found := re.search(r"MemAvailable:\s+(\d+) kB", table.read_text())):
        return int(found[1]) * 1024
    return total_bytes()


def total_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
