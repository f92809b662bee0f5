"""The commands of docs/detection.md run, in their order, made tiny by flags behind their own."""

import re
import shlex
from pathlib import Path

import pytest

from tasks.test_detect import write_scenes
from unmask.cli.main import run

PAGE = (Path(__file__).parents[2] / "docs" / "detection.md").read_text()
SHORT = "--optim.steps 2 --optim.warmup-steps 1 --data.workers 0"
TINY = {
    "pretrain": f"{SHORT} --optim.batch 4 --data.size 32 --data.held-out 4 --model.width 16 "
    "--model.depth 4 --model.heads 2 --model.decoder-width 8 --model.decoder-depth 1 "
    "--model.decoder-heads 2",
    "detect": f"{SHORT} --optim.batch 4 --data.size 32 --detector.channels 8 --detector.head-width 8 "
    "--detector.detections 5",
}


@pytest.mark.slow
def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scenes(Path("objects"), {"train": 12, "val": 4})
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    for _, command, *words in lines:
        assert run([command, *words, *shlex.split(TINY.get(command, ""))]) == 0, command
    assert [words[1] for words in lines] == ["check", "pretrain", "detect", "evaluate", "predict"]
    assert Path("runs/predict-val/detections.json").exists()


def test_every_indented_command_is_known():
    """Of examples on data that are not here: flags and commands exist."""
    from unmask.cli.main import commands

    named = re.findall(r"^    unmask (\w+)|`unmask (\w+)", PAGE, re.MULTILINE)
    assert named
    assert {first or second for first, second in named} <= set(commands())
