"""A command offers what does something: flags that are gone say why, and help needs no torch."""

import subprocess
import sys

import pytest

from unmask.cli.main import commands, run
from unmask.cli.removed import REMOVED
from unmask.cli.use import USES
from unmask.config.fields import settings_of
from unmask.tasks import TASKS, find_recipe

GONE = [(command, name, why) for command, names in REMOVED.items() for name, why in names.items()]


def flags_of(command: str) -> set[str]:
    config = find_recipe(command, TASKS[command].recipe) if command in TASKS else USES[command].config()
    return {setting.flag for setting in settings_of(config)}


@pytest.mark.parametrize(("command", "name", "why"), GONE, ids=lambda value: str(value)[:30])
def test_a_removed_flag_says_why(command, name, why, capsys):
    flag = f"{name}anything" if name.endswith(".") else name
    for typed in (f"--{flag}", f"--{flag.replace('-', '_')}=1"):
        assert run([command, "images", typed]) == 2
        assert capsys.readouterr().err == f"unmask: {command} has no --{flag} any more: {why}\n"


@pytest.mark.parametrize("command", sorted(REMOVED.keys() - {"plan"}))
def test_what_is_removed_is_not_there(command):
    live = flags_of(command)
    for name in REMOVED[command]:
        assert not [flag for flag in live if flag == f"--{name}" or flag.startswith(f"--{name}.")]


def test_knn_lists_only_what_it_uses(capsys):
    with pytest.raises(SystemExit, match="0"):
        run(["knn", "--help"])
    text = capsys.readouterr().out
    for dead in (
        "crop-scale",
        "repeats",
        "balance",
        "held-out",
        "cache-gib",
        "--data.mean",
        "--data.flip",
    ):
        assert dead not in text
    for live in ("--init", "--neighbours", "--temperature", "--data.per-class", "--data.eval-crop"):
        assert live in text


HELP = """
import sys
from unmask.cli.main import commands, run

for name in commands():
    try:
        run([name, "--help"])
    except SystemExit:
        pass
    print(name, "torch" in sys.modules, file=sys.stderr)
"""


def test_help_imports_no_torch():
    """Of every command, in one process: what one of them imports, those behind it have."""
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"{name} False" for name in commands()]


def test_help_of_a_recipe_shows_its_values(capsys):
    with pytest.raises(SystemExit, match="0"):
        run(["pretrain", "--recipe", "tiny-images", "--help"])
    patch = find_recipe("pretrain", "tiny-images").model.patch
    text = " ".join(capsys.readouterr().out.split())
    assert f"(recipe: {patch[0]})" in text
    assert "DATA may stand before or after the flags." in text
