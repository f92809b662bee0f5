"""From pixels to what the model takes."""

from functools import cache

import torch
from torch import Tensor


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """[B, C, H, W] to float32, by mean and standard deviation per channel; no-data becomes 0, the mean.

    They are on the scale 0 to 1 of uint8 images, and on the images' own scale if those are float32.
    """
    full_scale = 255 if images.dtype == torch.uint8 else 1
    normalized = (images.float() - _channels(mean, full_scale, images.device)) / _channels(
        std, full_scale, images.device
    )
    if images.dtype == torch.uint8:
        return normalized
    return torch.where(normalized.isnan(), normalized.new_zeros(()), normalized)


def valid_pixels(images: Tensor) -> Tensor | None:
    """Which values of images [B, C, H, W] before `normalize` are data: bool of that shape.

    None for uint8, which cannot mark no-data: all are.
    """
    return None if images.dtype == torch.uint8 else images.isnan().logical_not()


@cache
@torch.inference_mode(False)
def _channels(values: tuple[float, ...], full_scale: int, device: torch.device) -> Tensor:
    """[C, 1, 1], sent to the device once: a GPU would be waited for at each step."""
    return torch.tensor(values, device=device).view(-1, 1, 1) * full_scale
