"""unmask reconstruct IMAGES --init RUN: show what a model makes of masked images."""

from dataclasses import replace

from unmask.cli.arguments import parse, split_words
from unmask.config.schema import ReconstructConfig

DESCRIPTION = (
    "Draws original, masked image, reconstruction, and reconstruction with the visible patches "
    "pasted in, at one mask ratio and as a strip over 75 to 95 %. First words: folders or files."
)


def main(argv: list[str]) -> None:
    """Reads the arguments and says where the pictures are."""
    words, flags = split_words(argv)
    base = ReconstructConfig(source=tuple(words))
    config = parse(base, flags, prog="unmask reconstruct IMAGES", description=DESCRIPTION)

    from unmask import api

    source = config.source or tuple(words)
    for path in api.reconstruct(replace(config, source=source)):
        print(path)
