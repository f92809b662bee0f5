"""Images to patches and back.

Legend: B images, C channels, H x W pixels, N patches, P values per patch.
A patch's values are ordered row, column, channel (channel fastest); patches run row by row.
"""

from jaxtyping import Shaped
from torch import Tensor

Size = tuple[int, int]
"""Height, then width."""


def grid_of(image_size: Size, patch_size: Size) -> Size:
    """Patches down and across an image of `image_size` pixels.

    Raises ValueError where the patch does not divide the image.
    """
    for side, pixels, patch in zip(("height", "width"), image_size, patch_size, strict=True):
        if patch < 1 or pixels < 1 or pixels % patch:
            nearest = max(patch, round(pixels / patch) * patch) if patch > 0 else pixels
            raise ValueError(
                f"a patch of {patch} pixels does not divide an image {side} of {pixels}: "
                f"choose another patch size, or {nearest} as {side}"
            )
    return image_size[0] // patch_size[0], image_size[1] // patch_size[1]


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
