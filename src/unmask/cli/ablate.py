"""unmask ablate: one of the paper's questions, asked of one's own images."""

from dataclasses import replace

from unmask.cli.arguments import parse
from unmask.config.ablation import AblateConfig

DESCRIPTION = (
    "Compares values of one setting of pre-training, as the paper's tables do, on your own images: for "
    "each value and seed it pre-trains an encoder and evaluates it by k-NN, a linear probe and "
    "fine-tuning if there are labels, and always by the error on held-out images and the effective "
    "rank. The report has the paper's own figures beside yours, and says which differences are "
    "significant. Running the same command again resumes; --part 1/4 does a quarter of the runs."
)
LISTS = ("--values", "--seeds")
"""Flags whose values have commas between them."""


def main(argv: list[str]) -> None:
    """Reads the arguments and hands over to the API, which says what happens."""
    config, words = parse(
        AblateConfig(), without_commas(argv), prog="unmask ablate DATA", description=DESCRIPTION
    )
    if words:
        config = replace(config, data=replace(config.data, source=tuple(words)))

    from unmask import api

    api.ablate(config)


def without_commas(argv: list[str]) -> list[str]:
    """`--seeds 0,1,2` or `--seeds=0,1,2` as `--seeds 0 1 2`; other words as they are."""
    words: list[str] = []
    for word in argv:
        flag, equals, value = word.partition("=")
        if flag in LISTS and equals:
            words += [flag, *filter(None, value.split(","))]
        elif words and _is_listed(words):
            words += filter(None, word.split(",")) if not word.startswith("-") else [word]
        else:
            words.append(word)
    return words


def _is_listed(words: list[str]) -> bool:
    """Whether the last flag is one of a list."""
    return next((word for word in reversed(words) if word.startswith("--")), "") in LISTS
