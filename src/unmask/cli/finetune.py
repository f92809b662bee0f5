"""unmask finetune DATA --init RUN: train an encoder and a new head on labels."""

from unmask.cli.classify import run

DESCRIPTION = (
    "Trains a pre-trained encoder and a new head on labelled images. --tune-blocks K tunes the last K"
    " blocks alone; 0.5 is half a block."
)


def main(argv: list[str]) -> None:
    """Reads the arguments and hands over to the API."""
    run(argv, command="finetune", recipe="small-data", description=DESCRIPTION)
