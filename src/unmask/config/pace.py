"""Whether reading images or arithmetic is slower, and what helps: sentences of `check` and of runs."""

from unmask.config.plan import Plan
from unmask.units import GIB

KEEPS_UP = 0.1
"""A run that waits for data for no more than this share of its time counts as compute-bound."""


def what_helps_reading(plan: Plan) -> str:
    """What a run can do whose loader's processes are slower than its arithmetic, in order of effect."""
    loading, cores = plan.loading, plan.machine.cores
    needed = plan.facts.training_images * plan.facts.decoded_bytes
    advice = []
    if not loading.keep_decoded:
        gib = -(-needed * 10 // GIB) / 10
        advice.append(
            f"--data.cache-gib {gib:g} if there is that much memory: no image is decoded twice"
        )
    if loading.workers < cores:
        advice.append(f"--data.workers {cores} in place of {loading.workers}")
    if not loading.keep_decoded:
        advice.append("copies of the images at a smaller size")
    return ", or ".join(advice) or "more processor cores"


def what_helps_arithmetic(plan: Plan) -> str:
    """What a run can do whose arithmetic is slower than its reading."""
    device = "a GPU" if plan.training.device == "cpu" else "a faster GPU, or several"
    return f"{device}, a smaller model or a smaller --data.size; more loader processes would not"


def slower(plan: Plan, *, waiting: float) -> str:
    """A sentence about a run that spent a share of its time `waiting` for data."""
    if waiting > KEEPS_UP:
        return (
            f"data loading is the bottleneck: {waiting:.0%} of the time was spent waiting for data; "
            f"what helps: {what_helps_reading(plan)}"
        )
    return (
        f"computation is the bottleneck: {waiting:.0%} of the time was spent waiting for data; "
        f"what helps: {what_helps_arithmetic(plan)}"
    )
