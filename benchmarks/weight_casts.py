"""What casting the weights to bf16 in every forward costs a training step on a processor.

    python benchmarks/weight_casts.py small-step base --rounds 7

Forward and backward as the loop does them, and with the casts of an earlier forward kept: no working
copy, however refreshed, can be faster than that. They take turns, on one thread, by processor time,
which other programs disturb little. Then the copies of one step by what they copy: tensors of a weight's
shape, and all others, which are activations and their gradients.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from unmask.bench.model import make_setting
from unmask.bench.setting import BenchConfig
from unmask.bench.step import TrainingStep, our_step
from unmask.engine.machine import autocast


def seconds(run: Callable[[], object]) -> float:
    """Of the processor."""
    began = time.process_time()
    run()
    return time.process_time() - began


def forward_and_backward(step: TrainingStep) -> None:
    """Without an update: kept casts would be of other weights after it."""
    with autocast(step.plan):
        loss = step.loss(step.images, step.noise)
    loss.backward()
    step.optimizer.zero_grad(set_to_none=True)


def with_kept_casts(step: TrainingStep) -> float:
    """Seconds of a forward and backward that find the weights cast."""
    with torch.autocast("cpu", dtype=torch.bfloat16):  # keeps its casts until it ends
        forward_and_backward(step)
        return seconds(lambda: forward_and_backward(step))


def shares_of_copies(step: TrainingStep) -> tuple[float, float]:
    """Of a step's time: copies of tensors of a weight's shape, and of others."""
    weights = {tuple(p.shape) for group in step.optimizer.param_groups for p in group["params"]}
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        step.run()
    total = sum(e.self_cpu_time_total for e in recorded.key_averages())
    shares = [0.0, 0.0]
    for event in recorded.key_averages(group_by_input_shape=True):
        if event.key == "aten::copy_":
            is_other = tuple(event.input_shapes[0]) not in weights
            shares[is_other] += event.self_cpu_time_total / total
    return shares[0], shares[1]


def measure(name: str, rounds: int) -> dict[str, object]:
    """Ratios above 1: keeping casts is faster."""
    step = our_step(make_setting(BenchConfig(model=(name,), precision="bf16", threads=1), name))
    forward_and_backward(step)
    pairs = [(seconds(lambda: forward_and_backward(step)), with_kept_casts(step)) for _ in range(rounds)]
    of_weights, of_others = shares_of_copies(step)
    return {
        "model": name,
        "seconds": round(median(each for each, _ in pairs), 3),
        "median_ratio": round(median(each / kept for each, kept in pairs), 3),
        "copies_of_weights": round(of_weights, 4),
        "other_copies": round(of_others, 4),
    }


def main() -> None:
    """Prints a line of JSON for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.models:
        print(json.dumps(measure(name, asked.rounds)), flush=True)


if __name__ == "__main__":
    main()
