"""unmask ablate: one of the paper's ablations on your own images."""

import json
from dataclasses import replace

from unmask.cli.arguments import parse, take_switch
from unmask.cli.processes import is_main_process
from unmask.config.ablation import AblateConfig

DESCRIPTION = (
    "Compares values of one setting of pre-training, as the paper's tables do, on your own images: for "
    "each value and seed it pre-trains an encoder and evaluates it by k-NN, a linear probe and "
    "fine-tuning if there are labels, and always by the error on held-out images and the effective "
    "rank. The report has the paper's own figures beside yours, and says which differences are "
    "significant. Running the same command again resumes; --part 1/4 does a quarter of the runs. "
    "--json, with --dry-run: the estimate for programs."
)
LISTS = ("--values", "--seeds")
"""Flags whose values have commas between them."""


def main(argv: list[str]) -> None:
    """Reads the arguments and hands over to the API, which says what happens."""
    flags = list(argv)
    as_json = take_switch(flags, "--json")
    config, words = parse(
        AblateConfig(), without_commas(flags), prog="unmask ablate DATA", description=DESCRIPTION
    )
    if words:
        config = replace(config, data=replace(config.data, source=tuple(words)))

    if as_json and not config.dry_run:
        raise ValueError("--json is of a dry run: write unmask ablate DATA --dry-run --json")
    if as_json:
        _print_as_json(config)
        return

    from unmask import api

    api.ablate(config)


def _print_as_json(config: AblateConfig) -> None:
    """What the runs take, as one object."""
    from unmask.runs.ablate import run_ablation
    from unmask.runs.ablation_cost import AblationEstimate

    estimate = run_ablation(config, say=lambda sentence: None)
    assert isinstance(estimate, AblationEstimate)
    if is_main_process():
        print(json.dumps(estimate.record(), indent=2))


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
