"""One step of a run again: from the checkpoint before it, as the run took it, and seen from inside.

Nothing is written into the run directory. Steps are numbered as metrics.jsonl numbers them: the first is
1, and a checkpoint of step 20 holds the weights before step 21.
"""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unmask.config.commands import ReplayConfig
from unmask.config.fields import check
from unmask.config.keywords import with_setting
from unmask.config.plan import EarlierPlan, Plan
from unmask.config.resolve import resolve
from unmask.data.workers import lost_workers_named, never
from unmask.distributed.processes import Processes, connected
from unmask.engine import checkpoint
from unmask.engine.captured import captured_in, newest_captured
from unmask.engine.console import RunConsole
from unmask.engine.loop import as_module, count_step, take_step
from unmask.engine.machine import detect_machine
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory, differences
from unmask.engine.session import Session, TrainingState, check_loop, first_state, go_on_from
from unmask.engine.signals import StopRequest
from unmask.errors import CheckpointError
from unmask.runs.inside import look_inside
from unmask.runs.known import changed, earlier_plan, remember
from unmask.runs.replayed import Replayed, StepLoss, Walked, names_of, write_replay
from unmask.runs.run import Prepared, assemble
from unmask.runs.timed import length_of, with_length
from unmask.tasks import TASKS, find_task
from unmask.tasks.base import BaseTask
from unmask.use.results import results_in

Records = list[dict[str, Any]]


def run_replay(run: str | Path, config: ReplayConfig) -> Replayed:
    """Takes a step of a run again, and writes what happened in it to the folder --out.

    Raises ValueError, DataError or CheckpointError with a fix: for what is no run, a step that it does
    not have, images that have changed.
    """
    check(config)
    directory = RunDirectory(Path(run))
    task = task_of_run(directory, config)
    earlier = _plan_of(directory)
    records = read_metrics(directory)
    step, reason = _asked_step(config, directory, records, earlier)
    out = Path(config.out or f"runs/replay-{directory.path.resolve().name}-{step}")
    with results_in(out) as folder, connected(detect_machine(task.config.run.device).device) as here:
        prepared, notes = _prepared(task, directory, earlier, here)
        found, skipped = _checkpoint_before(directory, step)
        if found is None and task.init:
            prepared = replace(prepared, init=task.read_init())
        with TemporaryDirectory(prefix="unmask-replay-") as scratch, lost_workers_named():
            quiet = RunConsole(speaks=False)
            session = assemble(task, prepared, RunDirectory(Path(scratch)), here, quiet, evaluates=False)
            state = first_state(session)
            if found:
                go_on_from(found, session, state)
            walked = walk(session, state, step, records)
        replayed = Replayed(
            run=directory.path,
            step=step,
            reason=reason,
            start=found.step if found else 0,
            plan=prepared.plan,
            names=names_of(walked.inside, prepared.data.training),
            walked=walked,
            notes=(*notes, *skipped),
            path=folder,
        )
        write_replay(replayed, worst=config.worst)
    return replayed


