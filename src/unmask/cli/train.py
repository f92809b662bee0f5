"""unmask pretrain, finetune, ...: a recipe, flags over it, and one run or several."""

from dataclasses import replace
from typing import Any

from unmask.cli.arguments import (
    parse,
    refuse_removed,
    settings_in,
    take_switch,
    take_value,
    with_full_names,
)
from unmask.cli.processes import is_main_process
from unmask.cli.sweeps import flags_of, take_sweep
from unmask.config.io import to_json
from unmask.config.keywords import in_epochs, without_fit
from unmask.config.migrate import config_record
from unmask.tasks import TASKS, find_recipe

COMMON = """\
DATA may stand before or after the flags.
  --recipe NAME                  start from a set of defaults (see unmask list); flags override it
  --time 10m                     train for as many steps as fit into this time
  --seeds 0,1,2                  a run for each seed, and a comparison
  --sweep section.field v1,v2    a run for each value, and a comparison
  --dry-run                      say how long it takes and what it needs; train nothing
  --dry-run --json               the whole plan, for programs
  --print-config                 the configuration, as JSON

Running the same command again resumes exactly where it stopped.
"""


def main(command: str, argv: list[str]) -> None:
    """Reads the arguments and hands over to the API."""
    flags, entry = list(argv), TASKS[command]
    dry, printing = take_switch(flags, "--dry-run"), take_switch(flags, "--print-config")
    if (as_json := take_switch(flags, "--json")) and not dry:
        raise ValueError(f"--json is of a dry run: write unmask {command} DATA --dry-run --json")
    base = find_recipe(command, take_value(flags, "--recipe") or entry.recipe)
    flags = with_full_names(flags)
    refuse_removed(command, flags)
    sweep = take_sweep(flags)

    def configured(more: list[str]) -> Any:
        asked = settings_in([*flags, *more])
        config, words = parse(
            without_fit(in_epochs(base, asked), asked),
            [*flags, *more],
            prog=f"unmask {command} DATA",
            description=f"{entry.description}\n\n{COMMON}",
        )
        return replace(config, data=replace(config.data, source=tuple(words))) if words else config

    config = configured([])
    if printing:
        print(to_json(config_record(config, command)), end="")
        return
    stages = [(settings, configured(flags_of(settings, base))) for settings in sweep]

    from unmask.runs.run import run
    from unmask.runs.study import run_sweep

    task = entry.load()
    runs = [(settings, task(one)) for settings, one in stages]
    if dry:
        _show_dry_run(task(config), runs, as_json=as_json)
    elif runs:
        run_sweep(runs, base=task(config))
    else:
        run(task(config))


def _show_dry_run(task: Any, runs: list[tuple[dict[str, str], Any]], *, as_json: bool) -> None:
    """In sentences; or as JSON, with the plan of each run of a sweep by its name."""
    from unmask.runs.estimate import estimate, estimate_sweep, summary_of_sweep
    from unmask.runs.run import dry_run
    from unmask.runs.study import plan_sweep

    if as_json:
        shown = to_json(plan_sweep(runs, base=task) if runs else dry_run(task))
    elif runs:
        shown = "\n".join([*summary_of_sweep(estimate_sweep(runs, base=task)), ""])
    else:
        shown = "\n".join([*estimate(task).messages(), ""])
    if is_main_process():
        print(shown, end="")
