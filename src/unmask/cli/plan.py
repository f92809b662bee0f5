"""unmask plan: what a pre-training run would take elsewhere."""

from dataclasses import dataclass, fields, replace

from unmask.bench.predict import DECODE_MS
from unmask.bench.setting import IMAGENET_IMAGES
from unmask.cli.arguments import parse, take_value
from unmask.config.schema import PretrainConfig
from unmask.recipes import pretrain_recipe

DESCRIPTION = (
    "Hours, memory and loader cores of a pre-training run, by arithmetic; nothing is trained, no data "
    "is needed. --recipe NAME: what to begin with (vit-large-800); every flag of unmask pretrain "
    "overrides it. The last line is JSON."
)


@dataclass(frozen=True, kw_only=True)
class PlanFlags(PretrainConfig):
    """A pre-training run, and where it would run."""

    devices: str = "8xh100"
    """How many of which: 8xh100, 64xa100, l4, ...; cpu or cuda measures this machine."""
    images: int = IMAGENET_IMAGES
    """Training images. Default: ImageNet-1K's."""
    utilisation: float | None = None
    """Share of the devices' peak that training reaches. Default: 0.4, or 0.5 of what cpu measures."""
    decode_ms: float = DECODE_MS
    """Milliseconds of one core per decoded image. Default: about what a JPEG of 500 x 375 takes."""


def main(argv: list[str]) -> None:
    """Prints the prediction, and a line of JSON."""
    name = take_value(argv, "--recipe") or "vit-large-800"
    recipe = replace(pretrain_recipe(name), recipe=name)
    base = PlanFlags(**{field.name: getattr(recipe, field.name) for field in fields(recipe)})
    asked = parse(base, argv, prog="unmask plan", description=DESCRIPTION)

    from unmask import api
    from unmask.bench.card import show
    from unmask.bench.predict_card import prediction_cards

    predicted = api.plan(
        asked,
        devices=asked.devices,
        images=asked.images,
        utilisation=asked.utilisation,
        decode_ms=asked.decode_ms,
    )
    show(prediction_cards(predicted))
