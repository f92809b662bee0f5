"""The run of every training task, from request to report: the rooms in the order of the data."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor

from unmask.config.fields import check
from unmask.config.io import plain, to_json
from unmask.config.output import Before
from unmask.config.plan import Machine, Plan
from unmask.config.resolve import resolve
from unmask.data.bad_images import BadImageLog
from unmask.data.loader import Batches
from unmask.data.workers import lost_workers_named
from unmask.distributed.processes import Processes, connected
from unmask.engine.console import RunConsole
from unmask.engine.loop import train
from unmask.engine.machine import detect_machine
from unmask.engine.run_directory import RunDirectory, check_settings, opened
from unmask.engine.session import Session, TrainingState
from unmask.errors import Interrupted
from unmask.interop.description import Description, Weights
from unmask.interop.weights import check_model, write_model
from unmask.runs.fitted import fitted
from unmask.runs.known import changed, earlier_plan, finished_on, learn, remember, rounding_of
from unmask.runs.pages import last_summary, newest_values, write_pages
from unmask.runs.timed import Length, length_in_time, length_of, remove_leftovers, with_length
from unmask.storage import sealed
from unmask.tasks.base import BaseTask, Data
from unmask.units import counted


@dataclass(frozen=True)
class Prepared:
    """A run before its model is built."""

    data: Data
    plan: Plan
    init: Weights | None
    """Where the weights begin; None also if a checkpoint holds them."""
    changed: str = ""
    """Changes of the image files since the run began, in words."""
    differs: tuple[str, ...] = ()
    """What rounds otherwise than when the run last went on, in words."""


def run(task: BaseTask) -> Path:
    """Trains, or goes on where an earlier call was stopped; returns the run directory.

    Raises ValueError, DataError or CheckpointError with a fix; Interrupted after a signal.
    """
    began, machine = perf_counter(), detect_machine(task.config.run.device)
    path = task.path()
    with connected(machine.device) as processes:
        console = RunConsole(speaks=processes.is_main, metrics=task.metrics)
        task, decided = fitted(task, path, processes)
        if RunDirectory(path).model.exists():
            check_settings(RunDirectory(path), task.config, task.name)
            check_model(path)
            learned_from = finished_on(task, RunDirectory(path))
            console.say(f"nothing to do: {path} is finished{learned_from}; see {path / 'report.html'}")
            return path
        before = Before.of(path)
        with _run_directory(path, task, processes) as directory:
            with _removed_if_it_fails(before, directory, processes):
                console.log_to(directory.path / "train.log")
                for note in directory.notes:
                    console.say(note)
                prepared = prepare(task, machine, processes, directory, began, decided)
                differs = (*directory.differs, *prepared.differs)
                directory = replace(directory, changed=prepared.changed, differs=differs)
                announce(task, prepared, directory, processes, console)
                session = assemble(task, prepared, directory, processes, console)
            state = _train(task, session)
            if processes.is_main:
                _finish(task, session, state, prepared.data)
    return path


def dry_run(task: BaseTask) -> Plan:
    """What a run would do, without a run directory."""
    began, machine = perf_counter(), detect_machine(task.config.run.device)
    with connected(machine.device) as processes:
        return prepare_alone(task, machine, processes, began)[1].plan


def prepare_alone(
    task: BaseTask, machine: Machine, processes: Processes, began: float
) -> tuple[BaseTask, Prepared]:
    """The task as it is fitted to the images, and what `prepare` makes of it without a run directory."""
    task, decided = fitted(task, None, processes)
    return task, prepare(task, machine, processes, None, began, decided)


def prepare(
    task: BaseTask,
    machine: Machine,
    processes: Processes,
    directory: RunDirectory | None,
    began: float,
    decided: tuple[str, ...] = (),
) -> Prepared:
    """Finds the data, learns what was not given, and plans; a resumed run remembers.

    `began` is when, in time.perf_counter(): a --time counts from there. `decided` says what images and
    machine have decided.
    """
    check(task.config)
    earlier = earlier_plan(directory) if directory and directory.has_begun else None
    if earlier is None:
        task.check_start()
    init = task.read_init() if task.init and earlier is None else None
    data = task.find()
    processes.agree("list of images", data.fingerprint)
    if earlier is None:
        known = processes.from_main(learn(task, data, init) if processes.is_main else None)
    else:
        known = remember(earlier, data, task.init)

    def planned(config: Any) -> Plan:
        return resolve(config, **vars(known), machine=machine, world_size=processes.size)

    def assembled(trial: BaseTask, plan: Plan, folder: RunDirectory) -> Session:
        for _ in trial.check(plan, data):  # raises if settings do not fit together
            pass
        return assemble(trial, Prepared(data, plan, init), folder, processes, RunConsole(speaks=False))

    length: Length | None = None
    if task.config.run.time:
        length = (
            length_of(earlier) if earlier else length_in_time(task, planned, assembled, directory, began)
        )
    plan = planned(with_length(task.config, length))
    messages = (*decided, *task.check(plan, data), *plan.notes)
    plan = replace(plan, notes=(*messages, *((length.note,) if length and length.note else ())))
    processes.agree("configuration", to_json(task.config))
    processes.agree("plan", to_json(plan.training))
    change = processes.from_main(changed(plan.facts, data) if processes.is_main else None)
    return Prepared(data, plan, init, change, rounding_of(earlier, plan) if earlier else ())


def announce(
    task: BaseTask,
    prepared: Prepared,
    directory: RunDirectory,
    processes: Processes,
    console: RunConsole,
) -> None:
    """Logs the plan, and writes plan.json."""
    if processes.is_main:
        directory.write("plan.json", to_json(sealed(plain(prepared.plan))))
    for line in summary_of(task, prepared, directory.path):
        console.say(line)


def summary_of(task: BaseTask, prepared: Prepared, folder: Path) -> Iterator[str]:
    """What is trained on what, in the lines that begin a log and a dry run."""
    data, plan = prepared.data, prepared.plan
    t, f, image = plan.training, plan.facts, plan.image
    yield f"recipe {task.config.recipe or 'of your own'}; run directory {folder}"
    yield (
        f"{f.training_images} training images and {f.held_out_images} held out, "
        f"{counted(image.channels, 'channel')}, mean {_values(image.mean)}, std {_values(image.std)}"
    )
    yield from (*data.messages, *plan.notes)
    if data.training.licence_note:
        yield f"licence of the data: {data.training.licence_note}"
    yield (
        f"{t.steps} steps of {t.batch} images ({t.steps / t.steps_per_epoch:.4g} epochs) in "
        f"{counted(plan.processes, 'process')}, peak learning rate {t.lr:.3g}"
    )


def assemble(
    task: BaseTask,
    prepared: Prepared,
    directory: RunDirectory,
    processes: Processes,
    console: RunConsole,
    *,
    evaluates: bool = True,
) -> Session:
    """Builds the model and everything around it; without evaluators if it is only to be trained."""
    data, plan = prepared.data, prepared.plan
    model, messages = task.model(plan, prepared.init)
    messages = [*messages, *task.fit(model, plan, data)]
    for message in () if directory.has_begun else messages:
        console.say(message)
    return Session(
        task=task,
        model=model.to(processes.device).train(),
        evaluators=task.evaluators(plan, data) if evaluates else (),
        batches=batches_of(task, prepared, directory, processes, console),
        plan=plan,
        run=directory,
        processes=processes,
        console=console,
    )


def batches_of(
    task: BaseTask,
    prepared: Prepared,
    directory: RunDirectory,
    processes: Processes,
    console: RunConsole,
) -> Batches:
    """The micro-batches of each step of this process."""
    data, plan = prepared.data, prepared.plan
    bad_images = BadImageLog(
        directory.path / "bad_images.jsonl",
        images=len(data.training),
        max_share=plan.loading.max_bad_share,
    )
    return Batches(
        data.training,
        task.samples(plan, data),
        plan.image,
        loading=plan.loading,
        training=plan.training,
        rank=processes.rank,
        bad_images=bad_images,
        say=console.say,
    )


def _values(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


@contextmanager
def _run_directory(path: Path, task: BaseTask, processes: Processes) -> Iterator[RunDirectory]:
    """Opened and locked by the main process; the others wait until it is."""
    if not processes.is_main:
        processes.wait()
        yield RunDirectory(path)
        return
    with opened(path, task.config, task.name) as directory:
        remove_leftovers(path)
        processes.wait()
        yield directory


@contextmanager
def _removed_if_it_fails(
    before: Before, directory: RunDirectory, processes: Processes
) -> Iterator[None]:
    """A start that fails leaves no run directory behind; one that goes on from a checkpoint stays."""
    try:
        yield
    except BaseException:
        if processes.is_main and not directory.has_begun:
            before.restore()
        raise


def _train(task: BaseTask, session: Session) -> TrainingState:
    try:
        with lost_workers_named():
            return train(session)
    except Interrupted:
        if session.processes.is_main and session.run.has_begun:
            write_pages(task, session.run, session.plan, f"Stopped: {task.title.lower()}")
        raise


def _finish(task: BaseTask, session: Session, state: TrainingState, data: Data) -> None:
    """Writes model and report, and says where things are and what to type next."""
    directory, console, plan = session.run, session.console, session.plan
    weights: dict[str, Tensor] = session.model.state_dict()
    if state.average:
        weights = {**weights, **state.average.weights}
    write_pages(task, directory, plan, task.title)
    write_model(directory.path, weights, _description(task, plan, data, state.average is not None))
    console.say(f"finished. {last_summary(task, directory, plan)}")
    for sentence in task.shortfalls(newest_values(directory)):
        console.say(sentence)
    console.say(f"  report           {directory.path / 'report.html'}")
    licence = data.training.licence_note
    console.say(f"  model            {directory.model}" + (f" ({licence})" if licence else ""))
    for message in task.conclude(directory.path, state.step):
        console.say(message)


def _description(task: BaseTask, plan: Plan, data: Data, averaged: bool) -> Description:
    """model.json of the finished run."""
    return Description(
        model=plan.model,
        image=plan.image,
        precision=plan.training.precision,
        recipe=task.config.recipe,
        data=data.training.name,
        steps=plan.training.steps,
        weights="EMA" if averaged else "last step",
        licence_note=plan.licence_note,
    )
