"""Whole images as evaluation sees them: one centre crop each, nothing drawn at random."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unmask.config.image import ImageSpec
from unmask.data.bad_images import none_readable
from unmask.data.decode.pictures import BadImage, Picture
from unmask.data.evaluation_crop import evaluation_crop
from unmask.data.images import Images
from unmask.data.loader import VALUE_BYTES, crop_bytes
from unmask.data.workers import READ_SECONDS, load

CACHED_BYTES = 2**30
LARGE_IMAGE = 24_000_000
"""Pixels: what is assumed of an image that is handed over whole."""
BATCH = 64
"""Fixed, so that an evaluation gives the same scores wherever it is asked for."""


class CropBatch(NamedTuple):
    """`images` [n, C, H, W] of the readable ones, whose indices in the data set are `indices`."""

    images: Tensor
    indices: list[int]
    bad: list[BadImage]


class CentreCrops(Dataset[Tensor | BadImage]):
    """The centre crops of some images, in order.

    `indices` are the images that this process looks at, all by default: it decodes no others.
    """

    def __init__(
        self,
        images: Images,
        image: ImageSpec,
        *,
        max_megapixels: float = 200.0,
        batch: int = BATCH,
        workers: int = 0,
        timeout: float = READ_SECONDS,
        indices: Sequence[int] | None = None,
        cut: Callable[[Picture], Tensor] | None = None,
        keep: bool = False,
    ):
        """`keep`: those of small data sets are decoded once, for who goes through them again.

        `cut` makes something else of a picture, [C, h, w], whose sizes may differ if `batch` is 1."""
        self.images, self.image, self.batch, self.workers = images, image, batch, workers
        self.indices = range(len(images)) if indices is None else indices
        self.pixels, self.cut = image.pixels(max_megapixels), cut or self.centre
        self.timeout, self.keep = timeout, keep
        whole = LARGE_IMAGE * image.channels * VALUE_BYTES[image.dtype]
        self.item_bytes = whole if cut else crop_bytes(image)
        self._cached: list[CropBatch] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Tensor | BadImage:
        return self.images.take(self.indices[place], self.pixels, self.cut)

    def centre(self, picture: Picture) -> Tensor:
        """The centre crop, [C, H, W], as every evaluation takes it."""
        return evaluation_crop(picture, self.pixels, self.image.size, self.image.eval_crop)

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return -(-len(self) // self.batch)

    def __iter__(self) -> Iterator[CropBatch]:
        if self._cached is not None:
            yield from self._cached
            return
        keep = list[CropBatch]() if self.keep and self._bytes() <= CACHED_BYTES else None
        with closing(self._decode()) as batches:
            for batch in batches:
                if keep is not None:
                    keep.append(batch)
                yield batch
        self._cached = keep

    def _decode(self) -> Generator[CropBatch, None, None]:
        own = torch.Generator()  # a loader draws seeds for its workers: not from the global generator
        loading = load(
            self,
            batch_size=self.batch,
            workers=self.workers,
            collate=list,
            batch_bytes=self.batch * self.item_bytes,
            timeout=self.timeout,
            generator=own,
        )
        indices = iter(self.indices)
        with closing(loading) as batches:
            for items in batches:
                mine = [next(indices) for _ in items]
                good = [i for i, item in zip(mine, items, strict=True) if isinstance(item, Tensor)]
                crops = [item for item in items if isinstance(item, Tensor)]
                bad = [item for item in items if isinstance(item, BadImage)]
                empty = torch.empty(0, self.image.channels, *self.image.size)
                yield CropBatch(torch.stack(crops) if crops else empty, good, bad)

    def _bytes(self) -> int:
        return len(self) * self.item_bytes


def load_centre_crops(images: Images, image: ImageSpec, *, max_megapixels: float = 200.0) -> Tensor:
    """All readable images [n, C, H, W], before normalisation; raises DataError if there are none."""
    bad = list[BadImage]()

    def crops() -> Iterator[Tensor]:
        for batch in CentreCrops(images, image, max_megapixels=max_megapixels):
            bad.extend(batch.bad)
            yield batch.images

    found = in_one(crops(), len(images))
    if not len(found):
        raise none_readable(bad)
    return found


def in_one(parts: Iterable[Tensor], most: int) -> Tensor:
    """Batches one behind another, `most` rows at most, without keeping the parts beside the whole."""
    whole, count = torch.empty(0), 0
    for part in parts:
        if not count:
            whole = part.new_empty(most, *part.shape[1:])
        whole[count : count + len(part)] = part
        count += len(part)
    return whole[:count]
