"""Any configuration survives being written and read: in a run directory, as a recipe."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_values import configs_of
from unmask.config import commands
from unmask.config.io import from_dict, plain, to_json
from unmask.config.migrate import config_record, read_config
from unmask.config.plan import Plan
from unmask.engine.run_directory import RunDirectory, check_settings
from unmask.recipes import choose_recipe
from unmask.storage import from_json, sealed, unsealed
from unmask.tasks import TASKS

OTHERS = [
    cls
    for name, cls in vars(commands).items()
    if name.endswith("Config") and dataclasses.is_dataclass(cls) and cls.__module__ == commands.__name__
]


def config_of(command: str) -> type:
    return type(next(iter(TASKS[command].known_recipes().values()))())


@pytest.mark.parametrize("command", TASKS)
@settings(max_examples=10)
@given(st.data())
def test_any_configuration_of_a_run_survives(tmp_path_factory, command, data):
    """As config.json, with which a resumed run is compared; and as --recipe config.json."""
    config = data.draw(configs_of(config_of(command)))
    folder = tmp_path_factory.mktemp("run")
    run = RunDirectory(folder)
    run.write("config.json", to_json(config_record(config, command)))
    assert read_config(run.read("config.json"), type(config)) == config
    (run.checkpoints / "step-00000001").mkdir(parents=True)
    check_settings(run, config, command)
    recipe = choose_recipe(str(folder / "config.json"), TASKS[command].known_recipes(), command)
    assert recipe == dataclasses.replace(config, out=None)


@pytest.mark.parametrize("cls", OTHERS, ids=lambda cls: cls.__name__)
@settings(max_examples=10)
@given(st.data())
def test_any_configuration_survives(cls, data):
    config = data.draw(configs_of(cls))
    assert from_dict(cls, from_json(to_json(config).encode())) == config


@settings(max_examples=20)
@given(configs_of(Plan))
def test_any_plan_survives(plan):
    written = to_json(sealed(plain(plan))).encode()
    assert from_dict(Plan, unsealed(from_json(written))) == plan
