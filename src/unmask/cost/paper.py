"""The paper's Table 2: hours of pre-training, and the models that they are of."""

from dataclasses import dataclass, replace
from typing import Literal

from unmask.core.spec import MAESpec
from unmask.cost.count import count
from unmask.cost.devices import DEVICES
from unmask.cost.setting import IMAGENET_IMAGES, autoencoder_of, named_model

EPOCHS, CORES = 800, 128


@dataclass(frozen=True, kw_only=True)
class TimedRun:
    """A row of Table 2; the device is 128 TPU-v3 cores."""

    encoder: Literal["large", "huge"]
    mask_tokens: bool
    decoder_depth: int
    hours: float
    speedup: float | None
    estimated: bool = False
    """By the authors, from ten epochs."""

    @property
    def name(self) -> str:
        return variant_name(self.encoder, self.mask_tokens, self.decoder_depth)

    def utilisation(self) -> float:
        """The share of the cores' peak that these hours imply for our count of operations."""
        spec = variant_of(of_model(self.encoder), self.mask_tokens, self.decoder_depth)
        operations = count(spec).training_flops * IMAGENET_IMAGES * EPOCHS
        return operations / (CORES * DEVICES["tpu-v3"].peak("bf16") * self.hours * 3600)


TABLE_2 = (
    TimedRun(encoder="large", mask_tokens=True, decoder_depth=8, hours=42.4, speedup=None),
    TimedRun(encoder="large", mask_tokens=False, decoder_depth=8, hours=15.4, speedup=2.8),
    TimedRun(encoder="large", mask_tokens=False, decoder_depth=1, hours=11.6, speedup=3.7),
    TimedRun(
        encoder="huge", mask_tokens=True, decoder_depth=8, hours=119.6, speedup=None, estimated=True
    ),
    TimedRun(encoder="huge", mask_tokens=False, decoder_depth=8, hours=34.5, speedup=3.5),
    TimedRun(encoder="huge", mask_tokens=False, decoder_depth=1, hours=29.3, speedup=4.1),
)

VARIANTS = ((True, 8), (False, 8), (False, 1))
"""Mask tokens in the encoder, and blocks of the decoder; the first is what others are compared with."""


def of_model(name: str) -> MAESpec:
    """The named model, for colour images."""
    return autoencoder_of(named_model(name))


def variant_of(spec: MAESpec, mask_tokens: bool, decoder_depth: int) -> MAESpec:
    """The same model with or without mask tokens in its encoder, and with another decoder."""
    return replace(
        spec,
        mask=replace(spec.mask, tokens_in_encoder=mask_tokens),
        decoder=replace(spec.decoder, depth=decoder_depth),
    )


def variant_name(model: str, mask_tokens: bool, decoder_depth: int) -> str:
    """As the table writes it: w/ [M] for mask tokens in the encoder."""
    return f"{model}{', w/ [M]' if mask_tokens else ''}, decoder {decoder_depth}"


def published_speedup(model: str, mask_tokens: bool, decoder_depth: int) -> float | None:
    """The paper's, if it has this row and the row is a speed-up."""
    wanted = (model, mask_tokens, decoder_depth)
    rows = (r for r in TABLE_2 if (r.encoder, r.mask_tokens, r.decoder_depth) == wanted)
    return next((r.speedup for r in rows), None)
