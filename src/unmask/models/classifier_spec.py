"""Specs of an encoder alone and of a classifier: records without torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unmask.core.spec import ViTSpec, register

if TYPE_CHECKING:
    from unmask.core.vit import VisionTransformer
    from unmask.models.classifier import Classifier

HeadPool = Literal["class", "mean"]


@register("encoder")
@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder without decoder or head."""

    encoder: ViTSpec
    final_norm: bool = True
    """False if the norm stood behind a classifier's pooling: features are the last block's."""

    def build(self) -> "VisionTransformer":
        """The encoder, freshly drawn from torch's global generator."""
        from torch import nn

        model = self.encoder.build()
        if not self.final_norm:
            model.norm = nn.Identity()  # type: ignore[assignment]
        return model


@register("classifier")
@dataclass(frozen=True, kw_only=True)
class ClassifierSpec:
    """A linear classifier on an encoder."""

    encoder: ViTSpec
    classes: tuple[str, ...]
    """Names, in the order of the outputs."""
    pool: HeadPool
    batch_norm: bool = False
    """Whether features are normalised before the head: the linear probe's (Table 10)."""
    named: bool = True
    """False if the names are numbers that stand in for unknown ones: they match no class by name."""

    def __post_init__(self) -> None:
        if self.pool not in ("class", "mean"):
            raise ValueError(f"a head pools 'class' or 'mean', not {self.pool!r}")

    @property
    def final_norm(self) -> bool:
        """Whether the encoder's own final norm is used: not if a norm follows the pooling."""
        return self.pool == "class"

    def build(self) -> "Classifier":
        """The classifier, freshly drawn from torch's global generator."""
        return self.around(self.encoder.build())

    def around(self, encoder: "VisionTransformer") -> "Classifier":
        """The classifier on a given encoder, which becomes part of it; the rest is freshly drawn."""
        from unmask.models.classifier import Classifier

        return Classifier(
            encoder,
            classes=len(self.classes),
            pool=self.pool,
            normalize_features=self.batch_norm,
        )
