"""What a detector is, as a plain record; no torch until it is built."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unmask.core.spec import ViTSpec, register

if TYPE_CHECKING:
    from unmask.core.vit import VisionTransformer
    from unmask.models.detector import Detector

PyramidKind = Literal["fpn", "simple"]
RelativePositionKind = Literal["none", "shared", "decomposed"]
HeadNorm = Literal["batch", "layer", "none"]
PYRAMID_GROUPS = 4
"""Number of groups of blocks, each of which gives a map to the paper's pyramid."""


@register("detector")
@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """A Mask R-CNN on a plain encoder; the defaults are the paper's (Table 4).

    ViTDet's are pyramid "simple", window 14, relative_position "decomposed", head_norm "layer".

    Args:
        encoder: the Transformer's dimensions; its image size is the canvas.
        classes: their names; a label is an index into them.
        masks: predict masks too; without, boxes alone.
        pyramid: "fpn" (maps of four equal groups of blocks) or "simple" (the last map; ViTDet).
        window: side of the attention windows, in patches; None for global attention in all blocks.
        global_blocks: the last block of each of so many equal groups is global beside windows.
        relative_position: "shared" (a table for windowed and one for global blocks), "decomposed"
            (per block; ViTDet) or "none".
        channels: of the pyramid's levels and of the heads' convolutions.
        head_norm: in the heads' convolutions: "batch" (over all processes), "layer" or "none".
        head_width: of the box head's linear layer.
        anchor_scale: side of a level's anchors, in strides of the level.
        anchor_ratios: height over width.
        sampled_anchors, sampled_proposals: of each image, for its loss.
        proposals: most of an image that the heads see.
        score_threshold, detections: lowest score of a detection; most of an image.

    Raises ValueError for values that make no detector.
    """

    encoder: ViTSpec
    classes: tuple[str, ...]
    masks: bool = True
    pyramid: PyramidKind = "fpn"
    window: int | None = 16
    global_blocks: int = 4
    relative_position: RelativePositionKind = "shared"
    channels: int = 256
    head_norm: HeadNorm = "batch"
    head_width: int = 1024
    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    sampled_anchors: int = 256
    sampled_proposals: int = 512
    proposals: int = 1000
    score_threshold: float = 0.05
    detections: int = 100

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("a detector needs at least one class: give data with labelled objects")
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise ValueError(f"two classes are called {twice!r}: rename one of them")
        for name in ("window", "global_blocks", "channels", "proposals", "detections"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"a detector's {name} is {value}: give at least 1")

    def windows(self, depth: int) -> list[int | None]:
        """The side of each block's windows; None for global blocks.

        Raises ValueError if there are too few blocks, for the pyramid or for the global blocks.
        """
        fewer = depth < self.global_blocks
        if self.pyramid == "fpn" and depth < PYRAMID_GROUPS:
            also = f" --detector.global-blocks {depth}" if fewer else ""
            raise ValueError(
                f"the pyramid fpn takes maps of {PYRAMID_GROUPS} groups of blocks, and the encoder has "
                f"{depth} blocks: take a deeper one, or write --detector.pyramid simple{also}"
            )
        if fewer:
            raise ValueError(
                f"--detector.global-blocks is {self.global_blocks}, and the encoder has {depth} blocks: "
                f"take a deeper one, or write --detector.global-blocks {depth}"
            )
        ends = set(group_ends(depth, self.global_blocks))
        return [None if i + 1 in ends else self.window for i in range(depth)]

    def build(self) -> "Detector":
        """The detector, freshly drawn from torch's global generator."""
        return self.around(self.encoder.build())

    def around(self, encoder: "VisionTransformer") -> "Detector":
        """The detector on a given encoder, which becomes part of it; the rest is freshly drawn."""
        from unmask.models.detector import Detector

        return Detector(encoder, self)

    @property
    def final_norm(self) -> bool:
        """The encoder's own final norm is not used: no map passes it."""
        return False


def group_ends(depth: int, groups: int) -> list[int]:
    """The last block, counted from 1, of each of so many equal groups; no more groups than blocks."""
    assert groups <= depth, "DetectorSpec.windows refuses fewer blocks"
    return [round(depth * (i + 1) / groups) for i in range(groups)]
