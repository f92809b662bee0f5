"""The one loop that trains everything."""

import json
import math
import signal
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from unmask.core.blocks import checkpoint_activations
from unmask.engine.captured import bad_step, replay_command
from unmask.engine.machine import autocast, is_out_of_memory, keep_freed_memory
from unmask.engine.metrics import MetricsLog, detached_total
from unmask.engine.optim import learning_rate, update_weights
from unmask.engine.pace import Pace
from unmask.engine.readings import Measured, Readings, StepMetrics
from unmask.engine.report import Clock, progress_record, report
from unmask.engine.session import Session, TrainingState, check_room, check_success, restore, save
from unmask.engine.signals import StopRequest
from unmask.engine.task import Draw, StepOutput, TrainingStep
from unmask.errors import DataError, DivergenceError, Interrupted
from unmask.faults import fault_point

BAD_STEPS_IN_A_ROW = 10


def train(session: Session) -> TrainingState:
    """Trains from the newest checkpoint, or from the start, to the last step.

    Raises Interrupted after saving if a signal asks to stop.
    """
    keep_freed_memory(session.training.device)
    state = restore(session)
    plan, main = session.training, session.processes.is_main
    check_room(session, state)
    # A record that is still to be evaluated is written again.
    kept = state.step - 1 if state.unreported else state.step
    metrics = MetricsLog(session.run, kept, session.console.say) if main else None
    step_module = as_module(session)
    clock, readings = Clock(), Readings.on(session.processes.device)
    pace = Pace(session.plan, state.step)
    with StopRequest() as stop, session.console.progress(state.step, plan.steps):
        if state.unreported:
            with clock.set_aside():
                reported = report(session, state, metrics, state.unreported, stop)
            if not reported:
                raise Interrupted(stop.signal or signal.SIGTERM, state.step)
        if state.step == plan.steps:  # a kill may have come before the older checkpoints were removed
            save(session, state, metrics)
        stopped = session.batches.from_step(state.step, lambda: stop.signal is not None)
        with closing(stopped) as batches:
            while state.step < plan.steps:
                with clock.waiting(), saved_if_data_end(session, state, metrics, readings, stop):
                    micro_batches = next(batches)
                readings.add(take_step(session, state, step_module, micro_batches, stop))
                session.console.step_done(state.step)
                last = state.step == plan.steps
                logs = last or state.step % plan.log_every == 0
                saves = last or any(
                    n and state.step % n == 0 for n in (plan.checkpoint_every, plan.keep_every)
                )
                stopping = process_metrics(session, state, readings.take(wait=logs or saves))
                if stopping:
                    process_metrics(session, state, readings.take(wait=True))
                record = progress_record(session, state, clock) if logs else None
                with clock.set_aside():
                    pace.add(record)
                    reported = report(session, state, metrics, record, stop, stopping)
                    if message := pace.sentence(at_end=last):
                        session.console.say(message)
                    if saves or stopping or not reported:
                        save(session, state, metrics)
                if not reported or (stopping and not last):
                    raise Interrupted(stop.signal or signal.SIGTERM, state.step)
    check_success(session, state)
    return state


def as_module(session: Session) -> nn.Module:
    """A task's step on all processes, with activation checkpointing and compiled if the plan says so."""
    module = session.processes.wrap(TrainingStep(session.task, session.model))
    if session.training.activation_checkpointing:
        checkpoint_activations(session.model)
    if session.training.compile:
        session.model.compile()
    return module


@contextmanager
def saved_if_data_end(
    session: Session,
    state: TrainingState,
    metrics: MetricsLog | None,
    readings: Readings,
    stop: StopRequest,
) -> Iterator[None]:
    """Between two steps: saves if there are no more data, and raises Interrupted if a signal came too.

    One process only: others may be in the midst of their step, and wait for this one.
    """
    try:
        yield
    except DataError as error:
        process_metrics(session, state, readings.take(wait=True))
        if session.processes.size == 1 and state.step:
            save(session, state, metrics)
        if stop.signal:
            raise Interrupted(stop.signal, state.step) from error
        raise


