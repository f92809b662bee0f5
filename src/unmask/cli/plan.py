"""unmask plan: what a pre-training run would take elsewhere."""

from unmask.cli.arguments import parse, refuse_removed, settings_in, take_value
from unmask.config.keywords import in_epochs, with_sections
from unmask.config.planning import PlanConfig
from unmask.recipes.pretrain import PRETRAIN
from unmask.tasks import find_recipe

DESCRIPTION = (
    "Hours, memory and loader cores of a pre-training run, by arithmetic; nothing is trained, no data "
    "is needed. --recipe NAME: what to begin with (vit-large-800); every flag below overrides it. The "
    "last line is JSON."
)


def main(argv: list[str]) -> None:
    """Prints the prediction, and a line of JSON."""
    flags = list(argv)
    recipe = find_recipe("pretrain", take_value(flags, "--recipe") or "vit-large-800")
    refuse_removed("plan", flags)
    base = in_epochs(with_sections(PlanConfig(), recipe), settings_in(flags))
    asked, words = parse(base, flags, prog="unmask plan", description=DESCRIPTION)
    if words and words[0] in PRETRAIN:
        raise ValueError(f"plan takes a recipe by its flag: write unmask plan --recipe {words[0]}")
    if words:
        raise ValueError(f"plan needs no data and got {' '.join(words)}: leave it out")

    from unmask import api
    from unmask.cost.cards import show
    from unmask.cost.predict_card import prediction_cards

    show(prediction_cards(api.plan(asked)))
