"""Any task of the registry by name and keywords: one run, or several that are compared."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from unmask.config.fields import check as check_settings
from unmask.config.keywords import name_of, swept_name, with_named, with_setting
from unmask.config.plan import Plan
from unmask.runs.run import dry_run as plan_run
from unmask.runs.run import run
from unmask.runs.study import Study, plan_sweep, run_sweep
from unmask.tasks import TASKS, find_recipe, find_task


def train(
    command: str,
    data: Any,
    *,
    recipe: str | None = None,
    dry_run: bool = False,
    seeds: Sequence[int] | None = None,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    **settings: Any,
) -> Path | Plan | Study | dict[str, Plan]:
    """Trains any task of the registry; `pretrain` and its like say what the arguments mean."""
    task = find_task(command)
    base = data
    if not isinstance(data, task.config_class):
        base = find_recipe(command, recipe or TASKS[command].recipe)
        base = with_setting(base, "data.source", data)
    named = {name_of(base, keyword): value for keyword, value in settings.items()}
    config = with_named(base, named)
    check_settings(config)
    axes = {**(sweep or {}), **({"run.seed": seeds} if seeds is not None else {})}
    if not axes:
        return plan_run(task(config)) if dry_run else run(task(config))
    fields = [swept_name(config, name) for name in axes]
    for name, values in axes.items():
        _check_swept(name, values)
    runs = []
    for values in product(*axes.values()):
        one = with_named(base, {**named, **dict(zip(fields, values, strict=True))})
        check_settings(one)
        runs.append((dict(zip(fields, map(_word, values), strict=True)), task(one)))
    return plan_sweep(runs, base=task(config)) if dry_run else run_sweep(runs, base=task(config))


def _check_swept(name: str, values: Any) -> None:
    several = isinstance(values, Sequence) and not isinstance(values, str)
    if not several or not values or len(set(map(_word, values))) < len(values):
        example = "seeds=[0, 1]" if name == "run.seed" else f"sweep={{{name!r}: [...]}}"
        raise ValueError(
            f"several runs need different values in a list, as in {example}, and got {values!r}"
        )


def _word(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
