"""Images to patches and back.

Legend: B images, C channels, H x W pixels, N patches, K patches given, P values per patch, D width.
A patch's values are ordered row, column, channel (channel fastest); patches run row by row.
"""

import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unmask.core.grid import Size, grid_of


def pad_to_patches(images: Float[Tensor, "B C H W"], patch_size: Size) -> Float[Tensor, "B C _ _"]:
    """The images with zeros below and to the right, up to whole patches."""
    p, q = patch_size
    return F.pad(images, (0, -images.shape[3] % q, 0, -images.shape[2] % p))


def patchify(images: Shaped[Tensor, "B C H W"], patch_size: Size) -> Shaped[Tensor, "B N P"]:
    """Cuts images into non-overlapping patches (paper, Approach: Masking)."""
    B, C, H, W = images.shape
    p, q = patch_size
    h, w = grid_of((H, W), patch_size)
    return images.reshape(B, C, h, p, w, q).permute(0, 2, 4, 3, 5, 1).reshape(B, h * w, p * q * C)


def unpatchify(
    patches: Shaped[Tensor, "B N P"], image_size: Size, patch_size: Size
) -> Shaped[Tensor, "B C H W"]:
    """Puts patches back together: the inverse of `patchify`."""
    B, N, P = patches.shape
    p, q = patch_size
    h, w = grid_of(image_size, patch_size)
    if h * w != N or P % (p * q):
        raise ValueError(
            f"{N} patches of {P} values do not make an image of "
            f"{image_size[0]} x {image_size[1]} pixels with patches of {p} x {q}: "
            f"give the image size and patch size that they were cut with"
        )
    return patches.reshape(B, h, w, p, q, -1).permute(0, 5, 1, 3, 2, 4).reshape(B, -1, h * p, w * q)


class PatchEmbed(nn.Module):
    """The linear projection of patches, stored as the convolution that it equals."""

    def __init__(self, patch_size: Size, channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, patches: Float[Tensor, "B K P"]) -> Float[Tensor, "B K D"]:
        return F.linear(patches, self.proj.weight.permute(0, 2, 3, 1).flatten(1), self.proj.bias)
