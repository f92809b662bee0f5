"""What a file of weights may not say of its model."""

from dataclasses import dataclass

from unmask.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class InitModel:
    """What a file of weights may not state."""

    heads: int | None = setting(None, least=1)
    """Attention heads of the encoder, if its file does not say them. Default: the usual number for its
    width, with a note."""
