"""Effective rank: how many dimensions features use. Predicts, without labels, how well a probe works.

Legend: N images, D width of a feature.
"""

import torch
from jaxtyping import Float
from torch import Tensor

EPS = 1e-7


def effective_rank(features: Float[Tensor, "N D"]) -> float:
    """RankMe (Garrido et al. 2023, arXiv 2210.02885): exp of the entropy of the singular values.

    Between 1 and min(N, D): N should be several times D. Collapsed features have a rank near 1.
    """
    values = torch.linalg.svdvals(features.detach().cpu().double())
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny) + EPS
    return (-(shares * shares.log()).sum()).exp().item()
