"""The commands of docs/segmentation.md run."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import photograph
from unmask.cli.main import run

TEXT = (Path(__file__).parents[2] / "docs" / "segmentation.md").read_text()
SMALL = "--optim.steps 1 --optim.warmup-steps 0 --optim.batch 4 --data.workers 0 --run.precision fp32"
PRETRAIN = (
    "--out runs/pretrain-images --data.size 16 --data.held-out 2 --model.patch 4 --model.width 16 "
    "--model.depth 2 --model.heads 2 --model.decoder-width 8 --model.decoder-depth 1 "
    "--model.decoder-heads 2"
)


@pytest.mark.slow
def test_every_command_runs(tmp_path, monkeypatch):
    """Training is made tiny, by flags behind the document's own."""
    monkeypatch.chdir(tmp_path)
    for place in ("images", "labels"):
        (tmp_path / "path/to/scenes" / place).mkdir(parents=True)
    for i in range(8):
        photograph(i).save(f"path/to/scenes/images/{i}.png")
        labels = np.uint8(np.arange(44)[None] // 22 + np.zeros((30, 1)))
        Image.fromarray(labels).save(f"path/to/scenes/labels/{i}.png")
    assert run(["pretrain", "path/to/scenes/images", *PRETRAIN.split(), *SMALL.split()]) == 0
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    assert [line[0] for line in lines] == ["check", *["segment"] * 3, "evaluate", "predict"]
    for words in lines:
        extra = SMALL.split() if words[0] == "segment" else []
        extra += ["--model.patch", "16", "--head.width", "8"] if "--scratch" in words else []
        assert run([*words, *extra]) == 0, shlex.join(words)
