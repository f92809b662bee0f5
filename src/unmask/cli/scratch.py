"""unmask scratch DATA: what labels alone teach a new encoder."""

from unmask.cli.classify import run

DESCRIPTION = (
    "Trains a new encoder and head on labels alone (paper, Table 11): what pre-training has to beat."
)


def main(argv: list[str]) -> None:
    """Reads the arguments and hands over to the API."""
    run(argv, command="scratch", recipe="small-scratch", description=DESCRIPTION)
