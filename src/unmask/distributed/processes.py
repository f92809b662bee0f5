"""The processes of one run, as torchrun started them, or just this one."""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unmask.distributed.store import first_failure_named, fresh_store

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the main one draws pictures and writes while they do."""


SETTLE_SECONDS = 0.2
"""For gloo's threads to release the tensors of the last collective.

They need Python's lock for that and outlive `destroy_process_group` (DDP's reducer keeps the group): one
that still waits for the lock when Python ends aborts the process ("terminate called without an active
exception").
"""


@dataclass(frozen=True)
class Processes:
    """Rank and number of processes, and the few things that they do together.

    With one process every method is the identity.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """The process that writes files and talks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Adds tensors up over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def from_main(self, value: Any) -> Any:
        """The main process's value, on all."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def on_main(self, act: Callable[[], T]) -> T:
        """What `act` returns on the main process, on all; what it raises there is raised on all."""
        if self.size == 1:
            return act()
        outcome: tuple[Any, Exception | None] = None, None
        if self.is_main:
            try:
                outcome = act(), None
            except Exception as error:
                outcome = None, error
        value, problem = self.from_main(outcome)
        if problem is not None:
            raise problem
        return value

    def share(self, count: int) -> range:
        """Which of so many things are this process's; together they are all, each once."""
        return range(self.rank, count, self.size)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, on all, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def agree(self, what: str, value: Any) -> None:
        """Raises ValueError on every process if they do not all hold the same value."""
        if self.size == 1:
            return
        values = self.gather(value)
        different = [rank for rank, other in enumerate(values) if other != values[0]]
        if different:
            raise ValueError(
                f"processes {different} have another {what} than process 0: start all of them with "
                f"the same command, on the same files"
            )

    def wrap(self, module: nn.Module) -> nn.Module:
        """Averages the module's gradients over all processes (DDP)."""
        if self.size == 1:
            return module
        # Of patch projections, whose gradients have another layout: a copy of little memory.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids)

    def wait(self) -> None:
        """Returns when all have arrived."""
        if self.size > 1:
            dist.barrier()


ALONE = Processes(0, 1, torch.device("cpu"))
"""One process by itself."""


@contextmanager
def connected(device_type: str) -> Iterator[Processes]:
    """Joins the processes that torchrun started: NCCL on CUDA devices, gloo elsewhere.

    May be nested: the outermost connects and disconnects. Raises PeerError if another process failed.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = (
        torch.device(device_type, local_rank) if device_type == "cuda" else torch.device(device_type)
    )
    if size == 1:
        yield Processes(0, 1, device)
        return
    if device_type == "cuda":
        torch.cuda.set_device(device)
    if dist.is_initialized():
        yield Processes(dist.get_rank(), size, device)
        return
    store, rank, size = fresh_store()
    backend = "nccl" if device_type == "cuda" else "gloo"
    try:
        with first_failure_named(store, rank):
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
            yield Processes(rank, size, device)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
            time.sleep(SETTLE_SECONDS)
