"""Crops that are resized where the model is."""

from typing import NamedTuple

import torch
from torch import Tensor

from unmask.config.image import ImageSpec
from unmask.core.spec import Size
from unmask.data.normalize import normalize
from unmask.data.transforms import resized


class Crops(NamedTuple):
    """Parts of images, each of its own size, in one buffer: one copy takes them to a GPU."""

    values: Tensor
    shapes: list[tuple[int, ...]]
    """Channels, height and width of each."""


def pack(crops: list[Tensor]) -> Tensor | Crops:
    """A batch [B, C, h, w] of crops of one size, else one after another."""
    shapes = [tuple(crop.shape) for crop in crops]
    if len(set(shapes)) == 1:
        return torch.stack(crops)
    return Crops(torch.cat([crop.flatten() for crop in crops]), shapes)


def on_device(batch: Tensor | Crops, device: torch.device, size: Size) -> Tensor:
    """[B, C, *size] on the device, resized there if they have other sizes."""
    if isinstance(batch, Crops):
        values = batch.values.to(device, non_blocking=True)
        parts = values.split([torch.Size(shape).numel() for shape in batch.shapes])
        crops = [part.view(shape) for part, shape in zip(parts, batch.shapes, strict=True)]
    else:
        batch = batch.to(device, non_blocking=True)
        if batch.shape[2:] == size:
            return batch
        crops = list(batch)
    return torch.stack([resized(crop, size) for crop in crops])


def prepared(batch: Tensor | Crops, device: torch.device, image: ImageSpec) -> Tensor:
    """[B, C, H, W] as a model sees them: on the device, resized and normalised."""
    return normalize(on_device(batch, device, image.size), image.mean, image.std)
