"""From uint8 pixels to what the model takes."""

import torch
from torch import Tensor


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [B, C, H, W] to float32, with mean and deviation per channel on the scale 0 to 1."""
    scale = torch.tensor(std, device=images.device).view(-1, 1, 1) * 255
    shift = torch.tensor(mean, device=images.device).view(-1, 1, 1) * 255
    return (images.float() - shift) / scale
