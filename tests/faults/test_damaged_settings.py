"""Fault 32: JSON files beside the weights in which one value is another, at any depth: a sentence."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unmask
from damage import JSON, damaged
from faults_support import KILLED, in_child
from tests_support import mae_spec, random_weights, resolved
from unmask.config.annotations import MapOptions, ObjectOptions
from unmask.config.commands import EvaluateData, PretrainConfig, ReplayConfig
from unmask.config.io import plain, to_json
from unmask.config.migrate import config_record
from unmask.config.plan import EarlierPlan
from unmask.config.settings import Subset
from unmask.engine.run_directory import RunDirectory, check_settings
from unmask.errors import CheckpointError
from unmask.interop.models import build
from unmask.interop.weights import check_model, model_type, read_weights, write_model
from unmask.recipes import choose_recipe
from unmask.runs.known import earlier_plan
from unmask.runs.replay import run_replay, task_of_run
from unmask.storage import SEAL
from unmask.tasks import TASKS
from unmask.use.trained import as_in_training, data_of_run

pytestmark = pytest.mark.usefixtures("blank_charts")

A_SENTENCE = (ValueError, OSError)
"""What the command prints, as its exit codes say."""
MODEL = mae_spec(
    image_size=(8, 8), patch_size=(4, 4), channels=3, width=16, depth=1, heads=2, decoder_width=8,
    decoder_depth=1, decoder_heads=2,
)  # fmt: skip
HUB = Path(__file__).parents[1] / "golden" / "earlier" / "exports"


def write(file: Path, values: Any) -> None:
    """Without the checksum, which would give all away."""
    if isinstance(values, dict):
        values = {name: value for name, value in values.items() if name != SEAL}
    file.write_text(json.dumps(values))


@pytest.mark.parametrize("command", TASKS)
@settings(max_examples=30)
@given(st.data())
def test_32_any_value_in_config_json(tmp_path_factory, command, data):
    """When the run goes on, is a recipe, is replayed, and says how its data were divided."""
    recipes = TASKS[command].known_recipes()
    config = next(iter(recipes.values()))()
    values = json.loads(to_json(config_record(config, command)))
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    (run.checkpoints / "step-00000001").mkdir(parents=True)
    write(run.path / "config.json", data.draw(damaged(values) | JSON))
    for use in (
        lambda: check_settings(run, config, command),
        lambda: choose_recipe(str(run.path / "config.json"), recipes, command),
        lambda: task_of_run(run, ReplayConfig()),
        lambda: as_in_training(str(run.path), EvaluateData(source=("a",))),
        *(
            lambda kind=kind: data_of_run(str(run.path), kind)
            for kind in (Subset, MapOptions, ObjectOptions)
        ),
    ):
        with suppress(*A_SENTENCE):
            use()


@settings(max_examples=60)
@given(damaged(plain(resolved(PretrainConfig()))) | JSON)
def test_32_any_value_in_plan_json(tmp_path_factory, values):
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    write(run.path / "plan.json", values)
    with suppress(CheckpointError):
        assert isinstance(earlier_plan(run), EarlierPlan)


@settings(max_examples=30)
@given(st.data())
def test_32_any_value_in_model_json(tmp_path_factory, data):
    weights = random_weights(MODEL)
    folder = tmp_path_factory.mktemp("run")
    write_model(folder, weights.state, weights.description)
    values = json.loads((folder / "model.json").read_text())
    write(folder / "model.json", data.draw(damaged(values) | JSON))
    for use in (check_model, model_type, lambda folder: build(read_weights(folder))):
        with suppress(*A_SENTENCE):
            use(folder)


@pytest.mark.parametrize("library", ["pretrain-hf", "probe-hf", "finetune-timm"])
@settings(max_examples=30)
@given(st.data())
def test_32_any_value_in_the_settings_of_another_library(tmp_path_factory, library, data):
    folder = tmp_path_factory.mktemp("hub") / library
    shutil.copytree(HUB / library, folder)
    values = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", data.draw(damaged(values)))
    with suppress(*A_SENTENCE):
        read_weights(folder)


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_32_any_value_in_the_files_of_a_run_that_goes_on(stopped, data):
    """It ends as it would have, or with a sentence."""
    config, folder = stopped
    shutil.rmtree(config.out, ignore_errors=True)
    shutil.copytree(folder, config.out)
    file = Path(config.out) / data.draw(st.sampled_from(["config.json", "plan.json", "env.json"]))
    values = json.loads(file.read_text())
    write(file, data.draw(damaged(values) | JSON))
    with suppress(*A_SENTENCE):
        assert unmask.pretrain(config) == Path(config.out)


@pytest.fixture
def stopped(tiny, tmp_path):
    """A configuration and a copy of its run, which was killed at its last step."""
    assert in_child(lambda: unmask.pretrain(tiny), "step.update:kill:7") == KILLED
    return tiny, Path(tiny.out).rename(tmp_path / "stopped")


def test_25_a_skipped_step_beyond_the_run_is_ignored(tiny):
    """As a damaged number is."""
    run = unmask.pretrain(tiny)
    (run / "bad_steps.jsonl").write_text('{"step": 1000000}\n')
    with pytest.raises(ValueError, match="skipped no step"):
        run_replay(run, ReplayConfig())


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("data", 5, r"PretrainData wants names and values, not 5: get a fresh copy"),
        ("fit", 3, r"fit is 3: choose one of size, patch, steps"),
        ("optim", {"steps": "many"}, r"optim.steps is 'many' and must be a whole number or None"),
        ("run", {"seed": 1e400}, r"run.seed is inf and must be a whole number"),
        ("recipe", None, r"recipe is None and must be text"),
    ],
)
def test_32_what_is_wrong_is_named(tmp_path, place, value, sentence):
    (tmp_path / "config.json").write_text(json.dumps({"format": 2, place: value}))
    with pytest.raises(CheckpointError, match=rf"config.json cannot be used \({sentence}\): restore it"):
        RunDirectory(tmp_path).asked(PretrainConfig)
