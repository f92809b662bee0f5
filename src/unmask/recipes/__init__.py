"""Recipes: functions that return a config. The docstring states claim, cost and command."""

import importlib
from collections.abc import Callable
from pathlib import Path

from unmask.config.io import from_dict, read_json
from unmask.config.schema import PretrainConfig
from unmask.recipes import pretrain

PRETRAIN: dict[str, Callable[[], PretrainConfig]] = {
    "vit-base-800": pretrain.vit_base_800,
    "vit-base-1600": pretrain.vit_base_1600,
    "vit-large-800": pretrain.vit_large_800,
    "vit-large-1600": pretrain.vit_large_1600,
    "vit-huge-800": pretrain.vit_huge_800,
    "vit-huge-1600": pretrain.vit_huge_1600,
    "small-images": pretrain.small_images,
    "laptop": pretrain.laptop,
    "quickstart": pretrain.quickstart,
}


def pretrain_recipe(name: str) -> PretrainConfig:
    """A recipe by its name, a config.json of an earlier run, or a function as module:function.

    Raises ValueError that lists the names where there is none.
    """
    if name in PRETRAIN:
        config = PRETRAIN[name]()
    elif name.endswith(".json"):
        if not Path(name).exists():
            raise ValueError(f"there is no recipe file {name}: give the config.json of a run")
        config = from_dict(PretrainConfig, {**read_json(Path(name)), "out": None})
    elif ":" in name:
        config = _from_module(name)
    else:
        raise ValueError(f"there is no recipe {name}: choose one of {', '.join(PRETRAIN)}")
    return config


def _from_module(name: str) -> PretrainConfig:
    module_name, function = name.split(":", 1)
    try:
        config = getattr(importlib.import_module(module_name), function)()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the recipe {name} cannot be imported ({error}): write module:function, with the module "
            f"on Python's path"
        ) from error
    if not isinstance(config, PretrainConfig):
        raise ValueError(f"the recipe {name} must return a PretrainConfig, not {type(config).__name__}")
    return config
