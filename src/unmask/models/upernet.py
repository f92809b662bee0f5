"""UperNet's heads (Xiao et al. 2018): pyramid pooling and top-down fusion; and the auxiliary FCN head.

Legend: B images, h x w places of a level, U the head's width, K classes.
Parameters carry the names of transformers' UperNetHead and UperNetFCNHead. `keep` is dropout of whole
channels before the classifier: a factor for each, drawn by the caller.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unmask.models.feature_norm import FeatureNorm
from unmask.models.pyramid import BATCH_NORM_EPS

CLASSIFIER_STD = 0.01

Levels = list[Float[Tensor, "B _ _ _"]]


class ConvNorm(nn.Module):
    """A convolution without bias, BatchNorm over all processes, ReLU."""

    def __init__(self, inputs: int, outputs: int, side: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
        self.batch_norm = FeatureNorm(outputs, affine=True, eps=BATCH_NORM_EPS)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B _ h w"]:
        return self.batch_norm(self.conv(x)).relu()


class UperNetHead(nn.Module):
    """Logits at the finest level's stride, from levels that are each half as large as the one before.

    The coarsest is pooled to `pool_scales` squared places and fused with that; then each finer level
    adds the coarser one, enlarged, to a projection of its own; all are put together at the finest.
    """

    def __init__(self, channels: Sequence[int], width: int, classes: int, pool_scales: Sequence[int]):
        super().__init__()
        *finer, coarsest = channels
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvNorm(coarsest, width, 1))
            for scale in pool_scales
        )
        self.bottleneck = ConvNorm(coarsest + len(pool_scales) * width, width, 3)
        self.lateral_convs = nn.ModuleList(ConvNorm(C, width, 1) for C in finer)
        self.fpn_convs = nn.ModuleList(ConvNorm(width, width, 3) for _ in finer)
        self.fpn_bottleneck = ConvNorm(len(channels) * width, width, 3)
        self.classifier = classifier(width, classes)

    def forward(
        self, levels: Levels, keep: Float[Tensor, "B U"] | None = None
    ) -> Float[Tensor, "B K h w"]:
        x = self.pooled(levels[-1])
        fused, finest = [x], levels[0].shape[-2:]
        for level, lateral in reversed(list(zip(levels[:-1], self.lateral_convs, strict=True))):
            x = lateral(level) + resized_to(x, level.shape[-2:])
            fused.append(x)
        smoothed = [smooth(x) for smooth, x in zip(self.fpn_convs, fused[:0:-1], strict=True)]
        together = [resized_to(x, finest) for x in (*smoothed, fused[0])]
        return self.classifier(scaled(self.fpn_bottleneck(torch.cat(together, dim=1)), keep))

    def pooled(self, coarsest: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B U h w"]:
        """The coarsest level together with its means over 1, 4, 9 and 36 parts (Zhao et al. 2017)."""
        context = [resized_to(pool(coarsest), coarsest.shape[-2:]) for pool in self.psp_modules]
        return self.bottleneck(torch.cat([coarsest, *context], dim=1))


class FCNHead(nn.Module):
    """One 3 x 3 convolution and a classifier on one level: the auxiliary head."""

    def __init__(self, channels: int, width: int, classes: int):
        super().__init__()
        self.convs = nn.Sequential(ConvNorm(channels, width, 3))
        self.classifier = classifier(width, classes)

    def forward(
        self, level: Float[Tensor, "B _ h w"], keep: Float[Tensor, "B U"] | None = None
    ) -> Float[Tensor, "B K h w"]:
        return self.classifier(scaled(self.convs(level), keep))


class LinearHead(nn.Module):
    """BatchNorm and a linear layer for each place of one map: the dense linear probe."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.batch_norm = FeatureNorm(channels, affine=True, eps=BATCH_NORM_EPS)
        self.classifier = classifier(channels, classes)

    def forward(self, features: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B K h w"]:
        return self.classifier(self.batch_norm(features))


def classifier(width: int, classes: int) -> nn.Conv2d:
    """A linear layer for each place, small weights."""
    layer = nn.Conv2d(width, classes, 1)
    nn.init.normal_(layer.weight, std=CLASSIFIER_STD)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def scaled(x: Float[Tensor, "B U h w"], keep: Float[Tensor, "B U"] | None) -> Float[Tensor, "B U h w"]:
    """Channels times their factors; all as they are without any."""
    return x if keep is None else x * keep[:, :, None, None].to(x.dtype)


def resized_to(x: Float[Tensor, "B _ _ _"], size: Sequence[int]) -> Float[Tensor, "B _ _ _"]:
    """Bilinear, pixel centres aligned (align_corners False)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
