"""One of the paper's ablations on your own images."""

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from unmask.config.ablation import AblateConfig
from unmask.distributed.processes import Processes, connected
from unmask.engine.locks import claimed
from unmask.engine.machine import detect_machine
from unmask.engine.run_directory import RunDirectory
from unmask.runs.ablation import RECORD, Ablation, Unit, find_ablation
from unmask.runs.ablation_cost import AblationEstimate, estimate_ablation
from unmask.runs.ablation_findings import Findings, find_out
from unmask.runs.ablation_page import write_page
from unmask.runs.study import run_stages
from unmask.units import counted, data_size, duration

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Ablated:
    """What the finished runs came to."""

    path: Path
    findings: Findings


def run_ablation(config: AblateConfig, say: Say = print) -> Ablated | AblationEstimate:
    """Runs every unit of the part, or goes on where a call was stopped; reports all that are finished.

    With `dry_run` it says what would happen, and nothing is written. Stages keep their final weights
    alone. The main process writes and speaks. Raises ValueError, DataError or CheckpointError with a
    fix; Interrupted after a signal.
    """
    with connected(detect_machine(config.device).device) as processes:
        tell = say if processes.is_main else _nothing
        ablation = find_ablation(config)
        estimate = estimate_ablation(ablation)
        for sentence in announcement(ablation, estimate):
            tell(sentence)
        if config.dry_run:
            return estimate
        with claimed(ablation.out, shared=True) if processes.is_main else nullcontext():
            run_units(ablation, processes, tell)
        found = processes.from_main(find_out(ablation) if processes.is_main else None)
        if processes.is_main:
            write_page(ablation, estimate, found)
        for sentence in found.messages:
            tell(sentence)
        tell(f"report: {ablation.out / 'report.html'}")
    return Ablated(path=ablation.out, findings=found)


def announcement(ablation: Ablation, estimate: AblationEstimate) -> list[str]:
    """What will happen, how long it will take, and what it needs on the disk; in sentences."""
    config, todo = ablation.config, estimate.todo
    names, commands = [v.name for v in ablation.values], [s.name for s in ablation.units[-1].steps]
    seeds = ", ".join(map(str, config.seeds))
    each = ", ".join(f"{name} {duration(seconds)}" for name, seconds in estimate.seconds.items())
    part = f" of part {config.part}" if config.part else ""
    return [
        f"{ablation.axis.label} ({ablation.axis.place}): {', '.join(names)}; seeds {seeds}; budget "
        f"{config.budget}; for each {', '.join(commands)}",
        *ablation.notes,
        f"{len(todo)} of {counted(len(ablation.part), 'pair')} of value and seed{part} to do, in about "
        f"{duration(estimate.total_seconds)} here (for a seed, {each})",
        f"disk: about {data_size(estimate.kept_bytes)} for what is kept and "
        f"{data_size(estimate.working_bytes)} more meanwhile; {data_size(estimate.free_bytes)} are free",
    ]


def run_units(ablation: Ablation, processes: Processes, say: Say) -> None:
    """Runs the units of the part, one after the other."""
    for i, unit in enumerate(ablation.part, 1):
        say(f"{i} of {len(ablation.part)}: {ablation.name} {unit.value.name}, seed {unit.seed}")
        _run_unit(unit, processes, say)


def _run_unit(unit: Unit, processes: Processes, say: Say) -> None:
    """A run that diverges ends its unit: what follows would begin with it."""
    for step in unit.steps:
        was_finished, began = unit.run(step.name).model.exists(), time.monotonic()
        diverged = False
        try:
            outcomes = run_stages([step], by=step.task.metrics[0], out=unit.folder, say=say)
            diverged = outcomes[step.name].diverged
        finally:
            if processes.is_main and not was_finished and unit.folder.is_dir():
                _record(unit, step.name, time.monotonic() - began, diverged)
        if diverged:
            return


def _record(unit: Unit, command: str, seconds: float, diverged: bool) -> None:
    """Adds to the time of a run, which several calls may have taken."""
    record = unit.record()
    record["seconds"][command] = record["seconds"].get(command, 0.0) + seconds
    record["diverged"] = command if diverged else None
    RunDirectory(unit.folder).write(RECORD, json.dumps(record) + "\n")


def _nothing(sentence: str) -> None:
    """What the other processes say."""
