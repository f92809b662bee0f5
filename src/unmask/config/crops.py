"""The crops of pre-training (paper, Table 1e)."""

from dataclasses import dataclass
from typing import Literal

from unmask.config.fields import setting
from unmask.config.settings import Crops

CropKind = Literal["random-size", "fixed-size", "centre"]


@dataclass(frozen=True, kw_only=True)
class PretrainCrops(Crops):
    """How images become samples without labels."""

    crop: CropKind = "random-size"
    """Crops of random size and aspect, by crop-scale; of one size at a random place, 7/8 of the largest
    side that fits; or the centre, always the same (paper, Table 1e)."""
    jitter: float = setting(0.0, least=0, most=1)
    """Strength of random changes of brightness, contrast and saturation; 0.4 is usual. The paper's
    accuracy is lower with it (Table 1e)."""
