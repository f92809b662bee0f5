"""Image size, patch size and mask ratio that suit images, by how fast their correlation falls.

One idea: a masked patch should be out of reach of a simple continuation of its neighbours, but not
further. On photographs at 224 pixels, with patches of 16, the paper found 75 % masked to be best
(Fig. 5). The correlation of two pixels of such pictures (the 215 that benchmarks/readme_picture.py
collects) falls to one half in 19.5 pixels: a patch is 0.82 times that, and with 75 % masked at random
the nearest visible patch is a patch away. The rule keeps both in proportion for other images. It is one
point drawn out to a line: a place to start.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from unmask.core.spec import Size

PATCHES_PER_SIDE = (6, 16)
"""Fewer leave the encoder too few visible ones, more cost too much."""
LEAST_PATCH = 2
"""Pixels: a patch of one has no standard deviation to be normalised by."""
LEAST_SIDE, ROUND_SIDES = 16, 8
"""The least side of the model's input, in pixels, and what it is a multiple of if no patch is given."""
REACH = 0.82
"""A patch by the distance at which correlation falls to one half: 16 pixels by 19.5."""
NEAR = 1.25
"""A factor between patches that makes no difference worth another setting."""
LEAST_RATIO, MOST_RATIO, ROUND_RATIO = 0.5, 0.9, 0.05

NOISE = 1.0
"""Images whose correlation is gone within a pixel are like noise, whatever the patch."""
EXPECTED = (
    (0.5, "fine texture, which neighbouring pixels predict poorly: an error close to harmonic fill's"),
    (2.0, "structure that spans patches: an error below harmonic fill's within the run"),
    (
        math.inf,
        "smooth or nearly empty images, which harmonic fill predicts well: judge by a probe or k-NN, "
        "not by the error alone",
    ),
)
"""What to expect up to a multiple of the patch that the rule alone would choose, by the patch itself."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What suits some images, and the measurement that says so."""

    images: int
    size: Size
    half: float
    """Distance in pixels of the model's input at which the correlation falls to one half."""
    patch: int
    ratio: float

    @property
    def finding(self) -> str:
        """The measurement, in words."""
        h, w = self.size
        return (
            f"in {self.images} images of {h} x {w} pixels the correlation of pixels falls to one half "
            f"within {self.half:.1f} pixels"
        )

    def rows(self) -> Iterator[tuple[str, str]]:
        """Names and values to show."""
        yield "correlation", self.finding
        yield (
            "advice",
            f"patches of {self.patch} pixels, mask ratio {self.ratio:.2f}: scaled from the paper's 16 "
            f"and 0.75 on photographs of 224 pixels, where it is 19.5 pixels; a starting point",
        )
        yield "expect", expected(self.patch, self.half)


def advised(images: int, size: Size, half: float, usual: int) -> Advice:
    """For so many measured images; `half` as in `Advice`, `usual` the recipe's own patch."""
    patch = advised_patch(size, half, usual)
    return Advice(images=images, size=size, half=half, patch=patch, ratio=advised_ratio(patch, half))


def advised_side(usual: int, median: Size, *, multiple: int = ROUND_SIDES) -> int:
    """Size of the model's input: the recipe's, but no more than half of the images have."""
    least = -(-LEAST_SIDE // multiple) * multiple
    return max(least, min(usual, min(median)) // multiple * multiple)


def advised_patch(size: Size, half: float, usual: int) -> int:
    """Patch size: among those that give enough and not too many patches, the nearest by proportion.

    `usual`, the recipe's own, is kept if it is as good as that, or if a size has no sensible patches.
    """
    fewest, most = PATCHES_PER_SIDE
    divides = [p for p in range(LEAST_PATCH, min(size) + 1) if not any(side % p for side in size)]
    fitting = [p for p in divides if fewest <= min(size) / p <= most]
    wanted = REACH * max(half, 0.1)
    sensible = fitting or [p for p in divides if p < min(size)] or [usual]
    away = {p: max(p / wanted, wanted / p) for p in sensible}
    return usual if away.get(usual, math.inf) <= NEAR else min(away, key=away.__getitem__)


def advised_ratio(patch: int, half: float) -> float:
    """Masked at random, so that the nearest visible patch is `REACH` times `half` away.

    Of points at random, one in each patch's area times 1 - ratio, that is patch / 2 sqrt(1 - ratio).
    """
    ratio = 1 - (patch / (2 * REACH * max(half, 0.1))) ** 2
    return round(max(LEAST_RATIO, min(MOST_RATIO, round(ratio / ROUND_RATIO) * ROUND_RATIO)), 2)


def expected(patch: int, half: float) -> str:
    """What a run will show."""
    reach = 0.0 if half < NOISE else REACH * half / patch
    return next(what for most, what in EXPECTED if reach <= most)
