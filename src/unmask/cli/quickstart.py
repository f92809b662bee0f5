"""unmask quickstart: pre-train on the embedded example and show what the model learned."""

from dataclasses import replace

from unmask.cli.arguments import parse
from unmask.recipes import pretrain_recipe

DESCRIPTION = (
    "Pre-trains a small model on 2,624 photographs of solar cells (ELPV, CC BY-NC-SA 4.0) in a few "
    "minutes and reconstructs cells that it has never seen."
)


def main(argv: list[str]) -> None:
    """A pretrain run with everything decided."""
    base = pretrain_recipe("quickstart")
    base = replace(base, out="runs/quickstart", data=replace(base.data, source=("elpv",)))
    config = parse(base, argv, prog="unmask quickstart", description=DESCRIPTION)

    from unmask import api

    api.pretrain(config)