def take_step(
    session: Session,
    state: TrainingState,
    module: nn.Module,
    micro_batches: list[Any],
    stop: StopRequest,
) -> StepMetrics:
    """One optimizer step over all micro-batches and processes; what it measured is still on the device.

    Losses are summed by weight, then divided by the true total, so that neither the number of
    micro-batches nor that of processes changes the average. Nothing here waits for the device.
    """
    plan, processes = session.training, session.processes
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, plan) * group.get("lr_scale", 1.0)
    totals, weight = accumulate(session, module, micro_batches, state.step)
    zero = torch.zeros_like(totals["loss"])
    known_here = (zero + x for x in (weight, float(stop.signal is not None)))
    shared = processes.sum(torch.stack([*totals.values(), *known_here]))
    fault_point("step.update")
    norm = update_weights(state.optimizer, processes.size / shared[-2], plan.clip)
    if state.average:
        state.average.update(session.model)
    state.step += 1
    fault_point("step.done")
    samples = [batch.samples for batch in micro_batches]
    return StepMetrics(state.step, tuple(totals), samples, torch.cat([shared, norm.to(shared)[None]]))


def accumulate(
    session: Session, module: nn.Module, micro_batches: list[Any], step: int
) -> tuple[dict[str, Tensor], float | Tensor]:
    """Forward and backward of each micro-batch; returns sums of what to log, and their weight.

    Raises ValueError with a micro-batch to try if the device has too little memory.
    """
    totals: dict[str, Tensor] = {}
    weight: float | Tensor = 0.0
    for i, batch in enumerate(micro_batches):
        waits = session.processes.size > 1 and i < len(micro_batches) - 1  # DDP averages at the last
        try:
            with module.no_sync() if waits else nullcontext():  # type: ignore[operator]
                draw = Draw(
                    plan=session.plan, device=session.processes.device, step=step, first=batch.first
                )
                fault_point("step.forward")
                with autocast(session.training):
                    output: StepOutput = module(batch.content, draw)
                fault_point("step.backward")
                (output.loss * output.weight).backward()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            images = len(batch.samples)
            raise ValueError(
                f"the device has too little memory for {images} images at once: try "
                f"--optim.micro-batch {max(1, images // 2)}; the batch stays as it is"
            ) from error
        weight += output.weight
        for name, value in {"loss": output.loss, **output.scalars}.items():
            totals[name] = totals.get(name, 0.0) + detached_total(value, output.weight)
    return totals, weight


def process_metrics(session: Session, state: TrainingState, readings: Iterable[StepMetrics]) -> bool:
    """Counts what steps measured; returns whether any process has to stop.

    The values are the same on all processes, and so is the answer.
    """
    stopping = False
    for reading in readings:
        measured = reading.measured()
        if not count_step(state, measured):
            _write_bad_step_down(session, state, reading)
        stopping |= measured.stops
    return stopping


def count_step(state: TrainingState, measured: Measured) -> bool:
    """Adds a step to the sums of the log; False if its gradient was not finite, so that it was
    skipped."""
    if not math.isfinite(measured.norm):
        state.bad_in_a_row += 1
        state.meter.skipped_steps += 1
        return False
    totals = {**measured.sums, "grad_norm": measured.norm * measured.weight}
    state.meter.add(totals, measured.weight)
    state.bad_in_a_row = 0
    return True


def _write_bad_step_down(session: Session, state: TrainingState, reading: StepMetrics) -> None:
    """Says how to see a skipped step again; raises DivergenceError if they do not end."""
    rank = "" if session.processes.is_main else f"-{session.processes.rank}"
    line = json.dumps(bad_step(reading, session.training.seed)) + "\n"
    session.run.append(f"bad_steps{rank}.jsonl", line)
    see = replay_command(session.run.path, reading.step)
    session.console.say(
        f"step {reading.step}: the gradient is not finite; the weights stay as they were; see the step "
        f"again with {see}"
    )
    if state.bad_in_a_row >= BAD_STEPS_IN_A_ROW:
        raise DivergenceError(
            f"the gradient was not finite {BAD_STEPS_IN_A_ROW} steps in a row: start a new run with a "
            f"lower --optim.base-lr, or with --run.precision fp32, and another --out; {see} says where "
            f"the first value that is not finite comes from"
        )
