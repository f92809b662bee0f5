"""What finetune, probe and scratch share: a recipe, flags over it, and one run or several."""

from dataclasses import replace

from unmask.cli.arguments import full_flag, in_epochs, parse, split_words, take_switch, take_value
from unmask.cli.sweeps import flags_of, take_sweep
from unmask.config.io import to_json
from unmask.config.schema_classify import ClassifyConfig
from unmask.recipes import classify_recipe

DATA_AND_FLAGS = (
    "First words: the labelled images: folders of class folders, a list with a column of labels, or a "
    "data set by name. --recipe NAME: what to begin with (unmask list shows them); every flag below "
    "overrides it. --sweep section.field v1,v2: a run for each value, the best chosen on validation. "
    "--seeds a,b,c: a run for each seed. --dry-run: say what would happen. --print-config: print the "
    "configuration as JSON. Running the same command again resumes exactly."
)


def run(argv: list[str], *, command: str, recipe: str, description: str) -> None:
    """Reads the arguments and hands over to the API."""
    words, flags = split_words(argv)
    dry, printing = take_switch(flags, "--dry-run"), take_switch(flags, "--print-config")
    name = take_value(flags, "--recipe") or recipe
    flags = [full_flag(word) for word in flags]
    sweep = take_sweep(flags)
    base = replace(classify_recipe(name), recipe=name)
    if words:
        base = replace(base, data=replace(base.data, source=tuple(words)))

    def configured(more: list[str]) -> ClassifyConfig:
        shown = f"{description} {DATA_AND_FLAGS}"
        words = [*flags, *more]
        return parse(in_epochs(base, words), words, prog=f"unmask {command} DATA", description=shown)

    config = configured([])
    if printing:
        print(to_json(config), end="")
        return

    from unmask import api

    if dry:
        print(to_json(api.plan_classification(config, command)), end="")
    elif sweep:
        runs = [(settings, configured(flags_of(settings))) for settings in sweep]
        api.sweep_classification(runs, command)
    else:
        api.classify(config, command)
