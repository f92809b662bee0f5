"""A pre-training run from request to report: the rooms in the order in which data passes them."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unmask.config.io import from_dict, to_json
from unmask.config.plan import DataFacts, DataPlan, Plan
from unmask.config.resolve import pair, pixel_format, resolve
from unmask.config.schema import PretrainConfig
from unmask.core.mae import MaskedAutoencoder
from unmask.data.bad_images import BadImageLog
from unmask.data.images import Images
from unmask.data.loader import Batches, load_centre_crops
from unmask.data.sources import default_held_out, find_images
from unmask.data.statistics import find_layout, measure_pixels
from unmask.distributed.processes import Processes, connected
from unmask.engine.console import RunConsole
from unmask.engine.loop import train
from unmask.engine.machine import detect_machine
from unmask.engine.run_directory import RunDirectory, check_settings, opened
from unmask.engine.session import Session, TrainingState
from unmask.errors import DataError, Interrupted
from unmask.interop.description import Description
from unmask.interop.weights import initialize_from, read_weights, write_model
from unmask.tasks.pretrain import PICTURED_IMAGES, PretrainTask
from unmask.tasks.summary import last_measurement, write_summary


@contextmanager
def _run_directory(path: Path, config: PretrainConfig, processes: Processes) -> Iterator[RunDirectory]:
    """Opened and locked by the main process; the others wait until it is."""
    if not processes.is_main:
        processes.wait()
        yield RunDirectory(path)
        return
    with opened(path, config) as run:
        processes.wait()
        yield run


@dataclass(frozen=True)
class Dataset:
    """The images of a run, split, and what was measured of them."""

    training: Images
    held_out: Images
    facts: DataFacts


def run_pretraining(config: PretrainConfig) -> Path:
    """Pre-trains, or goes on where an earlier call was stopped; returns the run directory.

    Raises ValueError, DataError or CheckpointError with the mend; Interrupted after a signal.
    """
    machine = detect_machine(config.run.device)
    path = run_path(config)
    with connected(machine.device) as processes:
        console = RunConsole(speaks=processes.is_main)
        if RunDirectory(path).model.exists():
            check_settings(RunDirectory(path), config)
            console.say(f"nothing to do: {path} is finished; see {path / 'report.html'}")
            return path
        with _run_directory(path, config, processes) as run:
            console.log_to(run.path / "train.log")
            dataset = look_at(config, processes, run)
            plan = resolve(config, facts=dataset.facts, machine=machine, world_size=processes.size)
            processes.agree("configuration", to_json(config))
            processes.agree("plan", to_json(plan.architecture) + to_json(plan.training))
            introduce(config.recipe, plan, dataset, run, processes, console)
            session = assemble(config, plan, dataset, run, processes, console)
            state = _train(session, plan, processes)
            if processes.is_main:
                finish(session, state, config, plan, dataset)
    return path


def dry_run(config: PretrainConfig) -> Plan:
    """What a run would do, without a run directory."""
    machine = detect_machine(config.run.device)
    with connected(machine.device) as processes:
        dataset = look_at(config, processes, run=None)
        return resolve(config, facts=dataset.facts, machine=machine, world_size=processes.size)


def run_path(config: PretrainConfig) -> Path:
    """`--out`, or a name made of the data's."""
    names = "-".join(run_name(source) for source in config.data.source)
    return Path(config.out or f"runs/pretrain-{names}")


def run_name(source: str) -> str:
    """What a source is called in the names of directories."""
    return re.sub(r"[^\w.-]+", "-", Path(source).resolve().name)


def look_at(config: PretrainConfig, processes: Processes, run: RunDirectory | None) -> Dataset:
    """Finds and splits the images, and measures what was not given; a resumed run remembers.

    Raises DataError where the images have changed since the run began.
    """
    d = config.data
    images = find_images(d.source, root=d.root, download=d.download)
    held_out = default_held_out(len(images)) if d.held_out is None else d.held_out
    if not 0 <= held_out < len(images):
        raise DataError(
            f"--data.held-out {held_out} leaves no training image of {len(images)}: choose less"
        )
    fingerprint = images.fingerprint()
    processes.agree("list of images", fingerprint)
    training, aside = images.split(held_out)
    earlier = run.read("plan.json") if run and run.has_begun else None
    if earlier is None:
        measured = _measure(config, images, training, fingerprint) if processes.is_main else None
        return Dataset(training, aside, processes.from_main(measured))
    facts = from_dict(DataFacts, earlier["facts"])
    if facts.fingerprint != fingerprint:
        raise DataError(
            f"the images have changed since the run began (then {facts.fingerprint}; now "
            f"{fingerprint}): restore them, or start anew with another --out"
        )
    return Dataset(training, aside, facts)


