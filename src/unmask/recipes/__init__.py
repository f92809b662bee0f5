"""Recipes: functions that return a config. The docstring states claim, cost and command."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from unmask.config.io import from_dict, read_json
from unmask.config.schema import PretrainConfig
from unmask.config.schema_classify import ClassifyConfig
from unmask.recipes import classify, pretrain

PRETRAIN: dict[str, Callable[[], PretrainConfig]] = {
    "vit-base-800": pretrain.vit_base_800,
    "vit-base-1600": pretrain.vit_base_1600,
    "vit-large-800": pretrain.vit_large_800,
    "vit-large-1600": pretrain.vit_large_1600,
    "vit-huge-800": pretrain.vit_huge_800,
    "vit-huge-1600": pretrain.vit_huge_1600,
    "small-images": pretrain.small_images,
    "laptop": pretrain.laptop,
    "tiny-images": pretrain.tiny_images,
    "quickstart": pretrain.quickstart,
}
FINETUNE: dict[str, Callable[[], ClassifyConfig]] = {
    "finetune-base": classify.finetune_base,
    "finetune-large": classify.finetune_large,
    "finetune-huge": classify.finetune_huge,
    "finetune-huge-448": classify.finetune_huge_448,
    "finetune-base-released": classify.finetune_base_released,
    "finetune-large-released": classify.finetune_large_released,
    "finetune-huge-released": classify.finetune_huge_released,
    "partial-large": classify.partial_large,
    "small-data": classify.small_data,
    "tiny-images-finetune": classify.tiny_images_finetune,
    "quickstart-finetune": classify.quickstart_finetune,
}
PROBE: dict[str, Callable[[], ClassifyConfig]] = {
    "probe": classify.probe,
    "small-probe": classify.small_probe,
    "quickstart-probe": classify.quickstart_probe,
}
SCRATCH: dict[str, Callable[[], ClassifyConfig]] = {
    "scratch-base": classify.scratch_base,
    "scratch-large": classify.scratch_large,
    "scratch-huge": classify.scratch_huge,
    "small-scratch": classify.small_scratch,
    "tiny-images-scratch": classify.tiny_images_scratch,
    "quickstart-scratch": classify.quickstart_scratch,
}
CLASSIFY = {**FINETUNE, **PROBE, **SCRATCH}

C = TypeVar("C")


def pretrain_recipe(name: str) -> PretrainConfig:
    """A recipe by its name, a config.json of an earlier run, or a function as module:function.

    Raises ValueError that lists the names where there is none.
    """
    return _recipe(name, PRETRAIN, PretrainConfig)


def classify_recipe(name: str) -> ClassifyConfig:
    """The same for fine-tuning, probing and training from scratch."""
    return _recipe(name, CLASSIFY, ClassifyConfig)


def _recipe(name: str, known: Mapping[str, Callable[[], C]], kind: type[C]) -> C:
    if name in known:
        return known[name]()
    if name.endswith(".json"):
        if not Path(name).exists():
            raise ValueError(f"there is no recipe file {name}: give the config.json of a run")
        return from_dict(kind, {**read_json(Path(name)), "out": None})
    if ":" in name:
        return _from_module(name, kind)
    raise ValueError(f"there is no recipe {name}: choose one of {', '.join(known)}")


def _from_module(name: str, kind: type[C]) -> C:
    module_name, function = name.split(":", 1)
    try:
        config = getattr(importlib.import_module(module_name), function)()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the recipe {name} cannot be imported ({error}): write module:function, with the module "
            f"on Python's path"
        ) from error
    if not isinstance(config, kind):
        raise ValueError(f"the recipe {name} must return a {kind.__name__}, not {type(config).__name__}")
    return config
