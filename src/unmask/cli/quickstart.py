"""unmask quickstart: from the images of the embedded example to a classifier."""

from unmask.cli.arguments import parse
from unmask.config.schema import QuickstartConfig

DESCRIPTION = (
    "Pre-trains a small model on 1,967 photographs of solar cells without their labels, then tells "
    "defective cells from functional ones on 657 others: by a linear probe, by fine-tuning, and from "
    "scratch to compare with. Under fifteen minutes on two processor cores; running it again resumes. "
    "Photographs: ELPV, CC BY-NC-SA 4.0."
)


def main(argv: list[str]) -> None:
    """Four runs with everything decided."""
    config = parse(QuickstartConfig(), argv, prog="unmask quickstart", description=DESCRIPTION)

    from unmask import api

    api.quickstart(config)
