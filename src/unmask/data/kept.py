"""Centre crops that are looked at again and again, as evaluations do."""

from collections.abc import Iterator
from contextlib import closing
from math import prod

from unmask.data.loader import CentreCrops, CropBatch

KEPT_BYTES = 2**30


class KeptCrops:
    """Decoded once where all fit into memory, else at every look."""

    def __init__(self, crops: CentreCrops, *, batch: int, workers: int):
        self.crops, self.batch, self.workers = crops, batch, workers
        self._kept: list[CropBatch] | None = None

    def __iter__(self) -> Iterator[CropBatch]:
        if self._kept is not None:
            yield from self._kept
            return
        keep = list[CropBatch]() if self._bytes() <= KEPT_BYTES else None
        with closing(self.crops.batches(self.batch, self.workers)) as batches:
            for batch in batches:
                if keep is not None:
                    keep.append(batch)
                yield batch
        self._kept = keep

    def _bytes(self) -> int:
        wanted = self.crops.wanted
        each = 1 if wanted.pixel_type == "uint8" else 4
        return len(self.crops) * wanted.channels * prod(self.crops.size) * each
