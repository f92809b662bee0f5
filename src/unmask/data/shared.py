"""Decoded images in memory that the loader's processes share."""

import mmap
import multiprocessing
import sys
import threading
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmask.core.spec import Size

ALIGNED = 64
"""Bytes that an image starts at a multiple of."""


def _lock() -> Any:
    """A lock of processes; without shared memory, where there are no loader processes, of threads."""
    try:
        return multiprocessing.get_context("fork" if sys.platform == "linux" else None).Lock()
    except (OSError, ImportError):
        return threading.Lock()


class SharedImages:
    """Keeps decoded images, each once for a process and all that it forks; as many as fit.

    Processes that are started in another way each keep their own.
    """

    def __init__(self, count: int, capacity: int, dtype: torch.dtype):
        """For `count` images of one type, in at most `capacity` bytes."""
        self._arguments = count, capacity, dtype
        self._capacity, self._dtype = capacity, dtype
        # Takes no memory before something is written there.
        self._pixels = mmap.mmap(-1, max(1, capacity))
        rows = mmap.mmap(-1, (count + 1) * 6 * 8)
        self._rows = np.frombuffer(rows, dtype=np.int64).reshape(count + 1, 6)
        """A row per image: its end, its shape C, h, w, and its own size; the last row: what is taken."""
        self._lock = _lock()

    def __reduce__(self) -> Any:
        return SharedImages, self._arguments

    def put(self, index: int, pixels: Tensor, size: Size) -> None:
        """Keeps [C, h, w] of an image that itself has `size`, unless there is no room."""
        length = pixels.numel() * pixels.element_size()
        with self._lock:
            start = -(-int(self._rows[-1, 0]) // ALIGNED) * ALIGNED
            if self._rows[index, 0] or start + length > self._capacity:
                return
            self._view(start, tuple(pixels.shape)).copy_(pixels)
            self._rows[index] = (start + length, *pixels.shape, *size)
            self._rows[-1, 0] = start + length

    def get(self, index: int) -> tuple[Tensor, Size] | None:
        """The pixels, which are not to be written to, and the image's own size; None if not kept."""
        with self._lock:
            end, *numbers = self._rows[index].tolist()
        if not end:
            return None
        shape = tuple(numbers[:3])
        start = end - prod(shape) * self._dtype.itemsize
        return self._view(start, shape), (numbers[3], numbers[4])

    def _view(self, start: int, shape: tuple[int, ...]) -> Tensor:
        values = torch.frombuffer(self._pixels, dtype=self._dtype, count=prod(shape), offset=start)
        return values.view(shape)
