"""From pixels to what the model takes."""

import torch
from torch import Tensor


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """[B, C, H, W] to float32, with mean and deviation per channel.

    They are on the scale 0 to 1 of uint8 images, and on the images' own scale where those are float32.
    """
    full_scale = 255 if images.dtype == torch.uint8 else 1
    scale = torch.tensor(std, device=images.device).view(-1, 1, 1) * full_scale
    shift = torch.tensor(mean, device=images.device).view(-1, 1, 1) * full_scale
    return (images.float() - shift) / scale
