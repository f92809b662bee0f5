"""The one loop that trains everything."""

import json
import math
import signal
from contextlib import closing, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from unmask.engine.machine import autocast
from unmask.engine.metrics import MetricsLog, detached_total
from unmask.engine.optim import learning_rate, scale_gradients
from unmask.engine.report import Clock, progress_record, report
from unmask.engine.session import Session, TrainingState, restore, save
from unmask.engine.signals import StopRequest
from unmask.engine.task import StepOutput, Task
from unmask.errors import Interrupted

BAD_STEPS_IN_A_ROW = 10


class TrainingStep(nn.Module):
    """A task's step as a module, so that DDP sees the forward that it has to follow."""

    def __init__(self, task: Task):
        super().__init__()
        self.model = task.model
        self.task = task

    def forward(self, batch: Any, progress: float) -> StepOutput:
        return self.task.step(batch, progress)


def train(session: Session) -> TrainingState:
    """Trains from the newest checkpoint, or from the start, to the last step.

    Raises Interrupted after saving where a signal asks to stop.
    """
    state = restore(session)
    plan, main = session.plan, session.processes.is_main
    metrics = MetricsLog(session.run, state.step if state.step else None) if main else None
    step_module = session.processes.wrap(TrainingStep(session.task))
    if plan.compile:
        session.task.model.compile()
    clock = Clock()
    with StopRequest() as stop, session.console.progress(state.step, plan.steps):
        if state.step == 0:
            with clock.set_aside():
                report(session, state, metrics, {"step": 0, "epoch": 0.0})
        with closing(session.batches.from_step(state.step)) as batches:
            while state.step < plan.steps:
                with clock.waiting():
                    micro_batches = next(batches)
                stopping = take_step(session, state, step_module, micro_batches, stop)
                session.console.step_done(state.step)
                record = progress_record(session, state, clock)
                last = state.step == plan.steps
                with clock.set_aside():
                    report(session, state, metrics, record)
                    if last or stopping or state.step % plan.checkpoint_every == 0:
                        save(session, state, metrics)
                if stopping and not last:
                    raise Interrupted(stop.signal or signal.SIGTERM, state.step)
    return state


def take_step(
    session: Session,
    state: TrainingState,
    module: nn.Module,
    micro_batches: list[Any],
    stop: StopRequest,
) -> bool:
    """One optimizer step over all micro-batches and processes; returns whether any process must stop.

    Losses are summed by weight, then divided by the true total, so that neither the number of
    micro-batches nor that of processes changes the average.
    """
    plan, processes = session.plan, session.processes
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, plan) * group.get("lr_scale", 1.0)
    totals, weight = accumulate(session, module, micro_batches, state.step / plan.steps)
    names = list(totals)
    shared = torch.stack(
        [*totals.values(), *totals["loss"].new_tensor([weight, stop.signal is not None])]
    )
    *sums, weight_of_all, stops = processes.sum(shared).tolist()
    norm = _apply_gradients(session, state, processes.size / weight_of_all)
    if math.isfinite(norm):
        averaged = {**dict(zip(names, sums, strict=True)), "grad_norm": norm * weight_of_all}
        state.meter.add(averaged, weight_of_all)
    _guard(session, state, norm, micro_batches)
    state.step += 1
    return stops > 0


def accumulate(
    session: Session, module: nn.Module, micro_batches: list[Any], progress: float
) -> tuple[dict[str, Tensor], float]:
    """Forward and backward of each micro-batch; returns sums of what to log, and their weight.

    Raises ValueError with a micro-batch to try where the device has too little memory.
    """
    totals: dict[str, Tensor] = {}
    weight = 0.0
    for i, batch in enumerate(micro_batches):
        waits = session.processes.size > 1 and i < len(micro_batches) - 1  # DDP averages at the last
        try:
            with module.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with autocast(session.plan):
                    output: StepOutput = module(batch, progress)
                (output.loss * output.weight).backward()
        except torch.OutOfMemoryError as error:
            images = len(batch.samples)
            raise ValueError(
                f"the device has too little memory for {images} images at once: try "
                f"--optim.micro-batch {max(1, images // 2)}; the batch stays as it is"
            ) from error
        weight += output.weight
        for name, value in {"loss": output.loss, **output.scalars}.items():
            totals[name] = totals.get(name, 0.0) + detached_total(value, output.weight)
    return totals, weight


def _apply_gradients(session: Session, state: TrainingState, scale: float) -> float:
    """Updates the weights unless the gradient is not finite; returns its norm."""
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = scale_gradients(parameters, scale, session.plan.clip)
    if math.isfinite(norm):
        state.optimizer.step()
        if state.average:
            state.average.update(session.task.model)
    state.optimizer.zero_grad(set_to_none=True)
    return norm


def _guard(session: Session, state: TrainingState, norm: float, micro_batches: list[Any]) -> None:
    """Counts and records steps that were skipped; stops where they do not end.

    The norm is the same on all processes, and so is the decision.
    """
    if math.isfinite(norm):
        state.bad_in_a_row = 0
        return
    state.bad_in_a_row += 1
    state.meter.skipped_steps += 1
    samples = [int(i) for batch in micro_batches for i in batch.samples]
    entry = {"step": state.step, "seed": session.plan.seed, "samples": samples}
    rank = "" if session.processes.is_main else f"-{session.processes.rank}"
    with (session.run.path / f"bad_steps{rank}.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")
    session.console.say(f"step {state.step}: the gradient is not finite; the weights stay as they were")
    if state.bad_in_a_row >= BAD_STEPS_IN_A_ROW:
        raise ValueError(
            f"the gradient was not finite {BAD_STEPS_IN_A_ROW} steps in a row: lower "
            f"--optim.base-lr, or try --run.precision fp32; bad_steps.jsonl names the samples"
        )
