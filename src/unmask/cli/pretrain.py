"""unmask pretrain DATA: masked autoencoding on any folder of images."""

from dataclasses import replace

from unmask.cli.arguments import in_epochs, parse, split_words, take_switch, take_value, with_source
from unmask.config.io import to_json
from unmask.recipes import pretrain_recipe

DESCRIPTION = (
    "Masked autoencoding on any nested folder of images, no labels needed. "
    "First words: the folder or folders, or elpv. "
    "--recipe NAME: what to begin with (unmask list shows them); every flag below overrides it. "
    "--dry-run: say what would happen. --print-config: print the configuration as JSON. "
    "Running the same command again resumes exactly."
)


def main(argv: list[str]) -> None:
    """Reads the arguments and hands over to the API."""
    words, flags = split_words(argv)
    dry, printing = take_switch(flags, "--dry-run"), take_switch(flags, "--print-config")
    name = take_value(flags, "--recipe") or "laptop"
    base = with_source(replace(pretrain_recipe(name), recipe=name), words)
    config = parse(in_epochs(base, flags), flags, prog="unmask pretrain DATA", description=DESCRIPTION)
    if printing:
        print(to_json(config), end="")
        return

    from unmask import api

    if dry:
        print(to_json(api.plan_pretraining(config)), end="")
        return
    api.pretrain(config)
