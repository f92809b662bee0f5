"""What an ablation consists of: for each value of a setting, and each seed, a pre-training and the runs
that measure it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from unmask.config.ablation import BUDGETS, AblateConfig, AblationData, check_ablation, part_of
from unmask.config.axes import Axis, Value, find_axis, parse_values
from unmask.config.commands import PretrainConfig
from unmask.config.fields import check, pair, settings_of
from unmask.config.keywords import with_named, with_setting
from unmask.config.resolve import resolve_encoder
from unmask.config.settings import FeatureProbe
from unmask.config.tokenizer import TokenizerConfig
from unmask.data.labels import find_labelled
from unmask.data.paths import slugs
from unmask.data.records import Split
from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError, DataError
from unmask.runs.study import SEED, Stage, label
from unmask.tasks import find_recipe, find_task
from unmask.tasks.pretrain import Pretrain

C = TypeVar("C")

RECORD = "unit.json"
"""In the folder of a unit: seconds by command, and the run that diverged."""


@dataclass(frozen=True, kw_only=True)
class Step(Stage):
    """One training run of a unit; its folder bears the command's name."""

    @property
    def name(self) -> str:
        """Name of its directory."""
        return self.task.name


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A value and a seed: runs of which each begins with what those before it leave."""

    value: Value
    seed: int
    folder: Path
    steps: tuple[Step, ...]

    def run(self, command: str) -> RunDirectory:
        """The directory of one of its runs."""
        return RunDirectory(self.folder / command)

    @property
    def pretraining(self) -> PretrainConfig:
        """How its encoder is trained."""
        return next(s.task.config for s in self.steps if isinstance(s.task, Pretrain))

    @property
    def is_finished(self) -> bool:
        """Whether all of its runs are."""
        return all(self.run(step.name).model.exists() for step in self.steps)

    def record(self) -> dict[str, Any]:
        """Seconds by command, those of calls that were stopped included; and the run that diverged."""
        return RunDirectory(self.folder).read(RECORD) or {"seconds": {}, "diverged": None}


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """All that is compared, finished or not."""

    name: str
    axis: Axis
    config: AblateConfig
    out: Path
    values: list[Value]
    baseline: str
    """The value that the others are compared with: the recipe's own, or else the first."""
    units: list[Unit]
    labels: Split | None
    """What accuracies are measured with; None without labels."""
    notes: tuple[str, ...]

    @property
    def part(self) -> list[Unit]:
        """The units to run now: every n-th."""
        i, n = part_of(self.config.part)
        return self.units[i - 1 :: n]

    def of(self, value: str) -> list[Unit]:
        """The units of a value, by seed."""
        return [unit for unit in self.units if unit.value.name == value]


def find_ablation(config: AblateConfig) -> Ablation:
    """Puts an ablation together; reads no more of the data than names and labels.

    Raises ValueError, DataError or CheckpointError with a fix.
    """
    check(config)
    check_ablation(config)
    name, axis = find_axis(config.axis)
    out = Path(config.out or f"runs/ablate-{name}-{slugs(config.data.source)}")
    if (out / "config.json").exists():
        raise CheckpointError(f"{out} is itself a run: choose another --out for the ablation")
    labels, note = _find_labels(config)
    base, notes = _base(config, labels)
    values = parse_values(name, config.values or _default_values(config, axis), base)
    measuring = _measuring(config, labels) if labels else ()
    return Ablation(
        name=name,
        axis=axis,
        config=config,
        out=out,
        values=values,
        baseline=next((v.name for v in values if with_named(base, v.settings) == base), values[0].name),
        units=[
            _unit(config, name, value, seed, (with_named(base, value.settings), *measuring), out)
            for seed in config.seeds
            for value in values
        ],
        labels=labels,
        notes=(*note, *notes),
    )


def _default_values(config: AblateConfig, axis: Axis) -> tuple[str, ...]:
    if not BUDGETS[config.budget].few:
        return axis.all
    return axis.few[:3] if config.budget == "smoke" else axis.few


def _find_labels(config: AblateConfig) -> tuple[Split | None, tuple[str, ...]]:
    """Labelled images, divided; without them, why there are none."""
    wanted, d = config.labels, config.data
    if wanted.use == "off":
        return None, ()
    try:
        return find_labelled(
            wanted.data or d.source,
            val=wanted.val,
            root=d.root,
            download=d.download,
            label_column=wanted.label_column,
            val_share=wanted.val_share,
        ), ()
    except DataError as error:
        if wanted.use == "on" or wanted.data or not d.source:
            raise
        return None, (f"measured without labels: {error}",)


def _base(config: AblateConfig, labels: Split | None) -> tuple[PretrainConfig, list[str]]:
    """Pre-training before any value is set; and sentences on it."""
    budget = BUDGETS[config.budget]
    recipe = find_recipe("pretrain", config.recipe or budget.pretrain)
    base: PretrainConfig = _on(config, with_setting(recipe, "data.source", config.data.source))
    base = replace(base, fit=(), probe=_feature_probe(config, base, labels))
    training = len(Pretrain(base).find().training)
    base, notes = _fitting(base, training, "pre-training")
    if budget.lengths:
        base = _of_length(base, budget.lengths.pretrain)
        base = replace(base, probe=replace(base.probe, every=base.optim.steps))
    return base, notes


