"""Fixed 2-D sine-cosine positions (paper, appendix; the same form as MoCo v3).

Legend: N patches, D width, R prefix (class) tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.core.patches import Size


def sincos_positions(
    grid: Size, width: int, prefix_tokens: int = 0
) -> Float[Tensor, "1 {prefix_tokens+grid[0]*grid[1]} {width}"]:
    """A table with one row per token; prefix tokens get zeros.

    The first half of the channels encodes a patch's column, the second half its row (the
    reference's order); each half is sines, then cosines, at wavelengths from 2 pi to 10000 x 2 pi.

    Raises ValueError where the width is no multiple of four.
    """
    if width % 4:
        raise ValueError(
            f"sine-cosine positions need a width that four divides, and {width} is not: "
            f"choose {width - width % 4 or 4} or {width + 4 - width % 4}"
        )
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64),
        torch.arange(grid[1], dtype=torch.float64),
        indexing="ij",
    )
    patches = torch.cat([_sincos(columns.flatten(), width // 2), _sincos(rows.flatten(), width // 2)], 1)
    prefix = torch.zeros(prefix_tokens, width, dtype=torch.float64)
    return torch.cat([prefix, patches])[None].float()


def _sincos(coordinate: Float[Tensor, "N"], width: int) -> Float[Tensor, "N {width}"]:
    frequency = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angle = coordinate[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)
