"""Images with objects as detection trains on them."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unmask.config.detect import DetectConfig
from unmask.config.plan import Plan
from unmask.core.spec import Size
from unmask.data.cropped_masks import CroppedMask, CroppedMasks, cropped
from unmask.data.decode.pictures import Picture
from unmask.data.dense import random_jitter_placement
from unmask.data.instances import Detections, Instances
from unmask.data.masks import pixels_of
from unmask.data.placement import Placement, cut_image, padded, placed_boxes, placed_objects
from unmask.data.sampler import SampleKey

Target = dict[str, Any]
"""As `Detector` takes it: "boxes", "labels", "ignored" and, if there are any, "masks"."""


class ObjectSample(NamedTuple):
    """One image as it was cut, [C, h, w] before normalisation, and what is on it."""

    image: Tensor
    target: Target


class ObjectBatch(NamedTuple):
    """`images` [B, C, H, W], each in the upper left corner of one canvas, and the size of each."""

    images: Tensor
    sizes: list[Size]
    targets: list[Target]


class ObjectSamples:
    """See `data.samples.Samples`: large-scale jitter and flip, of pixels, boxes and masks alike."""

    def __init__(self, config: DetectConfig, plan: Plan, training: Detections, *, masks: bool):
        self.data, self.canvas, self.patch = config.data, plan.image.size, plan.model.encoder.patch_size
        self.pixels = plan.image.pixels(plan.loading.max_megapixels)
        self.training, self.masks = training, masks

    def sample(self, picture: Picture, key: SampleKey, rng: np.random.Generator) -> ObjectSample:
        """Raises ValueError if the image is not as large as its annotations say."""
        d = self.data
        refuse_other_size(self.training, key.image, picture.size)
        placement = random_jitter_placement(picture.size, self.canvas, rng, scale=d.scale, flip=d.flip)
        # Always from the whole image at its full size: what is kept decoded gives the same.
        cut = cut_image(picture.pixels(self.pixels), placement)
        return ObjectSample(cut, placed(self.training.instances[key.image], placement, self.masks))

    def share(self, image_size: Size) -> float:
        """See `Samples`: all of it, since annotations are placed on pixels at their full size."""
        return 1.0

    def collate(self, samples: list[ObjectSample]) -> ObjectBatch:
        """Pads the images to whole patches, no more than the largest of them needs."""
        sizes = [(s.image.shape[1], s.image.shape[2]) for s in samples]
        h, w = (
            -(-max(sides) // p) * p
            for sides, p in zip(zip(*sizes, strict=True), self.patch, strict=True)
        )
        images = [padded(s.image, (h, w), [0.0] * len(s.image)) for s in samples]
        return ObjectBatch(torch.stack(images), sizes, [s.target for s in samples])


def placed(instances: Instances, placement: Placement, masks: bool) -> Target:
    """What is left of an image's objects where it was cut; masks as large as the cut.

    An object whose mask is not known has an empty one; one of whose mask nothing is left is dropped.
    """
    boxes, crowd = torch.from_numpy(instances.boxes), torch.from_numpy(instances.crowd)
    alone = np.flatnonzero(~instances.crowd)

    def mask_of(i: int) -> CroppedMask | None:
        mask = instances.masks[alone[i]] if masks and instances.masks else None
        return None if mask is None else cropped(torch.from_numpy(pixels_of(mask, placement.source)))

    left = placed_objects(boxes[alone], mask_of, placement)
    target = {
        "boxes": left.boxes,
        "labels": torch.from_numpy(instances.labels[alone[left.kept]]),
        "ignored": placed_boxes(boxes[crowd], placement),
    }
    return {**target, "masks": CroppedMasks.of(left.masks, placement.crop[2:])} if masks else target


def refuse_other_size(data: Detections, index: int, size: Size) -> None:
    """Raises ValueError if an image's annotations are of another size than its pixels."""
    h, w = data.sizes[index].tolist()
    if h and (h, w) != tuple(size):
        raise ValueError(
            f"the image has {size[0]} x {size[1]} pixels, and its annotations say {h} x {w}"
        )


def moved(target: Target, device: Any) -> Target:
    """The same on a device."""
    return {name: value.to(device, non_blocking=True) for name, value in target.items()}
