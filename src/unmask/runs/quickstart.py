"""The embedded example, from images to classifiers: what pre-training gains, on one page."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from unmask.config.budget import seconds_in
from unmask.config.commands import (
    FinetuneConfig,
    KnnConfig,
    KnnData,
    QuickstartConfig,
    ScratchConfig,
)
from unmask.config.settings import FeatureProbe
from unmask.distributed.processes import connected
from unmask.engine.locks import claimed
from unmask.engine.machine import detect_machine
from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError
from unmask.runs.comparison import NAMES, Comparison, compare, write_page
from unmask.runs.examples import EXAMPLES, Example, Quickstart
from unmask.runs.known import earlier_plan
from unmask.runs.run import run as run_task
from unmask.runs.study import SEED, Stage, run_stages
from unmask.tasks import find_recipe, find_task
from unmask.tasks.classify import METRICS
from unmask.tasks.pretrain import Pretrain
from unmask.units import counted
from unmask.use.knn import ENCODER, PIXELS, RANDOM, run_knn

C = TypeVar("C", FinetuneConfig, ScratchConfig)

LEAST_STEPS = 100
"""Least steps of training on labels, however slow the machine is."""


def plan_quickstart(config: QuickstartConfig) -> Quickstart:
    """Pre-training on the images whose labels are used afterwards; none sees those for validation."""
    example = EXAMPLES[config.data]
    out = Path(config.out or f"runs/{example.folder}")
    seconds = seconds_in(config.time or example.time) * example.share
    pretrain = find_recipe("pretrain", example.pretrain)
    pretraining = replace(
        pretrain,
        out=str(out / "pretrain"),
        data=replace(pretrain.data, source=(example.unlabelled,), held_out=example.held_out),
        probe=FeatureProbe(images=0),
        run=replace(pretrain.run, seed=config.seed, time=f"{seconds:.0f}s", device=config.device),
    )

    def labelled(command: str, name: str) -> Any:
        recipe = find_recipe(command, name)
        return replace(
            recipe,
            out=str(out / command),
            data=replace(recipe.data, source=(example.labelled,), per_class=example.per_class),
            run=replace(recipe.run, device=config.device),
        )

    tuned = labelled("finetune", example.finetune)
    data = KnnData(
        source=(example.labelled,), per_class=example.per_class, eval_crop=tuned.data.eval_crop
    )
    return Quickstart(
        out=out,
        example=example,
        pretraining=pretraining,
        knn=KnnConfig(
            init=pretraining.out,
            out=str(out / "probe"),
            pool=example.pool,
            baselines=True,
            data=data,
            device=config.device,
        ),
        scratch=labelled("scratch", example.scratch),
        finetune=replace(tuned, init=pretraining.out),
        seeds=tuple(range(config.seed, config.seed + example.seeds)),
    )


def run_quickstart(asked: Quickstart, say: Callable[[str], None]) -> Comparison:
    """Runs everything, or goes on where a call was stopped; writes the page that compares.

    The main process says what is done, and what came of it.
    """
    if (asked.out / "config.json").exists():
        raise CheckpointError(f"{asked.out} is itself a run: choose another --out")
    with (
        connected(detect_machine(asked.pretraining.run.device).device) as processes,
        claimed(asked.out) if processes.is_main else nullcontext(),
    ):
        tell = say if processes.is_main else _nothing
        tell("1 of 4: pre-training, without labels")
        run_task(Pretrain(asked.pretraining))
        plan = processes.from_main(earlier_plan(RunDirectory(asked.out / "pretrain")))
        assert plan, "it is written when a run begins"
        steps = plan.training.steps
        tell("2 of 4: linear probes, of the frozen encoder and of pixels")
        linear = processes.from_main(_linear(asked.knn) if processes.is_main else None)
        scores = {}
        for number, command in enumerate(("scratch", "finetune"), 3):
            tell(f"{number} of 4: {NAMES[command]}, {counted(len(asked.seeds), 'seed')}")
            config = _with_steps(getattr(asked, command), steps, asked.example)
            scores[command] = _seeds(command, config, asked, tell)
        comparison = processes.from_main(compare(asked, linear, scores) if processes.is_main else None)
        if processes.is_main:
            write_page(asked, comparison, linear)
        for sentence in comparison.messages():
            tell(sentence)
    return comparison


def _linear(config: KnnConfig) -> dict[str, float]:
    """The accuracy of a linear probe of each kind of features."""
    record = run_knn(config).record["features"]
    return {kind: record[kind]["linear"]["top1"] for kind in (PIXELS, RANDOM, ENCODER)}


def _with_steps(config: C, pretrained: int, example: Example) -> C:
    """As long as the recipe, or as a pre-training of so few steps allows; the same for every method."""
    if example.steps is None:
        return config
    affordable = max(LEAST_STEPS, round(example.steps * pretrained))
    steps = min(config.optim.steps or affordable, affordable)
    optim = replace(config.optim, steps=steps, warmup_steps=steps // 10)
    run = replace(config.run, evaluate_every=steps, checkpoint_every=steps)
    return replace(config, optim=optim, run=run)


def _seeds(
    command: str, config: FinetuneConfig | ScratchConfig, asked: Quickstart, say: Callable[[str], None]
) -> dict[str, float]:
    """One run for each seed, in a folder of its own; the accuracy of each, by the folder's name."""
    stages = [
        Stage(
            task=find_task(command)(replace(config, run=replace(config.run, seed=seed))),
            settings={SEED: str(seed)},
        )
        for seed in asked.seeds
    ]
    outcomes = run_stages(stages, by=METRICS[0], out=asked.out / command, say=say)
    return {name: outcome.value for name, outcome in outcomes.items()}


def _nothing(sentence: str) -> None:
    """What the other processes say."""
