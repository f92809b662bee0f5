"""A model of fixed image size over larger images: windows whose overlaps are averaged.

Legend: B images, C channels, H x W pixels, h x w pixels of a window, K outputs per pixel.
"""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unmask.core.spec import Size


def slide(
    fn: Callable[[Float[Tensor, "B C h w"]], Float[Tensor, "B K h w"]],
    images: Float[Tensor, "B C H W"],
    *,
    window: Size,
    stride: Size,
) -> Float[Tensor, "B K H W"]:
    """What `fn` says of whole images that it sees in windows; each pixel's mean over its windows.

    Windows start every `stride` pixels; the last ones are moved back so that they end with the image.
    Images smaller than a window are padded with 0, which is the mean of normalised images.

    Raises ValueError if the stride is not from 1 to the window's size.
    """
    if not all(1 <= step <= side for step, side in zip(stride, window, strict=True)):
        raise ValueError(
            f"a stride of {stride[0]} x {stride[1]} leaves gaps between windows of {window[0]} x "
            f"{window[1]}, or does not move: choose from 1 to the window's size"
        )
    H, W = images.shape[2:]
    padded = F.pad(images, (0, max(0, window[1] - W), 0, max(0, window[0] - H)))
    tops = window_starts(padded.shape[2], window[0], stride[0])
    lefts = window_starts(padded.shape[3], window[1], stride[1])
    total, times = None, padded.new_zeros(padded.shape[2:])
    for top in tops:
        for left in lefts:
            place = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            outputs = fn(padded[place])
            if total is None:
                total = outputs.new_zeros(*outputs.shape[:2], *padded.shape[2:])
            total[place] += outputs
            times[place] += 1
    assert total is not None, "there is always one window"
    return (total / times.to(total.dtype))[..., :H, :W]


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows start along a side that is at least as long as a window."""
    steps = max(0, -(-(length - window) // stride))
    return [min(i * stride, length - window) for i in range(steps + 1)]
