"""unmask embed DATA --init RUN: features of images, in a file."""

from dataclasses import replace

from unmask.cli.arguments import parse, split_words
from unmask.config.schema import EmbedConfig

DESCRIPTION = (
    "Writes a feature per image, unmasked and in the order of the data. First words: the images, as "
    "for pretrain. --init takes whatever unmask load takes: a run, the reference's, timm's or Hugging "
    "Face's weights."
)
SHOWN = 10


def main(argv: list[str]) -> None:
    """Reads the arguments and says what was written."""
    words, flags = split_words(argv)
    base = EmbedConfig(source=tuple(words))
    config = parse(base, flags, prog="unmask embed DATA", description=DESCRIPTION)

    from unmask import api

    written = api.embed(replace(config, source=config.source or tuple(words)))
    for note in written.notes:
        print(f"note: {note}")
    for bad in written.bad[:SHOWN]:
        print(f"left out: {bad.path!r}: {bad.reason}")
    print(f"wrote features of {written.images} images to {written.path}, {len(written.bad)} left out")
