"""unmask knn DATA --init RUN: classify by the nearest features, without training."""

from unmask.cli.arguments import parse, split_words
from unmask.config.schema_classify import LabelledDataConfig
from unmask.config.schema_use import KnnConfig

DESCRIPTION = (
    "Classifies validation images by the nearest training images in the features of a frozen model, and "
    "by a linear probe of the same features. First words: the images, as for finetune. --init takes "
    "whatever unmask load takes. --baselines: pixels and a random encoder as well."
)


def main(argv: list[str]) -> None:
    """Reads the arguments and prints the table."""
    words, flags = split_words(argv)
    base = KnnConfig(data=LabelledDataConfig(source=tuple(words)))
    config = parse(base, flags, prog="unmask knn DATA", description=DESCRIPTION)

    from unmask import api
    from unmask.cli.tables import show_result

    show_result(api.knn(config))
