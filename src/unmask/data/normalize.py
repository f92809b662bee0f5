"""From pixels to what the model takes."""

from functools import cache

import torch
from torch import Tensor


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """[B, C, H, W] to float32, with mean and deviation per channel.

    They are on the scale 0 to 1 of uint8 images, and on the images' own scale where those are float32.
    """
    full_scale = 255 if images.dtype == torch.uint8 else 1
    return (images.float() - _channels(mean, full_scale, images.device)) / _channels(
        std, full_scale, images.device
    )


@cache
@torch.inference_mode(False)
def _channels(values: tuple[float, ...], full_scale: int, device: torch.device) -> Tensor:
    """[C, 1, 1], sent to the device once: a GPU would be waited for at each step."""
    return torch.tensor(values, device=device).view(-1, 1, 1) * full_scale