def _feature_probe(config: AblateConfig, base: PretrainConfig, labels: Split | None) -> FeatureProbe:
    if labels is None:
        return replace(base.probe, data=(), val=())
    wanted = config.labels
    data = wanted.data or config.data.source
    return replace(base.probe, data=data, val=wanted.val, label_column=wanted.label_column)


def _measuring(config: AblateConfig, labels: Split) -> tuple[Any, ...]:
    """Linear probe and fine-tuning, of an encoder that is not named yet."""
    budget, wanted = BUDGETS[config.budget], config.labels
    asked = {
        "probe": config.probe_recipe or budget.probe,
        "finetune": config.finetune_recipe or budget.finetune,
    }
    found = []
    for command, name in asked.items():
        recipe = find_recipe(command, name)
        data = replace(
            recipe.data,
            source=wanted.data or config.data.source,
            val=wanted.val,
            val_share=wanted.val_share,
            label_column=wanted.label_column,
        )
        one, _ = _fitting(_on(config, replace(recipe, data=data)), len(labels.training), command)
        found.append(_of_length(one, getattr(budget.lengths, command)) if budget.lengths else one)
    return tuple(found)


def _unit(
    config: AblateConfig, axis: str, value: Value, seed: int, runs: tuple[Any, ...], out: Path
) -> Unit:
    """The runs of one value and seed, in their order."""
    settings = {axis: value.name.replace(":", "-"), SEED: str(seed)}
    folder = out / label(settings)
    pretraining, *measuring = (replace(one, run=replace(one.run, seed=seed)) for one in runs)
    steps = [("pretrain", pretraining)]
    if pretraining.target.kind == "tokens":
        tokenizer = config.tokenizer
        if tokenizer is None:
            tokenizer = str(folder / "tokenizer")
            steps.insert(0, ("tokenizer", _tokenizer(config, pretraining)))
        tokens = replace(pretraining.target, tokenizer=tokenizer)
        steps[-1] = ("pretrain", replace(pretraining, target=tokens))
    init = str(folder / "pretrain")
    steps += [
        (command, replace(one, init=init))
        for command, one in zip(("probe", "finetune"), measuring, strict=False)
    ]
    return Unit(
        value=value,
        seed=seed,
        folder=folder,
        steps=tuple(Step(task=find_task(command)(one), settings=settings) for command, one in steps),
    )


def _tokenizer(config: AblateConfig, pretraining: PretrainConfig) -> TokenizerConfig:
    """A tokenizer for the patches of a pre-training, on the same images."""
    budget = BUDGETS[config.budget]
    recipe = find_recipe("tokenizer", budget.tokenizer)
    d, size = pretraining.data, pair("data.size", pretraining.data.size)
    h, w = resolve_encoder(pretraining.model, size=size, channels=3).grid
    side = recipe.model.downsampling
    data = replace(recipe.data, source=d.source, held_out=d.held_out, size=(h * side, w * side))
    tokenizer: TokenizerConfig = _on(config, replace(recipe, data=data))
    tokenizer = replace(
        tokenizer,
        optim=replace(tokenizer.optim, batch=min(tokenizer.optim.batch, pretraining.optim.batch)),
        run=replace(tokenizer.run, seed=pretraining.run.seed),
    )
    return _of_length(tokenizer, budget.lengths.tokenizer) if budget.lengths else tokenizer


def _on(config: AblateConfig, one: C) -> C:
    """A recipe on the device and with the settings of the images that were asked for."""
    known, usual = {s.name for s in settings_of(one)}, AblationData()
    for setting in settings_of(config.data, "data."):
        name = setting.name.removeprefix("data.")
        if name != "source" and setting.value != getattr(usual, name) and setting.name in known:
            one = with_setting(one, setting.name, setting.value)
    return with_setting(one, "run.device", config.device)


def _fitting(one: Any, images: int, what: str) -> tuple[Any, list[str]]:
    """With a batch that so many images can fill."""
    batch = one.optim.batch
    if batch <= images or not images:
        return one, []
    fits = 1 << (images.bit_length() - 1)
    note = f"{what} has {images} images, fewer than the recipe's batch of {batch}: it takes {fits}"
    return replace(one, optim=replace(one.optim, batch=fits)), [note]


def _of_length(one: Any, steps: int) -> Any:
    """So many steps, of which a tenth warms up; looked at before and after."""
    return replace(
        one,
        optim=replace(one.optim, steps=steps, warmup_steps=steps // 10),
        run=replace(
            one.run, evaluate_every=steps, sample_every=steps, checkpoint_every=max(1, steps // 4)
        ),
    )
