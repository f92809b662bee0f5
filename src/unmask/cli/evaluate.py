"""unmask evaluate DATA --init RUN: measure a classifier on labelled images."""

from unmask.cli.arguments import parse, split_words
from unmask.config.schema_classify import LabelledDataConfig
from unmask.config.schema_use import EvaluateConfig

DESCRIPTION = (
    "Measures a classifier on labelled images: accuracy, calibration, every class, the surest mistakes. "
    "First words: the images, as for finetune. --init takes a run of finetune, probe or scratch, or a "
    "classifier of timm, Hugging Face or the reference. On the data of a run it gives the numbers that "
    "training ended with. --robustness a, r, sketch or c: the data are that variant of ImageNet."
)


def main(argv: list[str]) -> None:
    """Reads the arguments and prints the scores."""
    words, flags = split_words(argv)
    base = EvaluateConfig(data=LabelledDataConfig(source=tuple(words)))
    config = parse(base, flags, prog="unmask evaluate DATA", description=DESCRIPTION)

    from unmask import api
    from unmask.cli.tables import show_result

    show_result(api.evaluate(config))
