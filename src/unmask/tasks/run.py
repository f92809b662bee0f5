"""The run of every training command, from request to report: the rooms in the order of the data."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from unmask.config.io import from_dict, to_json
from unmask.config.plan import DataFacts, DataPlan, Machine, TrainingPlan
from unmask.data.bad_images import BadImageLog
from unmask.data.images import Images
from unmask.data.loader import Batches, lost_workers_named
from unmask.distributed.processes import Processes, connected
from unmask.engine.console import RunConsole
from unmask.engine.loop import train
from unmask.engine.machine import detect_machine
from unmask.engine.run_directory import RunDirectory, check_settings, opened
from unmask.engine.session import Session, TrainingState
from unmask.engine.task import Task
from unmask.errors import DataError, Interrupted
from unmask.interop.description import Description
from unmask.interop.weights import write_model


class RunPlan(Protocol):
    """What the plans of all commands have."""

    @property
    def data(self) -> DataPlan: ...
    @property
    def training(self) -> TrainingPlan: ...
    @property
    def facts(self) -> DataFacts: ...
    @property
    def processes(self) -> int: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


D = TypeVar("D")
P = TypeVar("P", bound=RunPlan)


class Job(Protocol, Generic[D, P]):
    """What one command says of its run; `run_job` calls these in order."""

    @property
    def config(self) -> Any:
        """What was asked."""

    @property
    def title(self) -> str:
        """Of the report."""

    def path(self) -> Path:
        """The run directory."""

    def look_at(self, processes: Processes, run: RunDirectory | None) -> D:
        """Finds the data and measures what was not given; a resumed run remembers."""

    def plan(self, data: D, machine: Machine, processes: int) -> P:
        """What will happen, from what was asked: pure."""

    def introduce(self, data: D, plan: P) -> Iterator[str]:
        """Sentences about the data."""

    def training_images(self, data: D) -> Images:
        """What batches are made of."""

    def task(self, data: D, plan: P, processes: Processes, *, begins: bool) -> tuple[Task, list[str]]:
        """The model to train with its evaluators, and what was done to build it.

        The weights are read from a checkpoint afterwards unless the run `begins`.
        """

    def describe(self, data: D, plan: P, *, averaged: bool) -> Description:
        """model.json of the finished run."""

    def summarize(self, run: RunDirectory, plan: P, title: str) -> None:
        """Writes curves and report."""

    def conclude(self, run: RunDirectory, step: int) -> Iterator[str]:
        """Sentences about what was measured, where it is, and what to type next."""


def run_job(job: Job[D, P]) -> Path:
    """Trains, or goes on where an earlier call was stopped; returns the run directory.

    Raises ValueError, DataError or CheckpointError with the mend; Interrupted after a signal.
    """
    machine = detect_machine(job.config.run.device)
    path = job.path()
    with connected(machine.device) as processes:
        console = RunConsole(speaks=processes.is_main)
        if RunDirectory(path).model.exists():
            check_settings(RunDirectory(path), job.config)
            console.say(f"nothing to do: {path} is finished; see {path / 'report.html'}")
            return path
        with _run_directory(path, job.config, processes) as run:
            console.log_to(run.path / "train.log")
            data = job.look_at(processes, run)
            plan = job.plan(data, machine, processes.size)
            processes.agree("configuration", to_json(job.config))
            processes.agree("plan", to_json(plan.training))
            introduce(job, data, plan, run, processes, console)
            session = assemble(job, data, plan, run, processes, console)
            state = _train(job, session, plan)
            if processes.is_main:
                _finish(job, session, state, data, plan)
    return path


def dry_run(job: Job[D, P]) -> P:
    """What a run would do, without a run directory."""
    machine = detect_machine(job.config.run.device)
    with connected(machine.device) as processes:
        return job.plan(job.look_at(processes, None), machine, processes.size)


def remembered_facts(run: RunDirectory | None, fingerprint: str) -> DataFacts | None:
    """What an earlier part of the run measured; raises DataError where the images have changed since."""
    earlier = run.read("plan.json") if run and run.has_begun else None
    if earlier is None:
        return None
    facts = from_dict(DataFacts, earlier["facts"])
    if facts.fingerprint != fingerprint:
        raise DataError(
            f"the images have changed since the run began (then {facts.fingerprint}; now "
            f"{fingerprint}): restore them, or start anew with another --out"
        )
    return facts


def introduce(
    job: Job[D, P], data: D, plan: P, run: RunDirectory, processes: Processes, console: RunConsole
) -> None:
    """Says what will happen, and writes plan.json."""
    if processes.is_main:
        run.write("plan.json", to_json(plan))
    t, licence = plan.training, job.training_images(data).licence_note
    console.say(f"recipe {job.config.recipe or 'of your own'}; run directory {run.path}")
    for sentence in (*job.introduce(data, plan), *plan.notes):
        console.say(sentence)
    console.say(
        f"{t.steps} steps of {t.batch} images ({t.steps / t.steps_per_epoch:.4g} epochs) on "
        f"{plan.processes} process(es), peak rate {t.lr:.3g}"
    )
    if licence:
        console.say(f"licence of the data: {licence}")


def assemble(
    job: Job[D, P], data: D, plan: P, run: RunDirectory, processes: Processes, console: RunConsole
) -> Session:
    """Builds the model and everything around it."""
    task, sentences = job.task(data, plan, processes, begins=not run.has_begun)
    for sentence in sentences:
        console.say(sentence)
    images = job.training_images(data)
    bad_images = BadImageLog(
        run.path / "bad_images.jsonl", images=len(images), max_share=plan.data.max_bad_share
    )
    return Session(
        task=task,
        batches=Batches(images, plan.data, plan.training, rank=processes.rank, bad_images=bad_images),
        plan=plan.training,
        run=run,
        processes=processes,
        console=console,
    )


def numbers(values: tuple[float, ...]) -> str:
    """For people."""
    return " ".join(f"{value:.3f}" for value in values)


@contextmanager
def _run_directory(path: Path, config: Any, processes: Processes) -> Iterator[RunDirectory]:
    """Opened and locked by the main process; the others wait until it is."""
    if not processes.is_main:
        processes.wait()
        yield RunDirectory(path)
        return
    with opened(path, config) as run:
        processes.wait()
        yield run


def _train(job: Job[D, P], session: Session, plan: P) -> TrainingState:
    try:
        with lost_workers_named():
            return train(session)
    except Interrupted:
        if session.processes.is_main:
            job.summarize(session.run, plan, f"Stopped: {job.title.lower()}")
        raise


def _finish(job: Job[D, P], session: Session, state: TrainingState, data: D, plan: P) -> None:
    """Writes model and report, and says where things are and what to type next."""
    run, console = session.run, session.console
    weights: dict[str, Tensor] = session.task.model.state_dict()
    if state.average:
        weights = {**weights, **state.average.weights}
    job.summarize(run, plan, job.title)
    write_model(run.path, weights, job.describe(data, plan, averaged=state.average is not None))
    licence = job.training_images(data).licence_note
    first, *others = job.conclude(run, state.step)
    console.say(f"finished. {first}")
    console.say(f"  report           {run.path / 'report.html'}")
    console.say(f"  model            {run.model}" + (f" ({licence})" if licence else ""))
    for sentence in others:
        console.say(sentence)
