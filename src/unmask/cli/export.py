"""unmask export RUN --to official: write a model in another library's layout."""

from dataclasses import dataclass
from typing import Literal

from unmask.cli.arguments import parse, split_words

DESCRIPTION = (
    "Writes the model of a run in another layout, reads it back, and prints the largest difference "
    "between both models' outputs. First word: a run directory or a file of weights."
)


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """The flags of `unmask export`."""

    to: Literal["official"] = "official"
    """The layout: official is the reference implementation's .pth."""
    out: str | None = None
    """The file to write. Default: beside the model."""


def main(argv: list[str]) -> None:
    """Reads the arguments and prints the difference."""
    words, flags = split_words(argv)
    asked = parse(ExportFlags(), flags, prog="unmask export RUN", description=DESCRIPTION)
    if len(words) != 1:
        raise ValueError("export takes one run: write unmask export RUN --to official")

    from unmask import api

    path, difference = api.export(words[0], to=asked.to, out=asked.out)
    print(f"wrote {path}; read back, its outputs differ from the source's by {difference:.3g} at most")
