"""What is masked and what is predicted, as plain records: no torch, JSON both ways."""

from dataclasses import dataclass
from typing import Literal, get_args

from unmask.core.grid import Size, kept_patches

Strategy = Literal["random", "block", "grid", "given"]
TargetKind = Literal["pixels", "normalized-pixels", "pca", "tokens"]
LossOn = Literal["masked", "all"]

GRID_RATIO = 0.75
"""What a grid mask hides, and nothing else; of odd grids a little less, since edges are kept."""


@dataclass(frozen=True, kw_only=True)
class MaskSpec:
    """Which patches the encoder does not see, and how many of them the decoder predicts.

    A strategy (paper, Fig. 6 and Table 1f) is a draw of one number per patch: the patches with the
    smallest stay visible. This record says only how many those are.
    """

    strategy: Strategy = "random"
    """Single patches at random; blocks, as BEiT's; all but one of four patches, regularly; or those
    that a user gave."""
    ratio: float = 0.75
    unit: int = 1
    """Squares of unit x unit patches are masked together."""
    tokens_in_encoder: bool = False
    """The variant of Table 1c: less accurate, and several times the computation."""
    decode_share: float = 1.0
    """Share of the masked patches that the decoder predicts, those with the smallest numbers; it gets
    no mask tokens for the others (partial reconstruction of CrossMAE, Fu et al. 2024)."""
    given: tuple[int, ...] = ()
    """Indices of the masked patches if a user gave them; `ratio` is then what they come to."""

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            known = ", ".join(get_args(Strategy))
            raise ValueError(f"there is no mask strategy {self.strategy!r}: choose one of {known}")
        if (self.strategy == "given") != bool(self.given):
            raise ValueError("a given mask names the masked patches, and no other strategy does")
        if not 0 <= self.ratio <= 1:
            raise ValueError(
                f"a mask ratio of {self.ratio:g} is no share of the patches: choose one between 0 and "
                f"1, such as 0.75"
            )
        if not 0 < self.decode_share <= 1:
            raise ValueError(
                f"the decoder cannot predict a share of {self.decode_share:g} of the masked patches: "
                f"choose --mask.decode-share above 0 and up to 1, such as 0.5"
            )
        if self.strategy == "grid" and self.ratio != GRID_RATIO:
            raise ValueError(
                f"a grid keeps one of every four patches, so that {self.ratio:g} is no ratio for it: "
                f"choose --mask.ratio {GRID_RATIO}, or --mask.strategy random"
            )
        if self.strategy != "random" and self.unit != 1:
            raise ValueError(
                f"mask units belong to random masks, and this strategy is {self.strategy}: choose "
                f"--mask.unit 1, or --mask.strategy random"
            )

    def visible(self, grid: Size, ratio: float | None = None) -> int:
        """K, patches of a grid that the encoder sees; at another ratio than its own if one is given.

        Raises ValueError if the ratio cannot be met.
        """
        h, w = grid
        if ratio is None and self.strategy == "grid":
            if h * w < 2:
                raise ValueError("a grid mask needs at least two patches: choose smaller patches")
            return -(-h // 2) * -(-w // 2)
        if ratio is None and self.strategy == "given":
            if not 0 < h * w - len(self.given) < h * w or max(self.given) >= h * w:
                raise ValueError(f"the given mask is not for a grid of {h} x {w} patches: give another")
            return h * w - len(self.given)
        return kept_patches(grid, self.ratio if ratio is None else ratio, self.unit)

    def predicted(self, grid: Size) -> int:
        """How many masked patches the decoder predicts: its share, rounded, and at least one."""
        return max(1, round(self.decode_share * (grid[0] * grid[1] - self.visible(grid))))


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """What the decoder predicts (paper, Table 1d), and on which patches the loss is computed."""

    kind: TargetKind = "normalized-pixels"
    loss_on: LossOn = "masked"
    components: int | None = None
    """PCA coefficients of a patch that are predicted; an eighth of its values if None (paper: 96 of
    768)."""
    vocabulary: int | None = None
    """Tokens that a patch may be, as many as the tokenizer has."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(TargetKind):
            known = ", ".join(get_args(TargetKind))
            raise ValueError(f"there is no target {self.kind!r}: choose one of {known}")
        if self.loss_on not in get_args(LossOn):
            raise ValueError(f"the loss is on 'masked' or 'all' patches, not on {self.loss_on!r}")
        if self.components is not None and self.components < 1:
            raise ValueError("PCA needs at least one coefficient: choose --target.components 1 or more")
        if (self.kind == "tokens") != (self.vocabulary is not None):
            raise ValueError(
                "the target 'tokens', and no other, needs a tokenizer, which says how many tokens there "
                "are: write --target.kind tokens --target.tokenizer RUN"
            )

    def outputs(self, values_per_patch: int) -> int:
        """How many numbers are predicted for a patch of so many values.

        Raises ValueError if there are more coefficients than values.
        """
        if self.kind == "tokens":
            assert self.vocabulary is not None
            return self.vocabulary
        if self.kind != "pca":
            return values_per_patch
        components = self.components or max(1, values_per_patch // 8)
        if components > values_per_patch:
            raise ValueError(
                f"a patch of {values_per_patch} values has no {components} PCA coefficients: choose "
                f"--target.components {max(1, values_per_patch // 8)}, or larger patches"
            )
        return components
