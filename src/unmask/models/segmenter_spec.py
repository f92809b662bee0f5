"""What a segmenter is, as a record that needs no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unmask.core.spec import Size, ViTSpec, register

if TYPE_CHECKING:
    from unmask.core.vit import VisionTransformer
    from unmask.models.segmenter import Segmenter

SegmenterHead = Literal["upernet", "linear"]
Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""


@register("segmenter")
@dataclass(frozen=True, kw_only=True)
class SegmenterSpec:
    """Everything that shapes a segmenter; the defaults beside encoder and classes are Table 5's."""

    encoder: ViTSpec
    """Its image size is that of the windows."""
    classes: tuple[str, ...]
    """Names, in the order of the outputs."""
    colours: tuple[Colour, ...] | None = None
    """Those that the data give the classes, in the same order; None if they give none."""
    sides: Size | None = None
    """The longer and the shorter side that a whole image is resized to stay within before windows are
    cut out of it; None leaves it at its own size."""
    head: SegmenterHead = "upernet"
    """UperNet on four blocks, or a linear layer on the last (the dense linear probe)."""
    layers: tuple[int, ...] | None = None
    """UperNet's four blocks, counted from 1; None for those at a third, a half, two thirds
    and all of the depth (4, 6, 8, 12 of ViT-B; 8, 12, 16, 24 of ViT-L)."""
    width: int | None = None
    """UperNet's channels; None for the encoder's (768 for B, 1024 for L)."""
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    """UperNet's pyramid pooling: the sides of its grids."""
    auxiliary_width: int = 256
    """Channels of UperNet's auxiliary head on the third map."""
    relative_position: bool = True
    """Add a bias by relative position to every block's attention, which starts at 0. A frozen encoder
    needs neither this nor layer scale."""
    layer_scale: float | None = 1.0
    """Where layer scale starts, which is added to an encoder without it; None to add none."""

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(
                "a segmenter needs two classes or more to tell apart: give label maps with more values"
            )
        if self.colours is not None and not _are_colours(self.colours, len(self.classes)):
            raise ValueError(
                f"'colours' is not red, green and blue, from 0 to 255, of each of the "
                f"{len(self.classes)} classes: correct or remove it"
            )

    def build(self) -> "Segmenter":
        """The segmenter, freshly drawn from torch's global generator."""
        return self.around(self.encoder.build())

    def around(self, encoder: "VisionTransformer") -> "Segmenter":
        """The segmenter on a given encoder, which becomes part of it; the rest is freshly drawn."""
        from unmask.models.segmenter import Segmenter

        return Segmenter(encoder, self)

    @property
    def final_norm(self) -> bool:
        """Whether the encoder's own final norm is used: by the linear head, as in classification."""
        return self.head == "linear"

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks whose outputs the head is given, counted from 1.

        Raises ValueError for blocks that the encoder lacks, and other numbers of them than 4.
        """
        depth = self.encoder.depth
        if self.head == "linear":
            return (depth,)
        layers = self.layers or tuple(max(1, round(depth * part / 6)) for part in (2, 3, 4, 6))
        if (
            len(layers) != 4
            or list(layers) != sorted(layers)
            or not 1 <= layers[0] <= layers[3] <= depth
        ):
            raise ValueError(
                f"UperNet takes four blocks from 1 to {depth}, in order, and was given "
                f"{' '.join(map(str, layers))}: choose four of them"
            )
        return layers


def _are_colours(given: object, count: int) -> bool:
    return (
        isinstance(given, tuple)
        and len(given) == count
        and all(isinstance(colour, tuple) and len(colour) == 3 for colour in given)
        and all(type(value) is int and 0 <= value <= 255 for colour in given for value in colour)
    )
