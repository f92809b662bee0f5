"""Every flag of every command, in the order of the help; `python tests/golden/flags.py` writes them."""

from pathlib import Path

from unmask.bench.setting import BenchConfig
from unmask.cli.main import commands
from unmask.cli.use import USES
from unmask.config.ablation import AblateConfig
from unmask.config.commands import ExportConfig, QuickstartConfig, ReplayConfig
from unmask.config.fields import settings_of
from unmask.config.planning import PlanConfig
from unmask.tasks import TASKS, find_recipe

OTHERS = {
    "ablate": AblateConfig,
    "quickstart": QuickstartConfig,
    "export": ExportConfig,
    "replay": ReplayConfig,
    "plan": PlanConfig,
    "bench": BenchConfig,
}
WITHOUT = ("list",)
"""Commands that have no flags."""


def all_flags() -> list[str]:
    """As in "pretrain --optim.steps"."""
    configs = {
        **{name: USES[name].config() for name in USES},
        **{name: find_recipe(name, entry.recipe) for name, entry in TASKS.items()},
        **{name: config() for name, config in OTHERS.items()},
    }
    names = [name for name in commands() if name not in WITHOUT]
    return [f"{name} {setting.flag}" for name in names for setting in settings_of(configs[name])]


if __name__ == "__main__":
    Path(__file__).with_name("flags.txt").write_text("\n".join(all_flags()) + "\n")
