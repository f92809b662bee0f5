"""The baseline of an untrained eye: masked pixels as the smoothest surface through the visible ones.

Legend: B images, C channels, H x W pixels.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TOLERANCE = 1e-6
"""Norm of an image's residual at which its solution is accepted, in units of its known range."""

IMAGES_AT_ONCE = 4
"""Few enough that the iterates of a chunk of small images stay in a processor's cache."""


def harmonic_fill(
    images: Float[Tensor, "B C H W"], known: Bool[Tensor, "B H W"]
) -> Float[Tensor, "B C H W"]:
    """Fills unknown pixels by Laplace interpolation; known ones are returned unchanged.

    Each unknown pixel becomes the mean of its neighbours above, below, left and right; at the
    border, of those that exist. What unknown pixels held before does not matter.

    Solved on the CPU in double precision, so that the result is the same on every device.

    Raises ValueError if an image has no known pixel.
    """
    if not known.flatten(1).any(dim=1).all():
        raise ValueError(
            "an image without a single known pixel cannot be filled: "
            "mask less of it, so that at least one pixel stays visible"
        )
    chunks = zip(
        images.cpu().double().split(IMAGES_AT_ONCE),
        known.cpu()[:, None].split(IMAGES_AT_ONCE),
        strict=True,
    )
    filled = torch.cat([_fill(image, visible) for image, visible in chunks])
    return torch.where(known[:, None], images, filled.to(images))


def _fill(images: Tensor, known: Tensor) -> Tensor:
    low = images.masked_fill(~known, torch.inf).amin(dim=(2, 3), keepdim=True)
    high = images.masked_fill(~known, -torch.inf).amax(dim=(2, 3), keepdim=True)
    middle = (low + high) / 2
    offsets = torch.where(known, images - middle, 0.0)
    return middle + _conjugate_gradient(offsets, (~known).to(images.dtype), TOLERANCE * (high - low))


def _conjugate_gradient(
    start: Float[Tensor, "B C H W"],
    unknown: Float[Tensor, "B 1 H W"],
    accepted: Float[Tensor, "B C 1 1"],
) -> Float[Tensor, "B C H W"]:
    """Solves for the pixels where `unknown` is 1, every channel on its own.

    Restricted to unknown pixels, minus the Laplacian of the pixel grid is symmetric and, since
    some pixel is known, positive definite. In place: memory traffic is what this costs.
    """
    tiny = torch.finfo(start.dtype).tiny  # channels that are solved already divide zero by it
    neighbours = _neighbour_sum(torch.ones_like(unknown))
    x, residual = start.clone(), (_neighbour_sum(start) - neighbours * start) * unknown
    direction, squared = residual.clone(), _dot(residual, residual)
    for _ in range(2 * unknown[0].numel()):  # in exact arithmetic half of it suffices
        if (squared <= accepted.square()).all():
            break
        pushed = (neighbours * direction).sub_(_neighbour_sum(direction)).mul_(unknown)
        step = squared / _dot(direction, pushed).clamp_min(tiny)
        x.addcmul_(step, direction)
        residual.addcmul_(step, pushed, value=-1)
        previous, squared = squared, _dot(residual, residual)
        direction.mul_(squared / previous.clamp_min(tiny)).add_(residual)
    return x


def _neighbour_sum(x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    total[..., 1:, :] += x[..., :-1, :]
    total[..., :-1, :] += x[..., 1:, :]
    total[..., 1:] += x[..., :-1]
    total[..., :-1] += x[..., 1:]
    return total


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(2, 3), keepdim=True)