def _measure(config: PretrainConfig, images: Images, training: Images, fingerprint: str) -> DataFacts:
    d = config.data
    layout = find_layout(training, d.channels)
    for name, given in (("mean", d.mean), ("std", d.std)):
        if given is not None and len(given) != layout.channels:
            raise ValueError(
                f"--data.{name} has {len(given)} values for {layout.channels} channels: give one each"
            )
    wanted = pixel_format(d, layout.channels, layout.pixel_type)
    pixels = measure_pixels(training, size=pair("data.size", d.size), wanted=wanted)
    return DataFacts(
        training_images=len(training),
        held_out_images=len(images) - len(training),
        channels=layout.channels,
        mean=d.mean or pixels.mean,
        std=d.std or pixels.std,
        fingerprint=fingerprint,
        decoded_bytes=pixels.decoded_bytes,
        pixel_type=layout.pixel_type,
    )


def introduce(
    recipe: str,
    plan: Plan,
    dataset: Dataset,
    run: RunDirectory,
    processes: Processes,
    console: RunConsole,
) -> None:
    """Says what will happen, and writes plan.json."""
    if processes.is_main:
        run.write("plan.json", to_json(plan))
    t, f = plan.training, plan.facts
    console.say(f"recipe {recipe or 'of your own'}; run directory {run.path}")
    console.say(
        f"{f.training_images} training images and {f.held_out_images} held out, "
        f"{f.channels} channel(s), mean {_numbers(f.mean)}, std {_numbers(f.std)}"
    )
    for note in plan.notes:
        console.say(note)
    console.say(
        f"{t.steps} steps of {t.batch} images ({t.steps / t.steps_per_epoch:.4g} epochs) on "
        f"{plan.processes} process(es), peak rate {t.lr:.3g}"
    )
    if dataset.training.licence_note:
        console.say(f"licence of the data: {dataset.training.licence_note}")


def assemble(
    config: PretrainConfig,
    plan: Plan,
    dataset: Dataset,
    run: RunDirectory,
    processes: Processes,
    console: RunConsole,
) -> Session:
    """Builds the model and everything around it."""
    model = new_model(plan)
    if config.init and not run.has_begun:
        console.say(initialize_from(model, read_weights(config.init), config.init))
    d = plan.data
    held_out = crops(dataset.held_out if len(dataset.held_out) else first(dataset.training, 16), d)
    other = None
    if config.data.other:
        elsewhere = find_images(config.data.other, root=config.data.root)
        other = crops(first(elsewhere, PICTURED_IMAGES), d)
    bad_images = BadImageLog(
        run.path / "bad_images.jsonl",
        images=plan.facts.training_images,
        max_share=d.max_bad_share,
    )
    return Session(
        task=PretrainTask(model, plan, processes.device, held_out=held_out, other=other),
        batches=Batches(dataset.training, d, plan.training, rank=processes.rank, bad_images=bad_images),
        plan=plan.training,
        run=run,
        processes=processes,
        console=console,
    )


def crops(images: Images, plan: DataPlan) -> Tensor:
    """Centre crops as the run's model takes them, before normalisation."""
    return load_centre_crops(images, size=plan.image_size, wanted=plan.pixels)


def first(images: Images, count: int) -> Images:
    """The first images, or all of fewer."""
    return images.subset(range(min(count, len(images))))


def new_model(plan: Plan) -> MaskedAutoencoder:
    """Freshly initialised from the run's seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.training.seed)
        return MaskedAutoencoder(plan.architecture)


def _train(session: Session, plan: Plan, processes: Processes) -> TrainingState:
    try:
        return train(session)
    except Interrupted:
        if processes.is_main:
            write_summary(session.run, plan, title="Stopped pre-training run")
        raise


def finish(
    session: Session, state: TrainingState, config: PretrainConfig, plan: Plan, dataset: Dataset
) -> None:
    """Writes model and report, and says where things are and what to type next."""
    weights = session.task.model.state_dict()
    if state.average:
        weights = {**weights, **state.average.weights}
    run, console, notes = session.run, session.console, dataset.training.licence_note
    write_summary(run, plan, title="Pre-training run")
    averaged = state.average is not None
    write_model(run.path, weights, describe(config, plan, dataset, averaged=averaged))
    console.say(f"finished. {last_measurement(run)}")
    console.say(f"  report           {run.path / 'report.html'}")
    console.say(f"  reconstructions  {run.samples / f'reconstruction-{state.step:08d}.png'}")
    console.say(f"  model            {run.model}" + (f" ({notes})" if notes else ""))
    again = shlex.join(["unmask", "reconstruct", "IMAGES", "--init", str(run.path)])
    console.say(f"next: {again}")


def describe(config: PretrainConfig, plan: Plan, dataset: Dataset, *, averaged: bool) -> Description:
    """model.json of a finished run."""
    origin = f"started from {config.init}, whose licence holds too" if config.init else ""
    return Description(
        architecture=plan.architecture,
        mean=plan.facts.mean,
        std=plan.facts.std,
        pixel_type=plan.facts.pixel_type,
        display=plan.data.display,
        recipe=config.recipe,
        data=dataset.training.name,
        steps=plan.training.steps,
        weights="running average" if averaged else "last step",
        licence_note="; ".join(filter(None, [dataset.training.licence_note, origin])),
    )


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values)
