"""What a model will see of some images: random crops, and what a mask leaves of the last.

Legend: H x W pixels, h x w patches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from unmask.viz.reconstruction import MID_GREY
from unmask.viz.tiles import Sheet, draw


class SampleRow(NamedTuple):
    """One image: its centre, crops of it, and the mask of the last crop."""

    whole: UInt8[np.ndarray, "H W 3"]
    crops: Sequence[UInt8[np.ndarray, "H W 3"]]
    is_masked: Bool[np.ndarray, "h w"]


def sample_sheet(rows: Sequence[SampleRow], title: str, mask_ratio: float) -> Image.Image:
    """One row per image; all have as many crops."""
    crops = len(rows[0].crops)
    return draw(
        Sheet(
            rows=[[row.whole, *row.crops, _masked(row)] for row in rows],
            headings=["centre", *(f"sample {i + 1}" for i in range(crops)), "sample, masked"],
            title=title,
            footnote=f"Cropped, flipped and resized as in training; {100 * mask_ratio:.4g} % masked.",
        )
    )


def _masked(row: SampleRow) -> UInt8[np.ndarray, "H W 3"]:
    last = row.crops[-1]
    side = np.array(last.shape[:2]) // row.is_masked.shape
    hidden = row.is_masked.repeat(side[0], axis=0).repeat(side[1], axis=1)
    return np.where(hidden[..., None], np.uint8(MID_GREY), last)
