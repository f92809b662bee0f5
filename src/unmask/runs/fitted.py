"""What images and machine decide of a run, as `unmask check` advises, before anything is written."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unmask.config.advice import Advice
from unmask.config.commands import FITTED, PretrainConfig
from unmask.config.fields import check, settings_of
from unmask.config.keywords import with_setting
from unmask.data.sources.find import find_images
from unmask.distributed.processes import Processes
from unmask.engine.run_directory import RunDirectory, check_settings
from unmask.errors import CheckpointError, DataError
from unmask.tasks.base import BaseTask
from unmask.use.advise import fit_to_images, fit_to_machine, plan_here, reading_here, usual_patches


def fitted(task: BaseTask, path: Path | None, processes: Processes) -> tuple[BaseTask, tuple[str, ...]]:
    """The task with every setting that it leaves to the images, and messages on how they were chosen.

    A run that has begun in its directory keeps its own. All processes get what the main one chose.
    """
    config = task.config
    if not getattr(config, "fit", ()):
        return task, ()
    check(config)
    directory = RunDirectory(path) if path and path.exists() else None
    if directory and (directory.has_begun or directory.model.exists()):
        return type(task)(_as_before(config, directory)), ()
    if directory:
        check_settings(directory, config, task.name)  # a foreign folder is refused without a look
    config = replace(config, fit=_left_open(task))
    config, messages = processes.from_main(_chosen(config) if processes.is_main else None)
    return type(task)(config), messages


def of_equal_length(
    tasks: Sequence[BaseTask], base: BaseTask, paths: Sequence[Path], processes: Processes
) -> list[BaseTask]:
    """Runs to compare, with as many steps for all that leave these to the machine: its speed varies.

    As many as an earlier one in `paths` has, or as the machine does of `base`.
    """
    if not any("steps" in getattr(task.config, "fit", ()) for task in tasks):
        return list(tasks)
    begun = [path for path in paths if (path / "config.json").exists()]
    first, _ = fitted(base, begun[0] if begun else None, processes)
    steps = first.config.optim.steps
    return [_with_steps(task, steps) if "steps" in task.config.fit else task for task in tasks]


def _with_steps(task: BaseTask, steps: int) -> BaseTask:
    fit = tuple(name for name in task.config.fit if name != "steps")
    return type(task)(with_setting(replace(task.config, fit=fit), "optim.steps", steps))


def _as_before(config: Any, directory: RunDirectory) -> Any:
    """With what an earlier part of the run chose; as it is if that is no run of this command."""
    try:
        theirs = {one.name: one.value for one in settings_of(directory.asked(type(config)))}
    except CheckpointError:
        return config  # whoever compares the settings says what is wrong with the file
    for name in (one for part in config.fit for one in FITTED[part]):
        config = with_setting(config, name, theirs[name])
    return replace(config, fit=())


def _left_open(task: BaseTask) -> tuple[str, ...]:
    """What is to be fitted, without what a recipe of the user's own set differently from ours."""
    config, recipe = task.config, task.recipes.get(task.config.recipe)
    usual = {one.name: one.value for one in settings_of(recipe())} if recipe else {}
    own = {one.name for one in settings_of(config) if usual.get(one.name, one.value) != one.value}
    return tuple(part for part in config.fit if own.isdisjoint(FITTED[part]))


def _chosen(config: PretrainConfig) -> tuple[PretrainConfig, tuple[str, ...]]:
    """The configuration with nothing left open; as it was if nothing can be read: the run says why."""
    d, usual = config.data, replace(config, fit=())
    try:
        images = find_images(d.source, root=d.root, download=d.download)
        found = fit_to_images(config, images)
        one = found.config
        if "steps" in config.fit:
            plan = plan_here(one, images, found.measured)
            if plan.training.device == "cpu":
                one = fit_to_machine(one, reading_here(one, images, plan))
    except DataError:
        return usual, ()
    return replace(one, fit=()), (" ".join(_messages(config, one, found.advice)),)


def _messages(asked: PretrainConfig, chosen: PretrainConfig, advice: Advice | None) -> Iterator[str]:
    """What was looked at, what was chosen, and what wins over that."""
    words, flags = [], []
    if "size" in asked.fit:
        words.append(f"{' x '.join(map(str, chosen.data.size))} pixels")
        flags.append("--data.size")
    if "patch" in asked.fit:
        patch = " x ".join(map(str, usual_patches(chosen)))
        words.append(f"patches of {patch}, {100 * chosen.mask.ratio:.0f} % masked")
        flags += ["--model.patch", "--mask.ratio"]
    if "steps" in asked.fit:
        words.append(f"{chosen.optim.steps} steps")
        flags.append("--optim.steps")
    if not words:
        return
    if advice:
        yield f"{advice.finding};"
    elif "patch" in asked.fit:
        yield "the images do not say which patches suit them;"
    yield f"chosen: {', '.join(words)} (explicit {', '.join(flags)} win)"
