"""From a plain Transformer's maps to feature levels of several strides.

Legend: B images, D width, h x w patches, C channels of a level, p pixels of a patch.
Levels, from fine to coarse, have strides p/4, p/2, p and 2p: 4, 8, 16 and 32 pixels for patches of 16.
`valid` says which patches belong to an image and which only pad it. Padding changes nothing inside: it
counts in no statistic, and convolutions see zeros there, as they do beyond an edge.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unmask.models.feature_norm import FeatureNorm

LEVEL_STRIDES = (0.25, 0.5, 1.0, 2.0)
"""Strides of a pyramid's levels, in patches."""

EPS, BATCH_NORM_EPS = 1e-6, 1e-5


class MultiScale(nn.Module):
    """Four maps at the patches' stride, resized to the four strides (Li et al. 2021; paper, Transfer).

    The first by two transposed convolutions with a norm and GELU between, the second by one, the
    third stays, the last is max-pooled. The width stays. Odd numbers of patches are pooled to the
    next whole number.

    The norm is GroupNorm, or BatchNorm over all processes, which takes no padding.
    """

    def __init__(self, width: int, *, norm: Literal["group", "batch"] = "group"):
        super().__init__()
        self.upscale_first = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.norm: MapGroupNorm | FeatureNorm = MapGroupNorm(math.gcd(32, width), width)
        if norm == "batch":
            self.norm = FeatureNorm(width, affine=True, eps=BATCH_NORM_EPS)
        self.upscale_again = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.upscale_second = nn.ConvTranspose2d(width, width, 2, stride=2)

    def forward(
        self, maps: list[Float[Tensor, "B D h w"]], valid: Bool[Tensor, "B h w"] | None = None
    ) -> list[Float[Tensor, "B D _ _"]]:
        """Maps of [4h, 4w], [2h, 2w], [h, w] and [ceil(h/2), ceil(w/2)]; zeros in the padding."""
        first, second, third, fourth = maps
        levels = level_masks(valid)
        doubled = self.upscale_first(first)
        is_grouped = isinstance(self.norm, MapGroupNorm)
        assert is_grouped or valid is None, "the statistics of a batch norm would count padding"
        finest = F.gelu(self.norm(doubled, levels[1]) if is_grouped else self.norm(doubled))
        sized = [self.upscale_again(finest), self.upscale_second(second), third, halve(fourth, valid)]
        return [within(x, mask) for x, mask in zip(sized, levels, strict=True)]


class FeaturePyramid(nn.Module):
    """Lateral and top-down connections (FPN; Lin et al. 2017) over levels, each half the one before.

    A fifth level, the fourth one's every second value, is for proposals of large objects alone.
    """

    def __init__(self, width: int, channels: int = 256):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for _ in LEVEL_STRIDES)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in LEVEL_STRIDES)
        for convolution in self.modules():
            if isinstance(convolution, nn.Conv2d):
                _initialize(convolution)

    def forward(
        self, levels: list[Float[Tensor, "B D _ _"]], valid: Bool[Tensor, "B h w"] | None = None
    ) -> list[Float[Tensor, "B C _ _"]]:
        masks = level_masks(valid)
        coarser, outputs = None, []
        for i in reversed(range(len(levels))):
            x = self.lateral[i](levels[i])
            if coarser is not None:
                x = x + enlarged(coarser, x.shape[-2:])
            coarser = within(x, masks[i])
            outputs.append(within(self.output[i](coarser), masks[i]))
        return with_coarsest(outputs[::-1])


class SimplePyramid(nn.Module):
    """Levels from the last map alone, with LayerNorm (ViTDet; Li et al. 2022).

    Each is resized by (transposed) convolutions that halve the width, or pooled, then projected and
    smoothed. A fifth level, the fourth one's every second value, is for proposals alone.
    """

    def __init__(self, width: int, channels: int = 256):
        super().__init__()
        half, quarter = width // 2, width // 4
        self.resize = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(width, half, 2, stride=2),
                    MapLayerNorm(half),
                    nn.GELU(),
                    nn.ConvTranspose2d(half, quarter, 2, stride=2),
                ),
                nn.ConvTranspose2d(width, half, 2, stride=2),
                nn.Identity(),
            ]
        )
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(D, channels, 1, bias=False), MapLayerNorm(channels))
            for D in (quarter, half, width, width)
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False), MapLayerNorm(channels)
            )
            for _ in LEVEL_STRIDES
        )

    def forward(
        self, last: Float[Tensor, "B D h w"], valid: Bool[Tensor, "B h w"] | None = None
    ) -> list[Float[Tensor, "B C _ _"]]:
        sized = [*(resize(last) for resize in self.resize), halve(last, valid)]
        levels = []
        for i, (x, mask) in enumerate(zip(sized, level_masks(valid), strict=True)):
            projected = within(self.project[i](within(x, mask)), mask)
            levels.append(within(self.smooth[i](projected), mask))
        return with_coarsest(levels)


class MapLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place of a map."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=EPS)

    def forward(self, x: Float[Tensor, "B C _ _"]) -> Float[Tensor, "B C _ _"]:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MapGroupNorm(nn.GroupNorm):
    """GroupNorm whose statistics are those of the valid places of each map."""

    def forward(
        self, x: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B 1 H W"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        if valid is None:
            return super().forward(x)
        grouped = x.float().unflatten(1, (self.num_groups, -1))
        counts = valid[:, None]
        n = counts.sum(dim=(2, 3, 4), keepdim=True) * grouped.shape[2]
        mean = (grouped * counts).sum(dim=(2, 3, 4), keepdim=True) / n
        centred = grouped - mean
        variance = (centred.square() * counts).sum(dim=(2, 3, 4), keepdim=True) / n
        normal = (centred * (variance + self.eps).rsqrt()).flatten(1, 2)
        return (normal * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def level_masks(valid: Bool[Tensor, "B h w"] | None) -> list[Bool[Tensor, "B 1 _ _"] | None]:
    """Which places of each of the four levels belong to their images; None if all do."""
    if valid is None:
        return [None] * len(LEVEL_STRIDES)
    patches = valid[:, None]
    double = patches.repeat_interleave(2, -1).repeat_interleave(2, -2)
    quadruple = double.repeat_interleave(2, -1).repeat_interleave(2, -2)
    half = F.max_pool2d(patches.float(), 2, ceil_mode=True) > 0
    return [quadruple, double, patches, half]


def within(x: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B 1 H W"] | None) -> Tensor:
    """The map with zeros in the padding."""
    return x if valid is None else x.masked_fill(~valid, 0)


def halve(x: Float[Tensor, "B D h w"], valid: Bool[Tensor, "B h w"] | None) -> Tensor:
    """The largest of 2 x 2 values, fewer at the lower and right edges."""
    if valid is not None:
        x = x.masked_fill(~valid[:, None], -torch.inf)
    return F.max_pool2d(x, 2, ceil_mode=True)


def enlarged(x: Float[Tensor, "B C _ _"], size: torch.Size) -> Tensor:
    """Each value four times, cut to `size`."""
    doubled = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return doubled[..., : size[0], : size[1]]


def with_coarsest(levels: list[Tensor]) -> list[Tensor]:
    """The levels and one more, every second value of the last."""
    return [*levels, levels[-1][..., ::2, ::2]]


def _initialize(convolution: nn.Conv2d) -> None:
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
