"""Recipes: functions that return a config. The docstring states claim, cost and command."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from unmask.config.io import read_json
from unmask.config.migrate import read_config

C = TypeVar("C")


def choose_recipe(name: str, known: Mapping[str, Callable[[], C]], command: str) -> C:
    """A recipe of a command by its name, a config.json of an earlier run, or a function as
    module:function.

    Raises ValueError that lists the names if there is none, and for a file that is none of the command.
    """
    if name in known:
        return known[name]()
    kind = type(next(iter(known.values()))())
    if name.endswith(".json"):
        return _from_file(Path(name), kind, command)
    if ":" in name:
        return _from_module(name, kind)
    raise ValueError(f"there is no recipe {name}: choose one of {', '.join(known)}")


def _from_file(path: Path, kind: type[C], command: str) -> C:
    if not path.exists():
        raise ValueError(f"there is no recipe file {path}: give the config.json of a run")
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no names and values: give the config.json of a run")
    if (other := values.get("command", command)) != command:
        raise ValueError(
            f"{path} is of unmask {other}, and this is unmask {command}: give the config.json of a run "
            f"of unmask {command}"
        )
    try:
        return read_config({**values, "out": None}, kind)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Modules are sought there first, as `python -m unmask` does and the installed command does not."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()  # the file may have been written a moment ago
    try:
        yield
    finally:
        sys.path[:] = before


def _from_module(name: str, kind: type[C]) -> C:
    module_name, function = name.split(":", 1)
    try:
        with _current_folder_first():
            config = getattr(importlib.import_module(module_name), function)()
    except Exception as error:  # it is the user's code
        reason = str(error) if isinstance(error, ImportError | AttributeError) else repr(error)
        raise ValueError(
            f"the recipe {name} cannot be called ({reason}): write module:function, with the module "
            f"in this folder or on Python's path, and correct what it raises"
        ) from error
    if not isinstance(config, kind):
        raise ValueError(f"the recipe {name} must return a {kind.__name__}, not {type(config).__name__}")
    return config