def walk(session: Session, state: TrainingState, step: int, records: Records) -> Walked:
    """Takes the steps up to `step` as the run did, looks inside that one, and goes on to its record."""
    plan = session.training
    ends = min(plan.steps, -(-step // plan.log_every) * plan.log_every)
    record = next((one for one in records if one["step"] == ends and "loss" in one), None)
    last, module, stop = ends if record else step, as_module(session), StopRequest()
    window, inside, averages = list[StepLoss](), None, None
    console = RunConsole(speaks=True)
    with (
        console.progress(state.step, last),
        closing(session.batches.from_step(state.step, never)) as batches,
    ):
        while state.step < last:
            micro_batches = next(batches)
            if state.step == step - 1:
                inside = look_inside(session, state, micro_batches)
            reading = take_step(session, state, module, micro_batches, stop).measured()
            count_step(state, reading)
            console.step_done(state.step)
            window.append(StepLoss.of(state.step, reading))
            if state.step % plan.log_every == 0 or state.step == plan.steps:
                averages = state.meter.averages()
                if state.step < step:
                    window.clear()
    assert inside is not None
    return Walked(
        inside=inside,
        window=tuple(window),
        averages=averages if record else None,
        record=record,
    )


def task_of_run(directory: RunDirectory, config: ReplayConfig) -> BaseTask:
    """The task of a run as its config.json says. Raises CheckpointError if it holds no whole one."""
    values = directory.read("config.json")
    command = values.get("command") if isinstance(values, dict) else None
    if not isinstance(command, str) or command not in TASKS:
        what = "there is no config.json" if values is None else "its config.json names no command"
        raise CheckpointError(
            f"{directory.path} is no run that can be replayed ({what}): give the run directory of a "
            f"training command"
        )
    asked = directory.asked(find_task(command).config_class)
    if not asked.data.source:
        raise CheckpointError(f"{directory.path / 'config.json'} names no images: restore the file")
    if config.device is not None:
        asked = with_setting(asked, "run.device", config.device)
    return find_task(command)(replace(asked, out=str(directory.path)))


def _plan_of(directory: RunDirectory) -> EarlierPlan:
    """What plan.json holds. Raises CheckpointError if the run never began."""
    plan = earlier_plan(directory)
    if plan is None:
        raise CheckpointError(
            f"{directory.path} has no plan.json that says how long it trains: the run never began, or "
            f"the file is to be restored"
        )
    return plan


def _asked_step(
    config: ReplayConfig, directory: RunDirectory, records: Records, plan: EarlierPlan
) -> tuple[int, str]:
    """The step and, if it was captured, why. Raises ValueError if the run has no such step."""
    steps, every = plan.training.steps, plan.training.log_every
    captured = [one for one in captured_in(directory, records, every) if one.step <= steps]
    if config.step is None:
        newest = newest_captured(captured)
        if newest is None:
            raise ValueError(
                f"{directory.path} skipped no step and had no loss spike: write --step N for one of its "
                f"{steps} steps"
            )
        return newest.step, newest.reason
    if config.step > steps:
        raise ValueError(
            f"--step {config.step} is beyond the run {directory.path}, which has {steps} steps: write "
            f"--step N with N of 1 to {steps}"
        )
    return config.step, next((one.reason for one in captured if one.step == config.step), "")


def _prepared(
    task: BaseTask, directory: RunDirectory, earlier: EarlierPlan, here: Processes
) -> tuple[Prepared, tuple[str, ...]]:
    """The run as it was planned, and what is not as it was then, in sentences."""
    check(task.config)
    data = task.find()
    known = remember(earlier, data, task.init)
    config = with_length(task.config, length_of(earlier) if task.config.run.time else None)
    machine = detect_machine(config.run.device)
    plan = resolve(config, **vars(known), machine=machine, world_size=here.size)
    # Bad images are counted over a whole run, and this is a part of one.
    plan = replace(plan, loading=replace(plan.loading, max_bad_share=1.0))
    for _ in task.check(plan, data):  # a task may prepare itself there
        pass
    notes = [*differences(directory, task.config), *_other_plan(earlier, plan)]
    if change := changed(plan.facts, data):
        notes.append(change)
    return Prepared(data, plan, None), tuple(notes)


def _other_plan(earlier: EarlierPlan, plan: Plan) -> list[str]:
    """What rounds otherwise than in the run, in words."""
    was, now = vars(earlier.training), vars(plan.training)
    found = [
        f"{name.replace('_', ' ')} {was[name]} then, {now[name]} now"
        for name in ("device", "precision", "compile", "micro_batch")
        if was[name] not in (None, now[name])
    ]
    if earlier.processes not in (None, 1):
        found.append(f"{earlier.processes} processes then, one now")
    return found


def _checkpoint_before(
    directory: RunDirectory, step: int
) -> tuple[checkpoint.Checkpoint | None, list[str]]:
    """The newest whole checkpoint before a step, None for the start; and those skipped, in words.

    Unlike a run that goes on, it leaves broken ones where they are.
    """
    passed: list[str] = []
    for at, path in reversed(checkpoint.steps_in(directory.checkpoints)):
        if at >= step:
            continue
        try:
            found = checkpoint.read(path)
            check_loop(found)
        except CheckpointError as error:
            passed.append(f"the checkpoint of step {at} is skipped: {error}")
            continue
        return found, passed
    return None, passed
