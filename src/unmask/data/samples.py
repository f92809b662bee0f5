"""Images become samples: decoded, cropped, and replaced if they are broken.

A sample is a pure function of (seed, epoch, index, repeat): what is drawn for it does not depend on the
number of workers, the process or the clock.
"""

from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unmask.config.image import ImageSpec
from unmask.config.plan import LoadingPlan, Plan
from unmask.config.settings import Crops
from unmask.core.spec import Size
from unmask.data.decode.pictures import BadImage, Picture, ReusedPicture
from unmask.data.decode.reading import Reading
from unmask.data.images import Images
from unmask.data.sampler import SampleKey, generator
from unmask.data.shared import SharedImages
from unmask.data.transforms import ReducedPicture, may_be_kept, random_crop, reduced, share_for_crops
from unmask.errors import DataError

REPLACEMENT_TRIES = 100


class Samples(Protocol):
    """What a task makes of a picture, and of several of these a batch."""

    def sample(self, picture: Picture, key: SampleKey, rng: np.random.Generator) -> Any:
        """One sample; `key.image` is the picture's index among the training images."""

    def share(self, image_size: Size) -> float:
        """What the samples need of an image's height and width; 1 for all, as `share_for_crops`."""

    def collate(self, samples: list[Any]) -> Any:
        """Stacks samples; tensors in it are sent to the device by the task's step."""


class RandomCrops:
    """What most samples begin with: a random crop, as the section Crops says. See `Samples`."""

    def __init__(self, settings: Crops, plan: Plan):
        self.settings, self.image = settings, plan.image
        self.pixels = plan.image.pixels(plan.loading.max_megapixels)

    def crop(self, picture: Picture, rng: np.random.Generator) -> Tensor:
        """[C, H, W] before normalisation; of another size if the device is to resize it."""
        s = self.settings
        return random_crop(
            *(picture, self.pixels, self.image.size, s.crop_scale, s.flip, rng),
            resize=not s.resize_on_device,
        )

    def share(self, image_size: Size) -> float:
        """See `Samples`."""
        return share_for_crops(image_size, self.image.size, self.settings.crop_scale)


class Sample(NamedTuple):
    """One row of a batch, and the images that it had to pass over."""

    content: Any
    image: int
    """Index among the training images."""
    bad: list[BadImage]


class TrainingSamples(Dataset[Sample]):
    """Decodes the image of a key and has the task's sample made of it."""

    def __init__(self, images: Images, samples: Samples, image: ImageSpec, plan: LoadingPlan):
        self.images, self.samples, self.image, self.plan = images, samples, image, plan
        self.pixels = image.pixels(plan.max_megapixels)
        dtype = torch.uint8 if image.dtype == "uint8" else torch.float32
        capacity = plan.cache_bytes if plan.keep_decoded else 0
        self._kept = SharedImages(len(images), capacity, dtype) if capacity else None
        self._known_bad: dict[int, BadImage] = {}

    def __getitem__(self, key: SampleKey) -> Sample:
        return self._samples([key])[0]

    def __getitems__(self, keys: list[SampleKey]) -> list[Sample]:
        """The samples of a micro-batch: an image whose repeats stand together is decoded once."""
        groups = groupby(keys, lambda key: key[:2])
        return [sample for _, group in groups for sample in self._samples(list(group))]

    def _samples(self, keys: list[SampleKey]) -> list[Sample]:
        """Samples of one image, one per repeat; if it is broken, of another, by these keys alone."""
        index, bad = keys[0].image, list[BadImage]()
        for _ in range(min(REPLACEMENT_TRIES, len(self.images) + 1)):
            drawn = self._draw(index, keys)
            if not isinstance(drawn, BadImage):
                return [Sample(one, index, bad) for one in drawn]
            if not bad:
                replacements = generator(self.plan.seed, keys[0].image, REPLACEMENT_TRIES)
            bad.append(drawn)
            index = int(replacements.integers(len(self.images)))
        raise DataError(
            f"{len(bad)} images in a row cannot be read, the first is {bad[0].path} ({bad[0].reason}): "
            f"run `unmask check` on the folder and remove what it lists"
        )

    def _draw(self, index: int, keys: list[SampleKey]) -> list[Any] | BadImage:
        """Bad images are opened once per worker, and so are all together if the plan says that they fit.

        Large images are reduced to what their samples need, kept or not: what is kept changes nothing.
        """
        if index in self._known_bad:
            return self._known_bad[index]
        kept = self._kept.get(index) if self._kept else None
        if kept is not None:
            return [self._sample(ReducedPicture(*kept), index, key) for key in keys]

        def use(picture: Picture) -> list[Any]:
            share = self.samples.share(picture.size)
            if share < 1 or (self._kept and may_be_kept(picture, self.image.size)):
                pixels = reduced(picture, self.pixels, share)
                if self._kept:
                    self._kept.put(index, pixels, picture.size)
                picture = ReducedPicture(pixels, picture.size)
            elif len(keys) > 1:
                reading = Reading.of(self.pixels)
                picture = ReusedPicture(picture, lambda: self.images.open(index, reading))
            return [self._sample(picture, index, key) for key in keys]

        drawn = self.images.take(index, self.pixels, use)
        if isinstance(drawn, BadImage):
            self._known_bad[index] = drawn
        return drawn

    def _sample(self, picture: Picture, index: int, key: SampleKey) -> Any:
        rng = generator(self.plan.seed, *(key if key.repeat else key[:2]))
        return self.samples.sample(picture, key._replace(image=index), rng)
