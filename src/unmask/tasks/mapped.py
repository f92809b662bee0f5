"""Images with label maps as segmentation trains on them.

Legend: B images, C channels, H x W pixels of a crop.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unmask.config.plan import Plan
from unmask.config.segment import SegmentConfig
from unmask.core.spec import Size
from unmask.data.decode.pictures import Picture
from unmask.data.dense import random_segmentation_placement, size_within
from unmask.data.distortion import distorted, random_distortion
from unmask.data.maps import IGNORE_INDEX, LabelMaps, labels_for
from unmask.data.placement import cut_image, padded, placed_labels
from unmask.data.sampler import SampleKey
from unmask.data.transforms import MARGIN, MUCH_SMALLER, may_be_kept
from unmask.tasks.labelled import is_picture
from unmask.tasks.pixels import model_spec, sides_of


class MappedBatch(NamedTuple):
    """`images` [B, C, H, W] before normalisation, uint8 `labels` [B, H, W]."""

    images: Tensor
    labels: Tensor


class MappedSamples:
    """See `data.samples.Samples`: a random resize, crop, flip and colour change, with its label map."""

    def __init__(self, config: SegmentConfig, plan: Plan, maps: LabelMaps):
        self.data, self.image, self.maps = config.data, plan.image, maps
        self.sides, self.keeps = model_spec(plan.model).sides, plan.loading.keep_decoded
        self.pixels = plan.image.pixels(plan.loading.max_megapixels)
        self.distorts = config.data.distort and is_picture(plan.image)
        scale = 255 if plan.image.dtype == "uint8" else 1
        self.fill = tuple(scale * value for value in plan.image.mean)
        self._labels: dict[int, Tensor] = {}

    def sample(
        self, picture: Picture, key: SampleKey, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """[C, H, W] before normalisation, and uint8 [H, W]."""
        d, image, labels = self.data, self.image, self._labels_of(key.image, picture.size)
        placement = random_segmentation_placement(
            labels,
            image.size,
            rng,
            sides=sides_of(picture.size, self.sides),
            scale=d.scale,
            flip=d.flip,
            largest_share=d.largest_share,
        )
        cut = cut_image(self._decoded(picture, placement.resized), placement)
        if self.distorts:
            cut = distorted(cut, random_distortion(rng))
        placed = placed_labels(labels, placement, IGNORE_INDEX)
        return padded(cut, placement.canvas, self.fill), placed

    def _decoded(self, picture: Picture, resized: Size) -> Tensor:
        """As large as the resized image needs, but at full size if it may be kept: both give one sample
        whether it is or not."""
        if may_be_kept(picture, self.image.size):
            return picture.pixels(self.pixels)
        enough = max(new / old for new, old in zip(resized, picture.size, strict=True))
        return picture.pixels(self.pixels, min(1.0, enough))

    def _labels_of(self, index: int, size: Size) -> Tensor:
        if index in self._labels:
            return self._labels[index]
        labels = torch.from_numpy(labels_for(self.maps, index, size).astype(np.uint8))
        if self.keeps:
            self._labels[index] = labels
        return labels

    def share(self, image_size: Size) -> float:
        """See `Samples`: what the largest resized image needs."""
        longer, shorter = (self.data.scale[1] * side for side in sides_of(image_size, self.sides))
        size = size_within(image_size, longer, shorter)
        share = MARGIN * max(new / old for new, old in zip(size, image_size, strict=True))
        return share if share <= MUCH_SMALLER else 1.0

    def collate(self, samples: list[tuple[Tensor, Tensor]]) -> MappedBatch:
        """Stacks crops and label maps."""
        images, labels = zip(*samples, strict=True)
        return MappedBatch(torch.stack(images), torch.stack(labels))
