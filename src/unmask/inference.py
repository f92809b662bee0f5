"""The one loop over images that are looked at: crops -> normalise -> model -> rows."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from unmask.config.image import ImageSpec
from unmask.config.plan import LoadingPlan
from unmask.data.bad_images import none_readable
from unmask.data.centre_crops import CentreCrops, CropBatch
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.normalize import normalize
from unmask.distributed.processes import ALONE, Processes


class Rows(NamedTuple):
    """What came of a batch: `output` as `fn` gave it, a row for each of `indices`."""

    output: Any
    indices: list[int]
    """Indices of the readable images in the data set."""
    unreadable: list[BadImage]

    def checked(self) -> "Rows":
        """The same; raises DataError if no image can be read."""
        if not self.indices:
            raise none_readable(self.unreadable)
        return self


@torch.inference_mode()
def infer(
    fn: Callable[[Tensor], Any], crops: CentreCrops, device: torch.device, *, title: str = ""
) -> Iterator[Rows]:
    """Calls `fn` with normalised images [B, C, H, W] on the device, batch by batch, in order.

    A batch without a readable image gives no call, and None as output. With a `title` a terminal
    shows a progress bar.
    """
    image = crops.image
    for batch in _shown(crops, title):
        output = None
        if batch.indices:
            images = batch.images.to(device, non_blocking=True)
            output = fn(normalize(images, image.mean, image.std))
        yield Rows(output, batch.indices, batch.bad)


def infer_all(
    fn: Callable[[Tensor], Tensor],
    crops: CentreCrops,
    device: torch.device,
    *,
    processes: Processes = ALONE,
    title: str = "",
) -> Rows:
    """The outputs of all readable images on the CPU, in the order of the data.

    Each process looks at its own crops; every one returns what all have found, each image once.
    `output` is None if no image can be read.
    """
    parts = [
        Rows(None if rows.output is None else rows.output.float().cpu(), rows.indices, rows.unreadable)
        for rows in infer(fn, crops, device, title=title)
    ]
    mine = _joined(parts)
    if processes.size == 1:
        return mine
    everyone = _joined(processes.gather(mine))
    if not everyone.indices:
        return everyone
    order = sorted(range(len(everyone.indices)), key=everyone.indices.__getitem__)
    return Rows(everyone.output[order], [everyone.indices[i] for i in order], everyone.unreadable)


class SharedCrops:
    """The centre crops of images that are looked at again and again; each process decodes its share."""

    def __init__(self, images: Images, image: ImageSpec, loading: LoadingPlan):
        self.images, self.image, self.loading = images, image, loading
        self._crops: CentreCrops | None = None

    def of(self, processes: Processes) -> CentreCrops:
        """This process's share, decoded once if it is small."""
        if self._crops is None:
            self._crops = CentreCrops(
                self.images,
                self.image,
                max_megapixels=self.loading.max_megapixels,
                workers=self.loading.workers,
                timeout=self.loading.timeout,
                indices=processes.share(len(self.images)),
                keep=True,
            )
        return self._crops

    def rows(self, fn: Callable[[Tensor], Tensor], model: nn.Module, processes: Processes) -> Rows:
        """What `fn` makes of all images by way of a model in evaluation mode; see `infer_all`."""
        with evaluating(model) as device:
            return infer_all(fn, self.of(processes), device, processes=processes)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode inside, and as it was after it; gives the model's device."""
    training = model.training
    model.eval()
    try:
        yield next(model.parameters()).device
    finally:
        model.train(training)


def _joined(parts: Iterable[Rows]) -> Rows:
    parts = list(parts)
    outputs = [part.output for part in parts if part.output is not None]
    return Rows(
        torch.cat(outputs) if outputs else None,
        [index for part in parts for index in part.indices],
        [bad for part in parts for bad in part.unreadable],
    )


def _shown(crops: CentreCrops, title: str) -> Iterable[CropBatch]:
    if title and Console().is_terminal:
        return track(crops, title, total=crops.batches, transient=True)
    return crops
