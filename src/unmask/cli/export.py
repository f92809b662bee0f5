"""unmask export RUN --to LAYOUT: write a model in another library's layout."""

from dataclasses import dataclass
from typing import Literal

from unmask.cli.arguments import parse, split_words

DESCRIPTION = (
    "Writes the model of a run in another layout with a model card, reads it back with the library that "
    "it is for, and prints the largest difference between both models' outputs. First word: a run "
    "directory, a hub folder or a file of weights."
)


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """The flags of `unmask export`."""

    to: Literal["official", "safetensors", "timm", "hf"] = "official"
    """The layout: the reference's .pth; one safetensors file; a folder for timm, or for transformers."""
    out: str | None = None
    """The file or folder to write. Default: beside the model."""


def main(argv: list[str]) -> None:
    """Reads the arguments and prints the difference, and how to load the result."""
    words, flags = split_words(argv)
    asked = parse(ExportFlags(), flags, prog="unmask export RUN", description=DESCRIPTION)
    if len(words) != 1:
        raise ValueError("export takes one run: write unmask export RUN --to timm")

    from unmask import api

    done = api.export(words[0], to=asked.to, out=asked.out)
    how_far = f"its outputs differ from the source's by {done.difference:.3g} at most"
    print(f"wrote {done.path}; read back, {how_far}")
    print(f"load it with: {done.line}")
