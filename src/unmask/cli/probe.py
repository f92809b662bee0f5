"""unmask probe DATA --init RUN: a linear classifier on a frozen encoder."""

from unmask.cli.classify import run

DESCRIPTION = "Trains a linear classifier on the frozen encoder's features (paper, Table 10)."


def main(argv: list[str]) -> None:
    """Reads the arguments and hands over to the API."""
    run(argv, command="probe", recipe="small-probe", description=DESCRIPTION)
